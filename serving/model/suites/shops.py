"""The weights themselves, on what they were trained for: the last week of Online Retail, and other drawn shirts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from feature_repo.views import NUMERIC_FIELDS
from serving.datasets import online_retail as retail
from serving.datasets import shirts as garments
from serving.model.dataset import RankedList, Shop, drawn_shirts, online_retail
from serving.model.evaluate import MASKS, Nets, logits, request
from serving.model.metrics import Doubles, interval
from serving.model.suites import floors
from serving.model.suites.asking import Asking
from serving.model.suites.judging import Judged
from serving.model.suites.learning import served
from serving.model.suites.rows import Finding, Row, quality
from serving.model.training.config import TrainConfig
from serving.requests import Floats

POPULARITY: Final = "sales_7d"
SALES: Final = NUMERIC_FIELDS.index(POPULARITY)
AS_TRAINED: Final = TrainConfig()


@dataclass(frozen=True)
class Sides:
    """A shop's lists to learn from and to test on; `shop` is that of the tested ones."""

    name: str
    shop: Shop
    learn: Sequence[RankedList]
    test: Sequence[RankedList]


def measure(asking: Asking) -> Finding:
    """All metrics of the committed or trained weights, and of the floors, on lists that were not learned from."""
    nets = served(asking.weights)
    sides = (retail_sides(asking), shirt_sides(asking))
    rows = [row for side in sides for row in rows_of(nets, side)]
    counts = ", ".join(f"{len(side.test):,} of {side.name}" for side in sides)
    return Finding(
        "shops",
        "The weights, on the shops they were trained for",
        tuple(rows),
        (
            f"NDCG@10 unless it says otherwise, on lists that were not learned from: {counts}; spread: 95 %.",
            f"Floor: popularity ({POPULARITY} at that moment); peer: LightGBM on the same live numbers. Nobody clicks "
            "in these shops, so there is no click rate to order by; RankLens has one.",
            "Without a part: that part masked, as for a product of which it is not known.",
        ),
    )


def retail_sides(asking: Asking) -> Sides:
    """The weeks before the last one, and the last one."""
    history = retail.load()
    per_day = asking.fewer(AS_TRAINED.lists_per_day)
    shop = online_retail(history, AS_TRAINED.seed, per_day, partial(asking.tell, "lists of Online Retail"))
    learn, test = shop.between(history.start_ms, history.split_ms), shop.between(history.split_ms, history.end_ms)
    return Sides("Online Retail", shop, learn, test)


def shirt_sides(asking: Asking) -> Sides:
    """The shirts that the committed weights have seen, and others; at the moment at which the last week begins."""
    seed, count, until_ms = AS_TRAINED.seed, asking.fewer(AS_TRAINED.shirt_lists), retail.load().split_ms
    stock = [garments.products(seed + side, asking.fewer(AS_TRAINED.shirts)) for side in (0, 1)]
    seen, others = (drawn_shirts(shirts, seed + side, count, until_ms) for side, shirts in enumerate(stock))
    return Sides("shirts", others, seen.lists, others.lists)


def rows_of(nets: Nets, side: Sides) -> list[Row]:
    """Floors, the model with its other metrics, and the model without each of its parts."""
    judged = Judged(side.test)
    asked = request(nets, side.shop, side.test)
    scores = logits(nets.ranker, asked)
    popularity = judged.ndcg_of(asked.numeric[:, SALES])
    trees = judged.ndcg_of(_trees(side))
    found = judged.ndcg_of(scores)
    floor, peer = float(popularity.mean()), float(trees.mean())
    masked = {part: judged.ndcg(logits(nets.ranker, mask(asked))) for part, mask in MASKS.items()}
    return [
        quality(f"{side.name}: random order", judged.ndcg(floors.random_scores(len(scores), 0))),
        quality(f"{side.name}: order shown (text search)", judged.ndcg(asked.retrieval)),
        quality(f"{side.name}: popularity", interval(popularity)),
        quality(f"{side.name}: LightGBM", interval(trees)),
        quality(f"{side.name}: model", interval(found), floor=floor, peer=peer),
        quality(f"{side.name}: model less popularity", interval(found - popularity)),
        quality(f"{side.name}: model less LightGBM", interval(found - trees)),
        *judged.others(f"{side.name}: model", scores[None]),
        *(quality(f"{side.name}: model without {part}", one, floor=floor) for part, one in masked.items()),
    ]


def _trees(side: Sides) -> Doubles:
    """[N] LightGBM's scores of the tested lists."""
    gains = np.concatenate([one.relevance for one in side.learn]).astype(np.float64)
    sizes = np.array([len(one.items) for one in side.learn])
    return floors.boosted(
        floors.Table(_plain(side.shop, side.learn), gains, sizes), _plain(side.shop, side.test), seed=0
    )


def _plain(shop: Shop, some: Sequence[RankedList]) -> Floats:
    """[N, F + 1] live numbers and retrieval score."""
    return np.column_stack((shop.numbers(some), np.concatenate([one.retrieval for one in some])))
