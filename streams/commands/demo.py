"""`freshrank demo`: everything in one command, on real events."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.commands.starting import STOPPED, engine_options, run_dir, started

if TYPE_CHECKING:
    from rich.console import Console

    from streams.demo import DemoOptions, DemoSummary, Hooks, Scene
    from streams.local.engine import LocalEngine
    from streams.show import Features

WORKERS = {"product": 1, "content": 1, "ranking": 1}
#: what can be tried while `--follow` keeps the engine running
MEANWHILE = (
    "publish examples/sold_out.jsonl    two products sell out and go to the end of their lists",
    "rankings 'search:白色T恤'",
    "freshness",
    "verify",
)
AFTER = (
    "demo --follow    the same, kept running, to be looked at from another terminal",
    "up               an engine for events of your own",
    "--help           the whole command line",
)


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="An Online Retail file (CSV, plain or gzip).  [default: the slice in examples/]")  # fmt: skip
@click.option("--events", type=click.IntRange(1), default=6_000, show_default=True,
              help="How many events of the last week are replayed; all, if it has no more.")  # fmt: skip
@click.option("--speed", type=click.FloatRange(0, min_open=True), default=150, show_default=True,
              help="Events a second.")  # fmt: skip
@click.option("--sets", type=click.IntRange(1, 2_000), default=200, show_default=True,
              help="Live result sets of 100 products each, beside that of the shirts.")  # fmt: skip
@click.option("--seed", type=int, default=2, show_default=True, help="Of what is drawn: shirts and their story.")
@click.option("--follow", is_flag=True, help="Keep everything running after the show and print rankings; Ctrl-C ends.")
@engine_options
@click.option("--keep", is_flag=True, help="Keep the run's folder with its logs also when all went well.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object; the show goes to stderr.")
def command(
    data: Path | None,
    events: int,
    speed: float,
    sets: int,
    seed: int,
    follow: bool,
    folder: Path | None,
    kafka_home: Path | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Replay real shop events through the whole engine and show what becomes of the lists.

    \b
    1. Starts a broker, Redis, Triton and three workers on this machine.
    2. Sends the weeks before as bulk messages: products, prices, purchases.
    3. Registers searches of real words, and "白色T恤" over 100 drawn garments.
    4. Replays events of the last week in their order and time, and reads the rankings topic.
    5. Shows two lists before and after, and why products moved.
    6. Compares every list with an offline replay of the log.

    Exit code 0 only when lists moved and all of them are right. Everything is stopped at the end, with Ctrl-C too (exit
    code 130; 0 with --follow, which is meant to be ended so).
    """
    from streams.cli import Problem
    from streams.demo import DemoOptions, prepare
    from streams.local.engine import LocalEngine
    from streams.replay import Speed
    from streams.show import terminal

    console = terminal(stderr=as_json)
    options = DemoOptions(data=data, sets=sets, events=events, speed=Speed(events_per_s=speed), seed=seed)
    engine = LocalEngine(
        run_dir(folder),
        kafka_home,
        workers=WORKERS,
        heartbeats="external",
        say=lambda line: console.print(line, markup=False),
    )
    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(prepare, options)  # takes seconds, and so do the parts
        if data is not None:
            preparing.result()  # a wrong file is told before anything is started
        summary = _run(engine, console, options, preparing, as_json, follow)
    if not summary.ok:
        raise Problem(f"{_why_not(summary)}; logs are in {engine.run_dir}")
    if folder is None and not keep:
        shutil.rmtree(engine.run_dir)
    if not follow:
        _print_lines(console, "where to look next:", AFTER)


def _run(
    engine: "LocalEngine",
    console: "Console",
    options: "DemoOptions",
    preparing: "Future[Scene]",
    as_json: bool,
    follow: bool,
) -> "DemoSummary":
    """The engine's life: the show, the figures, and with `follow` what comes until Ctrl-C."""
    from streams.cli import Problem
    from streams.demo import DemoError, run_demo

    with started(engine, console):
        scene = preparing.result()
        try:
            summary = run_demo(engine.settings, console, scene, options, _hooks(engine, console))
        except DemoError as error:
            raise Problem(f"{error}; logs are in {engine.run_dir}") from error
        restarts = sum(worker.restarts for worker in engine.supervisor.status())
        if restarts:
            console.print(f"{restarts} restarts of workers: their counts begin anew with each")
        if as_json:
            click.echo(json.dumps({**summary.to_json(), "worker_restarts": restarts}))
        if follow:
            with suppress(*STOPPED):
                _follow(engine, console, scene.titles)
            console.print("stopping")
    return summary


def _why_not(summary: "DemoSummary") -> str:
    return "no list has another order than before" if summary.verified else "the lists are not what they should be"


def _hooks(engine: "LocalEngine", console: "Console") -> "Hooks":
    """What the show asks of the engine."""
    from feature_repo.reading import RowReader
    from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG
    from streams.demo import Hooks
    from streams.oracle import VerifyReport, verify
    from streams.show import stages

    rows = RowReader(engine.settings.redis.get_secret_value())

    def features(product_ids: Sequence[str]) -> "Mapping[str, Features]":
        facts = rows.read_arrays(PRODUCT_CATALOG, product_ids)
        windows = rows.read_arrays(PRODUCT_BEHAVIOR, product_ids)
        return {
            product_id: {name: float(fact[name]) for name in ("price", "stock")}
            | {field.name: float(window[field.name]) for field in PRODUCT_BEHAVIOR.floats}
            for product_id, fact, window in zip(product_ids, facts, windows, strict=True)
        }

    def verdict() -> VerifyReport:
        console.print("asking the oracle")
        with stages(console) as report:
            return verify(engine.settings, progress=report, repository=engine.repository)

    return Hooks(engine.snapshot, verdict, features)


def _follow(engine: "LocalEngine", console: "Console", titles: Mapping[str, str]) -> None:
    """Print each new order, for ever."""
    from streams.client import Connection, RankingsReader
    from streams.show import news_line

    _print_lines(console, "the engine goes on until Ctrl-C. In another terminal, in this folder, try", MEANWHILE)
    console.print("new orders as they come:")
    with RankingsReader(Connection.from_settings(engine.settings)) as rankings:
        rankings.latest()
        for news in rankings.follow():
            console.print(news_line(news, titles))


def _print_lines(console: "Console", head: str, lines: Sequence[str]) -> None:
    """Commands as they can be typed here: the environment need not be activated."""
    program = "freshrank" if shutil.which("freshrank") else Path(sys.argv[0])
    console.print(head, *(f"  {program} {line}" for line in lines), sep="\n", markup=False, soft_wrap=True)
