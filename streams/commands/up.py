"""`freshrank up`: the whole engine on this machine, until Ctrl-C."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.commands.starting import STOPPED, engine_options, run_dir, started

if TYPE_CHECKING:
    from rich.console import Console

    from streams.local.engine import LocalEngine

WATCH_S = 0.5
PART_READY_S = 60.0
COUNT = click.IntRange(0, 64)


@click.command()
@click.option("--product", type=COUNT, default=1, show_default=True, help="Workers that fold events into rows.")
@click.option("--content", type=COUNT, default=1, show_default=True, help="Workers that encode texts and pictures.")
@click.option("--ranking", type=COUNT, default=1, show_default=True, help="Workers that keep result sets in order.")
@click.option("--heartbeats", type=click.Choice(["owner", "external"]), default="owner", show_default=True,
              help="Who moves the log's clock: the workers by the time of day, or a replay of the past.")  # fmt: skip
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when ready; the rest goes to stderr.")
def command(
    product: int,
    content: int,
    ranking: int,
    heartbeats: str,
    folder: Path | None,
    kafka_home: Path | None,
    as_json: bool,
) -> None:
    """Start a broker, Redis, Triton and the workers on this machine, and keep them running.

    Ports are chosen free, on loopback only. The addresses are printed, also as `export FRESHRANK_...` lines for
    programs of your own; freshrank's commands in the same folder find a running engine by themselves. A worker that
    ends is started again, and so is a part that keeps its data. Ctrl-C or SIGTERM stops everything: exit code 0.

    \b
      freshrank up                      in one terminal, and in another:
      freshrank publish examples/products.jsonl
      freshrank register examples/result_sets.jsonl --wait
      freshrank rankings --follow

    The local broker, Tansu, keeps the log in memory: it is gone at the end.
    """

    from streams.local.engine import LocalEngine
    from streams.show import terminal

    console = terminal(stderr=as_json)
    engine = LocalEngine(
        run_dir(folder),
        kafka_home,
        workers={"product": product, "content": content, "ranking": ranking},
        heartbeats=heartbeats,
        say=lambda line: console.print(line, markup=False),
    )
    try:
        with started(engine, console) as seconds:
            if as_json:
                click.echo(json.dumps({**asdict(engine.announced), "ready_s": round(seconds, 1)}))
            else:
                _print_addresses(console, engine.announced.addresses, engine.announced.environment)
            console.print(f"ready after {seconds:.1f} s; logs in {engine.run_dir}; Ctrl-C stops everything")
            _watch(engine, console)
    except STOPPED:
        console.print("stopped")


def _print_addresses(console: "Console", addresses: Mapping[str, str], environment: Mapping[str, str]) -> None:
    from streams.show import figures_table

    console.print(figures_table("addresses", list(addresses.items())))
    for name, value in environment.items():
        console.print(f"export {name}={value}", markup=False)


def _watch(engine: "LocalEngine", console: "Console") -> None:
    """For ever: bring back a part that ends. PartFailed when it took the log with it or does not come back."""
    from streams.local.part import PartFailed

    while True:
        for part in engine.stack.parts:
            if part.alive():
                continue
            if part is engine.stack.broker and engine.stack.broker.kind == "tansu":
                raise PartFailed(f"tansu ended, and the log, which it kept in memory, with it (log: {part.log})")
            console.print(f"{part.name} ended and is started again (log: {part.log})", markup=False)
            part.start()
            part.ready(PART_READY_S)
        time.sleep(WATCH_S)
