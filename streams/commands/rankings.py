"""`freshrank rankings`: the orders in force, and new ones as they come."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from streams.client import FreshRanking, RankingsReader

#: without an id and without --limit, so many products of each list
OVERVIEW = 3


@click.command()
@click.argument("result_set_id", metavar="[ID]", required=False)
@click.option("--follow", is_flag=True, help="Go on: each new ranking as it is published, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(1), help="Products of each ranking.  [default: 10 of one set, 3 of many]")
@click.option(
    "--json", "as_json", is_flag=True, help="A JSON object a line; all products unless --limit says how many."
)
def command(result_set_id: str | None, follow: bool, limit: int | None, as_json: bool) -> None:
    """Print the newest ranking of the set ID, or of all live sets.

    The topic `rankings` is a table: its last record of a set is the order in force. Each says what it knows: its
    version (epoch.counter, which only grows), the model, the row whose change brought it about with the milliseconds
    that took, and whether it is degraded (made without the model, to be replaced when Triton is back).

    \b
      freshrank rankings                     one line for each set
      freshrank rankings search:mug          one list as a table: rank, places moved, product, score, why
      freshrank rankings --follow            a line for each new order: who moved, and because of what
      freshrank rankings --follow --json     for programs: all of it
    """

    from streams.client import RankingsReader
    from streams.commands.connecting import connection
    from streams.show import terminal

    console = terminal()
    with RankingsReader(connection()) as reader:
        table = reader.latest()
        if result_set_id is not None:
            found = {name: ranking for name, ranking in table.items() if name == result_set_id}
            if not found and not follow:
                raise _unknown(result_set_id, sorted(table))
            table = found
        _print_table(console, table, result_set_id, limit, as_json)
        if follow:
            _follow(console, reader, result_set_id, limit, as_json)


def _unknown(result_set_id: str, known: list[str]) -> click.ClickException:
    from streams.cli import Problem

    some = f"{len(known)} sets are, among them {', '.join(known[:3])}" if known else "no set is"
    return Problem(f"no ranking of {result_set_id} is in force; {some}")


def _print_table(
    console: "Console", table: dict[str, "FreshRanking"], result_set_id: str | None, limit: int | None, as_json: bool
) -> None:
    from streams.commands.ranking_output import Titles, as_object
    from streams.show import overview, ranking_table

    titles = Titles()
    for name, ranking in sorted(table.items()):
        if as_json:
            click.echo(json.dumps(as_object(ranking, limit)))
        elif name == result_set_id:
            most = limit or 10
            console.print(ranking_table(ranking, titles.of(ranking.columns.product_ids[:most]), most))
        else:
            most = limit or OVERVIEW
            console.print(overview(ranking, titles.of(ranking.columns.product_ids[:most]), most))


def _follow(
    console: "Console", reader: "RankingsReader", result_set_id: str | None, limit: int | None, as_json: bool
) -> None:
    from streams.client import ClosedSet
    from streams.commands.ranking_output import Titles, as_object
    from streams.show import news_line

    titles = Titles()
    for news in reader.follow():
        if result_set_id not in (None, news.result_set_id):
            continue
        if as_json:
            click.echo(json.dumps(as_object(news, limit)))
            continue
        known = {} if isinstance(news, ClosedSet) else titles.of(news.columns.product_ids[:20])
        console.print(news_line(news, known))
