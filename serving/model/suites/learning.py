"""Nets for a suite: trained from nothing, by what trains the committed ones; or those that serve."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from serving.model.bundle import REPOSITORY, load, weights_file
from serving.model.config import ModelConfig
from serving.model.dataset import Shop
from serving.model.evaluate import Nets
from serving.model.training.config import TrainConfig
from serving.model.training.finishing import calibrate
from serving.model.training.fitting import fit, new_nets, see_catalogues
from serving.model.training.material import Lesson
from serving.requests import MODELS

AS_TRAINED: Final = TrainConfig()


def learned(
    model: ModelConfig,
    shops: Sequence[Shop],
    seed: int,
    epochs: int,
    tell: Callable[[int, int], None],
    held_out: Shop | None = None,
    training: TrainConfig = AS_TRAINED,
) -> Nets:
    """Nets of a form, after `epochs` through the lists of the shops; with `held_out` fewer, when they are best on its
    lists, and calibrated on them.

    The same seed gives the same nets. `tell` hears of steps. `training` says the rest; where it trains the ranker only,
    the towers are new ones that have seen the catalogues.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    nets = new_nets(model)
    config = replace(training, seed=seed, epochs=epochs, model=model)
    lessons = [Lesson(shop, shop.lists) for shop in shops]
    if config.only == "ranker":
        see_catalogues(nets.product_encoder, lessons)
    checked = [] if held_out is None else [Lesson(held_out, held_out.lists)]
    fit(nets, lessons, config, lambda at: tell(at.done, at.total), checked)
    for lesson in checked:
        calibrate(nets, lesson)
    return nets


def served(weights: Path | None) -> Nets:
    """The nets of a folder that `freshrank train` has written, or the committed ones."""
    torch.set_num_threads(1)
    nets: dict[str, Any] = {}
    for model in MODELS:
        file = weights_file(REPOSITORY, model) if weights is None else weights / f"{model}.safetensors"
        nets[model] = load(model, file)
    return Nets(**nets)
