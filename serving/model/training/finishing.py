"""Nets -> weights as they serve: inputs that were never seen to vary, calibration, the price weight, files."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from serving.model import bundle, calibration
from serving.model.config import ModelConfig
from serving.model.evaluate import PRICE, Nets, logits, request, set_index
from serving.model.live_numbers import inputs_of
from serving.model.ranker import Ranker
from serving.model.training.material import Lesson
from serving.requests import Floats

#: the step of a price by which its weight is measured, how many rows of a list take it, and of how many lists
PRICE_STEP: Final = 1.1
PRICE_ROWS: Final = 8
PRICE_LISTS: Final = 400


def silence(ranker: Ranker, lessons: Sequence[Lesson]) -> list[str]:
    """Take out the numbers that never varied in what was learned from. Returns their names."""
    lists = [one for lesson in lessons for one in lesson.lists]
    numeric, retrieval, of = (
        np.concatenate([lesson.shop.numbers(lesson.lists) for lesson in lessons]),
        np.concatenate([one.retrieval for one in lists]),
        set_index(lists).astype(np.int64),
    )
    parts = ranker.parts
    with torch.no_grad():
        inputs = parts.numbers(*map(torch.from_numpy, (numeric, retrieval, of)), len(lists))
    silent = parts.figures.silence(inputs).tolist()
    if parts.taste is not None:
        parts.taste.silence(inputs)
    return [name for (_, name), is_silent in zip(inputs_of(parts.numbers.relative), silent, strict=True) if is_silent]


def calibrate(nets: Nets, held_out: Lesson) -> None:
    """Make the sigmoid of a score the probability that the row is clicked or bought."""
    score = torch.from_numpy(logits(nets.ranker, request(nets, held_out.shop, held_out.lists)))
    bought = torch.from_numpy(np.concatenate([one.bought for one in held_out.lists]))
    calibration.fold(nets.ranker.heads, calibration.fit(score, bought))


def price_weight(nets: Nets, lessons: Sequence[Lesson]) -> float:
    """Mean fall of the logit per unit of ln(price) over rows with a price: what a degraded ranking corrects a
    change of price by. 0 where the model likes what is dear, and where nothing has a price."""
    falls = np.concatenate([_falls(nets, lesson) for lesson in lessons])
    return max(0.0, round(float(falls.mean()), 4)) if len(falls) else 0.0


def _falls(nets: Nets, lesson: Lesson) -> Floats:
    """[n] -d logit / d ln(price) of some rows of some lists, one at a time, while the others keep their price."""
    asked = request(nets, lesson.shop, lesson.lists[:: max(1, len(lesson.lists) // PRICE_LISTS)])
    before = logits(nets.ranker, asked)
    draws = np.random.default_rng(0)
    falls = []
    for _ in range(PRICE_ROWS):
        order = draws.permutation(np.flatnonzero(asked.numeric[:, PRICE] > 0))
        rows = order[np.unique(asked.set_index[order], return_index=True)[1]]
        numeric = asked.numeric.copy()
        numeric[rows, PRICE] *= PRICE_STEP
        after = logits(nets.ranker, replace(asked, numeric=numeric))
        falls.append((before[rows] - after[rows]) / np.log(PRICE_STEP))
    return np.concatenate(falls).astype(np.float32)


def write(
    nets: Nets, config: ModelConfig, facts: Mapping[str, str], folder: Path, towers: Mapping[str, Path] | None = None
) -> None:
    """One safetensors file per model; the ranker's carries `facts`, too. The files of towers that were not trained are
    copied as they are: the same bytes are no new version to an export."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = towers or {}
    for name, net in nets.by_name.items():
        file = folder / f"{name}.safetensors"
        if name not in kept:
            bundle.save(net, file, config, facts if name == "ranker" else {})
        elif not (file.exists() and file.samefile(kept[name])):
            shutil.copyfile(kept[name], file)


def facts(weight: float, click_rates: Sequence[float], metrics: Mapping[str, float]) -> dict[str, str]:
    """What the ranker's header says beside its configuration."""
    return {
        "price_weight": str(weight),
        "click_rates": json.dumps(list(click_rates)),
        "metrics": json.dumps(metrics),
    }
