"""A configuration -> weights in a folder, and a report."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from serving.model import bundle
from serving.model.config import config_from_header
from serving.model.dataset import Shop
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.model.evaluate import Nets, quality
from serving.model.ranker import Ranker
from serving.model.training.checkpoint import Checkpoint, discard
from serving.model.training.config import BadConfig, TrainConfig, as_values
from serving.model.training.finishing import calibrate, facts, price_weight, silence, write
from serving.model.training.fitting import Progress, fit, new_nets
from serving.model.training.material import Lesson, Material, examples, of_log
from serving.model.training.report import TrainReport

TOWERS = ("product_encoder", "query_encoder")


def train(
    config: TrainConfig,
    progress: Callable[[Progress], None],
    log: Shop | None = None,
    resume: Checkpoint | None = None,
    notes: Mapping[str, object] | None = None,
) -> TrainReport:
    """Fit the nets, write their weights, and measure them on what they have not seen.

    With the source `kafka` the lists are those of `log`. `resume` goes on from a checkpoint of the same configuration
    and the same lists. Until the weights are written, a checkpoint with `notes` in it stands beside them;
    KeyboardInterrupt leaves it there.
    """
    started = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    towers = _towers(config)
    nets = new_nets(config.model) if towers is None else _on_towers(config, towers)
    material = _material(config, log, progress)
    own = {**(notes or {}), "config": as_values(config), "lists": _digest(material)}
    if resume is None:
        discard(config.weights)
    elif resume.facts["lists"] != own["lists"]:
        raise BadConfig("these are other lists than those of the checkpoint: train anew, without --resume")

    def keep(checkpoint: Checkpoint) -> None:
        replace(checkpoint, facts={**checkpoint.facts, **own}).save(config.weights)

    course = fit(nets, material.lessons, config, progress, material.checked, keep, resume)
    report = _finished(nets, material, started)
    report = replace(report, epochs=course.last, best_epoch=course.best)
    write(
        nets,
        config.model,
        facts(report.price_weight, material.lessons[0].shop.click_rates, report.metrics()),
        config.weights,
        towers,
    )
    discard(config.weights)
    return report


def _material(config: TrainConfig, log: Shop | None, progress: Callable[[Progress], None]) -> Material:
    if log is not None:
        return of_log(log, config.log.tested)
    if config.source == "kafka":
        raise BadConfig("train.source is 'kafka', and there are no lists of a log")
    return examples(config, lambda done, total: progress(Progress("lists", done, total)))


def _finished(nets: Nets, material: Material, started: float) -> TrainReport:
    """What is left to do when nothing is learned any more."""
    numbered = material.lessons[: material.numbered]
    silent = silence(nets.ranker, numbered)
    calibrate(nets, material.checked[0])
    return TrainReport(
        shops=tuple(quality(name, nets, lesson.shop, lesson.lists) for name, lesson in material.tested.items()),
        trained_lists=sum(len(lesson.lists) for lesson in material.lessons),
        epochs=0,
        best_epoch=0,
        price_weight=price_weight(nets, numbered),
        silent_features=silent,
        seconds=round(time.monotonic() - started, 1),
    )


def _towers(config: TrainConfig) -> dict[str, Path] | None:
    """The files of the towers that stay as they are, if any do."""
    if config.only is None:
        if config.towers is not None:
            raise BadConfig("train.towers is set, expected train.only = ranker beside it")
        return None
    folder = config.towers or bundle.REPOSITORY
    plain = {name: folder / f"{name}.safetensors" for name in TOWERS}
    if all(file.is_file() for file in plain.values()):
        return plain
    found = {name: bundle.weights_file(folder, name) for name in TOWERS}
    for name, file in found.items():
        if not file.is_file():
            raise BadConfig(
                f"train.towers is '{folder}', expected a model repository or a folder with {name}.safetensors"
            )
    return found


def _on_towers(config: TrainConfig, towers: Mapping[str, Path]) -> Nets:
    """A new ranker on towers that are there."""
    encoders = {name: bundle.load(name, file) for name, file in towers.items()}
    for name, file in towers.items():
        theirs = config_from_header(bundle.read_header(file))
        for field in ("text", "image_size"):
            ours, own = getattr(config.model, field), getattr(theirs, field)
            if ours != own:
                raise BadConfig(f"model.{field} is {ours!r}, expected {own!r} as of the {name} in {file.parent}")
    product, query = encoders["product_encoder"], encoders["query_encoder"]
    assert isinstance(product, ProductEncoder)
    assert isinstance(query, QueryEncoder)
    return Nets(product, query, Ranker(config.model))


def _digest(material: Material) -> str:
    """Tells lists apart from others."""
    digest = hashlib.sha256()
    lessons: Sequence[Lesson] = (*material.lessons, *material.checked)
    for lesson in lessons:
        for one in lesson.lists:
            digest.update(f"{one.time_ms} {one.query}\n".encode())
            for array in (one.items, one.numeric, one.retrieval, one.relevance):
                digest.update(array.tobytes())
    return digest.hexdigest()
