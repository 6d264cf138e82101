"""`freshrank why`: what moved between the last two rankings of a set, and because of what."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from serving.explaining import Explanation, Listing, Movement
    from streams.client import FreshRanking

#: products and rivals shown unless --limit says otherwise
SHOWN = 10


@click.command()
@click.argument("result_set_id", metavar="ID")
@click.argument("product_id", metavar="[PRODUCT]", required=False)
@click.option("--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="Products shown.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object: every product, or all about one.")
def command(result_set_id: str, product_id: str | None, limit: int, as_json: bool) -> None:
    """Say why products of the set ID stand elsewhere in its newest ranking than in the one before.

    A product moves because a part of its score changed (price, sales, clicks, ...), because it is sold out or back in
    stock, or because of what happened to another. With PRODUCT: what its score changed by, part by part, whom it passed
    and who passed it.

    Scores have parts where the registration asks for them: `"context": {"explain": true}`.

    \b
      freshrank why search:mug               every product that moved, and why
      freshrank why search:mug 85123A        one product and its rivals
    """
    from serving.explaining import explanation, movements
    from streams.cli import Problem
    from streams.client import RankingsReader
    from streams.commands.connecting import connection

    with RankingsReader(connection()) as reader:
        found = reader.last(result_set_id, 2)
    if len(found) < 2:
        there = "one ranking" if found else "no ranking"
        raise Problem(f"there is {there} of {result_set_id}: nothing to compare")
    before, after = found
    if product_id is None:
        _print_all(before, after, movements(listing(before), listing(after)), limit, as_json)
        return
    try:
        told = explanation(listing(before), listing(after), product_id)
    except ValueError as error:
        raise Problem(f"{error} of {result_set_id}") from error
    _print_one(before, after, told, limit, as_json)


def listing(ranking: "FreshRanking") -> "Listing":
    """A ranking as it is explained."""
    from serving.explaining import Listing

    columns = ranking.columns
    return Listing(columns.product_ids, columns.scores, columns.contributions)


def _print_all(
    before: "FreshRanking", after: "FreshRanking", moved: "tuple[Movement, ...]", limit: int, as_json: bool
) -> None:
    from streams.show import movements_table, terminal

    if as_json:
        click.echo(json.dumps({**_about(before, after), "movements": [_as_object(one) for one in moved]}))
        return
    console = terminal()
    some = [one for one in moved if not one.is_still]
    _print_head(console, before, after)
    if not some:
        console.print("no product moved")
        return
    console.print(movements_table(f"{len(some)} of {len(moved)} products", some[:limit], _titles(some[:limit])))


def _print_one(before: "FreshRanking", after: "FreshRanking", told: "Explanation", limit: int, as_json: bool) -> None:
    from streams.commands.ranking_output import Titles
    from streams.show import movements_table, passings_table, terminal

    own = told.movement
    if as_json:
        passings = [asdict(passing) for passing in told.passings]
        click.echo(json.dumps({**_about(before, after), **_as_object(own), "passings": passings}))
        return
    console = terminal()
    _print_head(console, before, after)
    console.print(movements_table("the product", [own], _titles([own])))
    some = told.passings[:limit]
    if some:
        rivals = [passing.loser if passing.winner == own.product_id else passing.winner for passing in some]
        caption = f"{len(some)} of {len(told.passings)} that it changed places with, nearest first"
        console.print(passings_table(caption, own.product_id, some, Titles().of(rivals)))


def _print_head(console: "Console", before: "FreshRanking", after: "FreshRanking") -> None:
    from rich.markup import escape

    from streams.show import because, spoken_version

    versions = f"version {spoken_version(after.version)} beside {spoken_version(before.version)}"
    console.print(f"[bold]{escape(after.result_set_id)}[/]  {versions}, because of: {because(after)}")
    if before.model_version != after.model_version:
        console.print(f"another model: {escape(before.model_version)}, then {escape(after.model_version)}")
    if before.degraded or after.degraded:
        console.print("degraded: scores were made without the model, by the last ones and the price")
    if before.columns.contributions is None or after.columns.contributions is None:
        console.print('no parts of scores: register the set with "context": {"explain": true}', markup=False)


def _about(before: "FreshRanking", after: "FreshRanking") -> dict[str, Any]:
    return {
        "result_set_id": after.result_set_id,
        "versions": [before.version, after.version],
        "model_versions": [before.model_version, after.model_version],
        "degraded": [before.degraded, after.degraded],
        "caused_by": None if after.caused_by is None else asdict(after.caused_by),
        "explained": before.columns.contributions is not None and after.columns.contributions is not None,
    }


def _as_object(movement: "Movement") -> dict[str, Any]:
    return {**asdict(movement), "change": movement.change}


def _titles(moved: "list[Movement]") -> Mapping[str, str]:
    from streams.commands.ranking_output import Titles

    return Titles().of(one.product_id for one in moved)
