"""`freshrank train`: fit the encoders and the ranker."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from serving.model.train import Progress


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="An Online Retail file (CSV, plain or gzip).  [default: the slice in examples/]")  # fmt: skip
@click.option("--weights", type=click.Path(file_okay=False, path_type=Path), default=Path(".freshrank/weights"),
              show_default=True, help="Folder for the weights, a safetensors file for each model.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Times through all lists.  [default: as the committed weights]")
@click.option("--seed", type=int, help="The same seed gives the same weights on the same machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
def command(data: Path | None, weights: Path, epochs: int | None, seed: int | None, as_json: bool) -> None:
    """Fit all nets on the weeks before the last one, and measure them on the last one, which they have not seen.

    Lists are made from the log as they would have been shown: candidates by text retrieval, features as of that moment,
    bought within the next 24 hours or not. Pictures and Chinese titles are learned from drawn garments. The report says
    how well lists are ordered (NDCG@10) against popularity and retrieval, and what each part of the model brings.

    `freshrank export` puts the weights into a model repository.
    """

    from serving.model.train import TrainConfig, train
    from streams.show import quality_table, stages, terminal

    chosen = {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    with stages(terminal(stderr=True)) as tell:
        report = train(
            TrainConfig(weights=weights, data=data, **chosen), lambda at: tell(_named(at), at.done, at.total)
        )
    if as_json:
        click.echo(report.to_json())
        return
    console = terminal()
    console.print(quality_table(report.rows()))
    _print_facts(console, report.trained_lists, report.seconds, weights)


def _named(at: "Progress") -> str:
    return {"lists": "making lists", "fit": "fitting"}.get(at.stage, at.stage)


def _print_facts(console: "Console", lists: int, seconds: float, weights: Path) -> None:
    console.print(f"{lists:,} lists learned from in {seconds:.0f} s; weights in {weights}")
    console.print(f"next: freshrank export {weights}", markup=False)
