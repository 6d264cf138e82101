"""`freshrank freshness`: how fresh each feature view is, and why not."""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from streams.snapshots import Snapshot

EVERY_S = 2.0


@click.command()
@click.option("--metrics", multiple=True, metavar="HOST:PORT", help="Metrics of a worker; once for each of them.")
@click.option(
    "--follow", is_flag=True, help="Print again every two seconds, with what was measured since; Ctrl-C ends."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; with --follow one a line.")
def command(metrics: tuple[str, ...], follow: bool, as_json: bool) -> None:
    """Ask all workers what they measured, add it up, and print it by feature view and stage.

    \b
      row       event -> its row is readable in the feature store
      change    event -> its row is on feature-changes, where the ranking side reads
      ranking   event -> the ranking that it brought about is published

    Times are of the wall clock, from the Kafka timestamp of the event. Below stand the partitions and who is behind: a
    partition is late when messages wait and the newest one read is older than the view's SLO; it is quiet when nothing
    waits and nothing came for two minutes. What nobody buys is quiet, and nothing is wrong with it.

    The workers of an engine that was started in this folder are found by themselves; others are named by --metrics
    (FRESHRANK_METRICS_PORT of each). docs/reference/metrics.md says what Prometheus gets.
    """

    from streams.cli import Problem
    from streams.commands.connecting import local_engine
    from streams.show import terminal

    engine = None if metrics else local_engine()
    addresses = list(metrics) or (list(engine.metrics.values()) if engine else [])
    if not addresses:
        raise Problem("which workers? no engine runs in this folder (freshrank up); name each by --metrics HOST:PORT")
    console = terminal()
    earlier: Snapshot | None = None
    while True:
        snapshot = _asked(addresses)
        _print(console, snapshot if earlier is None else snapshot.since(earlier), as_json)
        if not follow:
            return
        earlier = snapshot
        time.sleep(EVERY_S)


def _asked(addresses: Sequence[str]) -> "Snapshot":
    from streams.cli import Problem
    from streams.snapshots import scrape

    snapshot = scrape(addresses, time.time_ns() // 1_000_000)
    if len(snapshot.unreachable) == len(addresses):
        address, why = next(iter(snapshot.unreachable.items()))
        raise Problem(f"no worker answers, {address} because: {why}")
    return snapshot


def _print(console: "Console", snapshot: "Snapshot", as_json: bool) -> None:
    from streams.show import freshness_table, partitions_table

    if as_json:
        click.echo(json.dumps(snapshot.to_json()))
        return
    console.print(freshness_table(snapshot.rows()))
    console.print(partitions_table(snapshot.partitions()))
    told = snapshot.to_json()
    counts = {name.removeprefix("freshrank_").removesuffix("_total"): count for name, count in told["counters"].items()}
    console.print(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()))
    if (rerank := told["rerank"])["rankings"]:
        took = f"p50 {rerank['p50_ms']:.1f} ms, p99 {rerank['p99_ms']:.1f} ms"
        console.print(f"re-ranking, from a changed row's coming to its rankings' going to Kafka: {took}")
    for address, why in snapshot.unreachable.items():
        console.print(f"[yellow]{address} does not answer: {why}[/]")
