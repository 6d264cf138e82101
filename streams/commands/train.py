"""`freshrank train`: fit the encoders and the ranker."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from serving.model.dataset import Shop
    from serving.model.training.checkpoint import Checkpoint
    from serving.model.training.config import TrainConfig
    from serving.model.training.fitting import Epoch, Progress
    from serving.model.training.report import TrainReport
    from streams.show import Stages

STOPPED = 130
#: shops by their names in a table
SHOPS = {"online_retail": "Online Retail", "log": "the log"}


@click.command()
@click.option("--config", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="A TOML file: what to learn from, how long, which model.")  # fmt: skip
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="An Online Retail file (CSV, plain or gzip).  [default: the slice in examples/]")  # fmt: skip
@click.option("--from-kafka", is_flag=True, help="Learn from the engine's own topics: catalog, behavior, result-sets.")
@click.option("--weights", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Folder for the weights, one file for each model.  [default: .freshrank/weights]")  # fmt: skip
@click.option("--epochs", type=int, help="Times through all lists.  [default: as the committed weights]")
@click.option("--seed", type=int, help="The same seed gives the same weights on the same machine.")
@click.option("--only", help="`ranker`: train the ranker alone, on towers that stay as they are.")
@click.option("--towers", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="With --only: a model repository or a folder of weights.  [default: committed]")  # fmt: skip
@click.option("--device", help="`cpu`, `cuda`, or `auto`: a GPU where there is one.  [default: auto]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="Any field of the configuration, as in `--set model.fusion=gated`.")  # fmt: skip
@click.option("--print-config", is_flag=True, help="Print the configuration as TOML, for --config, and do nothing.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint that an interrupted training left.")
@click.option("--tensorboard", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write losses, NDCG@10, fusion weights and learning rate for TensorBoard.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
def command(
    file: Path | None,
    settings: tuple[str, ...],
    from_kafka: bool,
    print_config: bool,
    resume: bool,
    tensorboard: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Fit all nets on the weeks before the last one, and measure them on the last one, which they have not seen.

    Lists are made from the log as they would have been shown: candidates by text retrieval, features as of that moment,
    bought within the next 24 hours or not. Pictures, films, sounds and Chinese titles are learned from drawn products.
    The report says how well lists are ordered (NDCG@10) against popularity and retrieval, and what each part of the
    model brings.

    With --from-kafka, lists are the result sets of the engine's own log, as they were registered and shown, and
    relevant is what was clicked, put into a cart or bought by events that name the set.

    After each epoch NDCG@10 is measured on lists held out, the best weights are kept, and a checkpoint is written:
    after Ctrl-C, or a kill, --resume gives the weights that would have come of it without.

    `freshrank export` puts the weights into a model repository.
    """
    from serving.model.training.config import to_toml

    if from_kafka:
        flags["source"] = "kafka"
    told = _told({name: value for name, value in flags.items() if value is not None}, settings)
    config, checkpoint = _config(file, told, None), None
    if resume:
        from serving.model.training.checkpoint import Checkpoint

        checkpoint = Checkpoint.load(config.weights)
        config = _config(file, told, checkpoint)
    if print_config:
        click.echo(to_toml(config))
        return
    report = _train(config, checkpoint, tensorboard)
    if as_json:
        click.echo(report.to_json())
        return
    _print(report, config.weights)


def _told(flags: Mapping[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """What the options say, as a configuration file would."""
    import tomllib

    from streams.cli import Problem

    told: dict[str, Any] = {"train": {}}
    for setting in settings:
        name, equals, text = setting.partition("=")
        *path, field = name.strip().split(".")
        if not equals or not path:
            raise Problem(f"--set {setting}: expected section.field=value, as in model.fusion=gated")
        table = told
        for part in path:
            table = table.setdefault(part, {})
        try:
            table[field] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[field] = text
    told["train"] |= {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    return told


def _config(file: Path | None, told: Mapping[str, Any], checkpoint: "Checkpoint | None") -> "TrainConfig":
    """Defaults, or what a checkpoint was made with; over that the file, over that the options."""
    from dataclasses import replace

    from serving.model.training.config import BadConfig, TrainConfig, difference, parse, read

    base = TrainConfig() if checkpoint is None else parse(checkpoint.facts["config"])
    config = parse(told, base if file is None else read(file, base))
    if checkpoint is not None and (differs := difference(replace(base, weights=config.weights), config)):
        raise BadConfig(f"the checkpoint was made with {differs}: leave that out, or train anew, without --resume")
    return config


def _train(config: "TrainConfig", checkpoint: "Checkpoint | None", board_folder: Path | None) -> "TrainReport":
    from serving.model.training.board import Board
    from serving.model.training.course import train
    from streams.show import stages, terminal

    console = terminal(stderr=True)
    try:
        with ExitStack() as stack:
            bars = stack.enter_context(stages(console))
            board = None
            if board_folder is not None:
                after = None if checkpoint is None else checkpoint.facts["steps"]
                board = stack.enter_context(Board(board_folder, after))
            log, notes = _log(config, checkpoint, bars)

            def progress(at: "Progress") -> None:
                _show(at, config.epochs, console, bars)
                if board is not None:
                    board(at)

            return train(config, progress, log, checkpoint, notes)
    except KeyboardInterrupt:
        click.echo(_how_to_go_on(config), err=True)
        sys.exit(STOPPED)


def _log(
    config: "TrainConfig", checkpoint: "Checkpoint | None", tell: "Stages"
) -> tuple["Shop | None", dict[str, object]]:
    """The lists of the engine's topics, if they are the source, and where reading them ended."""
    if config.source != "kafka":
        return None, {}
    from streams.commands.connecting import settings
    from streams.commands.shop_log import read_lists

    shop, ends = read_lists(settings(), config.log, None if checkpoint is None else checkpoint.facts["log_ends"], tell)
    return shop, {"log_ends": ends}


def _show(at: "Progress", epochs: int, console: "Console", tell: "Stages") -> None:
    """A bar with the losses of the last step; a line for each epoch that has ended."""
    if at.ended is not None:
        console.print(_line(at.ended, epochs), markup=False)
    elif at.step is not None:
        tell("fitting", at.done, at.total, _figures(at.step.losses))
    else:
        tell({"lists": "making lists"}.get(at.stage, at.stage), at.done, at.total)


def _line(epoch: "Epoch", epochs: int) -> str:
    checked = "" if epoch.ndcg is None else f", NDCG@10 {epoch.ndcg:.4f}"
    return f"epoch {epoch.epoch} of {epochs}: {_figures(epoch.losses)}{checked}"


def _figures(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in losses.items())


def _how_to_go_on(config: "TrainConfig") -> str:
    from serving.model.training.checkpoint import Checkpoint, NoCheckpoint

    try:
        done = len(Checkpoint.load(config.weights).facts["course"]["epochs"])
    except NoCheckpoint:
        return "stopped before the first epoch ended: there is nothing to go on with"
    return (
        f"stopped after epoch {done} of {config.epochs}; to go on: freshrank train --weights {config.weights} --resume"
    )


def _print(report: "TrainReport", weights: Path) -> None:
    from streams.show import quality_table, terminal

    console = terminal()
    names = [SHOPS.get(one.shop, one.shop) for one in report.shops]
    console.print(quality_table(names, report.rows()))
    kept = "" if report.best_epoch == report.epochs else f", those of epoch {report.best_epoch}"
    console.print(f"{report.trained_lists:,} lists learned from in {report.seconds:.0f} s; weights in {weights}{kept}")
    console.print(f"next: freshrank export {weights}", markup=False)
