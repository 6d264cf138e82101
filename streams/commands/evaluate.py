"""`freshrank evaluate`: how good the model is, beside its floors."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

#: without a suite: the weights themselves
SHOPS = "shops"
SUITES = ("ranklens", "luma", "clothing", "freshness", "scoring")
TRAININGS = 3
TRITON_READY_S = 120.0


@click.command()
@click.option(
    "--suite",
    type=click.Choice(SUITES),
    help="What to measure.  [default: the weights, on the shops they were trained for]",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="FRESHRANK_DATA",
    metavar="DIR",
    help="Folder of the data sets luma, clothing_cc0 and ranklens.  [default: FRESHRANK_DATA]",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Weights as `freshrank train` leaves them.  [default: the committed ones]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=TRAININGS,
    show_default=True,
    help="Trainings of which each figure is the mean.",
)
@click.option("--quick", is_flag=True, help="Measure little, to see that it runs; no figure means anything.")
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the rows as a JSON object, too.",
)
@click.option("--write", "page", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="PAGE",
              help="Put table and figure between the suite's markers in a page.")  # fmt: skip
def command(
    suite: str | None,
    data: Path | None,
    weights: Path | None,
    seeds: int,
    quick: bool,
    file: Path | None,
    page: Path | None,
) -> None:
    """Measure how well lists are ordered, always beside what costs nothing: random order, the order shown, popularity,
    click rates, LightGBM on plain features.

    \b
      (no suite)  the weights on Online Retail and on drawn shirts: NDCG, MRR, AUC, calibration, each part masked
      ranklens    clicks of people on films, in order of time; with and without the position
      luma        sets asked for by colour, garment and price: each fusion, each modality alone and taken away
      clothing    class of a photograph, by the image tower
      freshness   what late features cost
      scoring     rows and pictures per second

    Intervals come from a bootstrap over lists and trainings; gains are paired. A suite trains nets of its own for some
    minutes; the committed weights stay as they are.
    """
    import importlib

    from serving.model.suites.asking import Asking
    from streams.cli import Problem
    from streams.show import finding_table, stages, terminal

    if page is not None and quick:
        raise Problem("--write is for figures that mean something: leave --quick out")
    measure = importlib.import_module(f"serving.model.suites.{suite or SHOPS}").measure
    console = terminal(stderr=True)
    with stages(console) as bars, _triton(suite, tell := bars if console.is_terminal else _lines()) as address:
        finding = measure(Asking(data, seeds, quick, tell, weights, address))
    terminal().print(finding_table(finding))
    if file is not None:
        file.write_text(json.dumps(finding.to_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    if page is not None:
        from serving.model.suites.page import write

        for written in write(page, finding, _repeatable(suite, seeds)):
            click.echo(f"wrote {written}", err=True)


def _lines() -> Callable[[str, int, int], None]:
    """Progress where there is no terminal: a line as each stage begins."""
    begun: set[str] = set()

    def tell(stage: str, done: int, total: int) -> None:
        if stage not in begun:
            begun.add(stage)
            click.echo(stage, err=True)

    return tell


@contextmanager
def _triton(suite: str | None, tell: Callable[[str, int, int], None]) -> Iterator[str | None]:
    """The address of a server of the committed ranker, for the suite that measures one."""
    if suite != "scoring":
        yield None
        return
    from serving.model.bundle import REPOSITORY
    from streams.local.engine import copy_repository
    from streams.local.triton_server import TritonServer

    with TemporaryDirectory(prefix="freshrank-") as name:
        folder = Path(name)
        copy_repository(REPOSITORY, folder / "models")
        server = TritonServer(folder / "models", ("ranker",), folder)
        try:
            tell("starting Triton", 0, 1)
            server.start()
            server.ready(TRITON_READY_S)
            tell("starting Triton", 1, 1)
            yield server.address
        finally:
            server.stop()


def _repeatable(suite: str | None, seeds: int) -> str:
    """The command without the folders of this machine."""
    options = [*(["--suite", suite] if suite else []), *(["--seeds", str(seeds)] if seeds != TRAININGS else [])]
    return " ".join(("freshrank evaluate", *options))
