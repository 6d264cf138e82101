"""`freshrank bench`: ours beside the floor and beside what people would otherwise build."""

import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.rows import Finding
    from benchmarks.surroundings import Say

ALL = "all"
NAMES = ("latency", "ingest", "store", "scoring", "scale")
ROOT = Path(__file__).resolve().parents[2]


@click.command()
@click.option("--suite", type=click.Choice([*NAMES, ALL]), default=ALL, show_default=True, help="What is measured.")
@click.option("--kafka", is_flag=True, help="On the Apache Kafka that KAFKA_HOME names, not on the embedded broker.")
@click.option("--quick", is_flag=True, help="Little data, once: whether everything runs, not how fast it is.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE",
              help="Write the rows to a file as a JSON object; - is stdout, and tables go to stderr then.")  # fmt: skip
@click.option("--write-docs", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the page docs/performance.md; needs all suites, measured now or by --rest.")  # fmt: skip
@click.option("--rest", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="For the page: the --json of an earlier run here, for suites not measured now.")  # fmt: skip
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for logs and data, kept afterwards.  [default: one that is removed]")  # fmt: skip
def command(
    suite: str,
    kafka: bool,
    quick: bool,
    json_file: str | None,
    write_docs: Path | None,
    rest: Path | None,
    folder: Path | None,
) -> None:
    """Measure the engine beside its floor and its peers, in turns, on this machine, and print tables.

    \b
    latency   price event produced -> ranking received; floor: bare hops and a bare Triton call;
              peer: the textbook build, a Faust agent with Feast's own API
    ingest    records a second through one worker; floor: bare aiokafka; peers: a stock Faust
              agent, Quix Streams
    store     rows written and read; floor: pipelined Redis; peer: Feast's Redis store
    scoring   rows through Triton; floor: the same net in process
    scale     cost and memory as sets and products grow; more workers; starts and kills

    A ratio is ours divided by the other's, of the same run. All suites take about an hour; everything that is
    started is stopped at the end. Parts of the benchmarks come with a checkout of the project, not with the package.
    """
    from streams.cli import Problem
    from streams.show import terminal

    if kafka and not os.environ.get("KAFKA_HOME"):
        raise Problem("--kafka: KAFKA_HOME is not set; it must name an Apache Kafka 4.0 or newer")
    if write_docs is not None and suite != ALL and rest is None:
        raise Problem(f"--write-docs: the page has every suite; expected --suite {ALL} or --rest, got {suite}")
    _import_benchmarks()
    from benchmarks import scale
    from benchmarks.page import page, where
    from benchmarks.rows import findings_of, table
    from benchmarks.suites import run
    from benchmarks.surroundings import Surroundings

    console = terminal(stderr=json_file == "-")
    found: dict[str, Finding] = {}
    around = Surroundings(Path(), Path(os.environ["KAFKA_HOME"]) if kafka else None, quick, console.print)
    earlier = {} if rest is None else _earlier(rest)
    if earlier and earlier["where"] != where(around):
        raise Problem(f"--rest: expected a run on {where(around)!r}, got one on {earlier['where']!r}")
    with _run_folder(folder) as place, _progress(console) as say:
        around = replace(around, folder=place, say=say)
        for finding in run(NAMES if suite == ALL else [suite], around):
            found[finding.suite] = finding
            console.print(table(finding))
        profile = scale.profile(around) if write_docs is not None else []
    console.print(where(around))
    if json_file is not None:
        with click.open_file(json_file, "w") as out:
            out.write(json.dumps(_to_json(found, where(around)), ensure_ascii=False) + "\n")
    if write_docs is not None:
        known = findings_of(earlier) if earlier else {}
        write_docs.write_text(page(known | found, profile, around, [name for name in known if name not in found]))


def _import_benchmarks() -> None:
    """The benchmarks lie beside the packages in a checkout and are not installed with them."""
    from streams.cli import Problem

    if not (ROOT / "benchmarks").is_dir():
        raise Problem(f"no benchmarks in {ROOT}: they come with a checkout of the project, not with the package")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    importlib.import_module("benchmarks")


def _earlier(file: Path) -> dict[str, Any]:
    from streams.cli import Problem

    try:
        told: dict[str, Any] = json.loads(file.read_bytes())
        missing = {"rows", "about", "where"} - told.keys()
    except (ValueError, AttributeError) as error:
        raise Problem(f"--rest: expected the --json of freshrank bench, got {error}") from error
    if missing:
        raise Problem(
            f"--rest: expected the --json of freshrank bench, got an object without {', '.join(sorted(missing))}"
        )
    return told


def _to_json(found: "dict[str, Finding]", where: str) -> dict[str, object]:
    return {
        "where": where,
        "about": {suite: finding.about for suite, finding in found.items()},
        "rows": [
            {**row.to_json(), "name": f"{suite}: {row.name}"}
            for suite, finding in found.items()
            for row in finding.rows
        ],
    }


@contextmanager
def _run_folder(folder: Path | None) -> Iterator[Path]:
    """The chosen folder, else one that is removed unless something went wrong."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    place = Path(tempfile.mkdtemp(prefix="freshrank-bench-"))
    yield place
    shutil.rmtree(place)


def _each_once(console: "Console") -> "Say":
    """A line each, but not the same one again and again."""
    told = ""

    def say(line: str) -> None:
        nonlocal told
        if line != told:
            console.print(line, markup=False, highlight=False)
        told = line

    return say


@contextmanager
def _progress(console: "Console") -> "Iterator[Say]":
    """What is being done: on a terminal in one line that changes, elsewhere a line each."""
    if not console.is_terminal:
        yield _each_once(console)
        return
    with console.status("benchmarks") as status:
        yield status.update
