"""`freshrank register`: live result sets from a file."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streams.client import FreshRanking, RankingsReader

#: a set that had a ranking and gets no other within this time was registered with the same bytes again
SAME_S = 2.0


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--wait", is_flag=True, help="Wait for the first ranking of each set and print it.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
              help="Seconds that --wait waits.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Products shown of each ranking.")
@click.option("--close", is_flag=True, help="Close the sets of FILE instead: they are kept in order no longer.")
@click.option("--skip-bad", is_flag=True, help="Register the good sets also when some are bad.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line: ids, with --wait rankings.")
def command(
    file: IO[str], wait: bool, timeout_s: float, limit: int, close: bool, skip_bad: bool, as_json: bool
) -> None:
    """Register the result sets of FILE, `-` for stdin: a JSON object on each line, or a JSON list.

    \b
      {"result_set_id": "search:mug", "kind": "search", "query": "mug",
       "candidates": [["85123A", 0.9], ["71053", 0.7]]}            (on one line)

    A set is what your own retrieval found: up to 1,000 candidates, each with its retrieval score. The engine orders
    them and publishes a new ranking whenever the order or a score changes, until `expires_at` (ms UTC, if given) or
    until the set is closed. `kind` is search, recommendation or ads; `user_id` makes the order personal.

    Prints the ids. Registering the same again changes nothing; other candidates under the same id replace the old.
    """
    from feature_repo.events import ResultSet
    from streams.client import Connection, RankingsReader, Registrar
    from streams.commands.connecting import settings
    from streams.commands.input_files import REGISTERED, read_records

    ours = settings()
    read, _ = read_records(file, REGISTERED, ours.limits, skip_bad)
    sets = {record.result_set_id: record for record in read if isinstance(record, ResultSet)}
    connection = Connection.from_settings(ours)
    with RankingsReader(connection) as reader:
        before = reader.latest() if wait else {}
        with Registrar(connection, ours.limits) as registrar:
            for name, result_set in sets.items():
                if close:
                    registrar.unregister(name)
                else:
                    registrar.register(result_set)
        if close or not wait:
            done = "closed" if close else "registered"
            for name in sets:
                click.echo(json.dumps({"result_set_id": name, "done": done}) if as_json else name)
            return
        _print(_first_rankings(reader, before, list(sets), timeout_s), limit, as_json)


def _first_rankings(
    reader: "RankingsReader", before: Mapping[str, "FreshRanking"], names: Sequence[str], timeout_s: float
) -> Iterator["FreshRanking"]:
    """The ranking that each set got by its registration, or the one it had. Problem when one does not come."""
    from streams.cli import Problem
    from streams.client import ClosedSet

    waiting, deadline = set(names), time.monotonic() + timeout_s
    same_at = time.monotonic() + SAME_S
    while waiting:
        for news in reader.follow(idle_s=0.1):
            if news.result_set_id in waiting and not isinstance(news, ClosedSet):
                waiting.discard(news.result_set_id)
                yield news
        now = time.monotonic()
        if now > same_at:
            for name in sorted(waiting & before.keys()):
                waiting.discard(name)
                yield before[name]
        if waiting and now > deadline:
            raise Problem(
                f"no ranking of {min(waiting)} ({len(waiting)} sets) within {timeout_s:g} s: do the workers run, and "
                "does the log's clock go in every partition (freshrank freshness)?"
            )


def _print(rankings: Iterator["FreshRanking"], limit: int, as_json: bool) -> None:
    from streams.commands.ranking_output import as_object, titles_of
    from streams.show import ranking_table, terminal

    console = terminal()
    for ranking in rankings:
        if as_json:
            click.echo(json.dumps(as_object(ranking, limit)))
        else:
            console.print(ranking_table(ranking, titles_of(ranking, limit), limit))
