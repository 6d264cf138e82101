"""Clicks of people on films (RankLens): the engine's own live features, strictly causal, beside plain ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from feature_repo.events import Behavior, Product
from feature_repo.views import NUMERIC_FIELDS
from serving.datasets import ranklens
from serving.model.config import ModelConfig
from serving.model.dataset import RankedList, Shop, click_rates_of
from serving.model.evaluate import Nets, logits, request
from serving.model.metrics import Doubles, interval
from serving.model.suites import floors
from serving.model.suites.asking import Asking
from serving.model.suites.judging import Judged
from serving.model.suites.learning import learned
from serving.model.suites.plain import Plain
from serving.model.suites.replaying import check, lists, without_positions
from serving.model.suites.rows import Bars, Finding, Row, Target, quality
from serving.model.training.config import TrainConfig
from serving.model.training.finishing import calibrate
from serving.model.training.material import Lesson
from serving.requests import ProductContent

SUITE: Final = "ranklens"
#: share of the clicked lists, by time, that are learned from; the rest is tested on
LEARNED: Final = 0.8
#: share of those, the last ones, that only calibrate
HELD_OUT: Final = 0.05
#: chosen on the lists to learn from alone, of which the first two thirds taught and the next sixth judged, then the
#: first five sixths taught and the last one judged. What learns films by heart is left out (vectors of their own,
#: towers moved by clicks), and what prepares for parts or users that are missing
EPOCHS: Final = 5
MODEL: Final = ModelConfig(own_content=False, joint_taste=True, part_dropout=0)
TRAINING: Final = TrainConfig(only="ranker", batch=64, learning_rate=8e-3, strangers=0)
CLICKED: Final = NUMERIC_FIELDS.index("clicks_24h")
RATE: Final = NUMERIC_FIELDS.index("ctr_24h")
#: share of the log, from its start, that is replayed again to see that no feature knows what comes
CHECKED: Final = 0.1
#: where in it the log is cut
CUTS: Final = (0.3, 0.6, 0.8)

WITH_POSITION: Final = Target(0.625)
WITHOUT_POSITION: Final = Target(0.62)
OVER_RATE: Final = Target(0.02, of="low", strict=True)
OVER_TREES: Final = Target(0, of="low", strict=True)
#: above this something is known that had not happened
SUSPICIOUS: Final = 0.64


@dataclass(frozen=True)
class Films:
    """The catalogue, and the clicked lists of both sides by result_set_id in order of time, with their positions.
    `click_rates` by position are those of what happened before the first tested list."""

    products: tuple[Product, ...]
    click_rates: tuple[float, ...]
    learned: Mapping[str, RankedList]
    tested: Mapping[str, RankedList]

    @property
    def learn(self) -> tuple[RankedList, ...]:
        return tuple(self.learned.values())

    @property
    def test(self) -> tuple[RankedList, ...]:
        return tuple(self.tested.values())

    def shop(self, some: tuple[RankedList, ...]) -> Shop:
        """Some of the lists as the nets read them."""
        return Shop(tuple(map(_content, self.products)), some, self.click_rates)


def measure(asking: Asking) -> Finding:
    """Train on the first four fifths of the clicked lists, with and without the position; measure on the last."""
    films = load(asking)
    blind = replace(films, learned=_without_positions(films.learned), tested=_without_positions(films.tested))
    judged = Judged(films.test)
    numeric = np.concatenate([one.numeric for one in films.test])
    features = len(Plain(films.products).names)
    floor = {
        "random order": floors.random_scores(len(numeric), 0),
        "order shown": np.concatenate([one.retrieval for one in films.test]),
        "popularity (clicks so far)": numeric[:, CLICKED],
        "streaming click rate": numeric[:, RATE],
    }
    rows = [quality(name, judged.ndcg(scores)) for name, scores in floor.items()]
    by_rate = judged.ndcg_of(floor["streaming click rate"])
    calibration: list[Row] = []
    for side, told, target in ((films, "with position", WITH_POSITION), (blind, "without position", WITHOUT_POSITION)):
        asking.tell(f"LightGBM {told}", 0, 1)
        trees = judged.ndcg_of(_trees(side))
        peer = float(trees.mean())
        rows.append(quality(f"LightGBM on {features} plain features, {told}", interval(trees)))
        scores = np.stack([_scores(side, told, seed, asking) for seed in range(asking.seeds)])
        found = judged.ndcg_of(scores)
        rows += [
            quality(f"model {told}", interval(found), floor=float(by_rate.mean()), peer=peer, target=target),
            quality(f"model {told} less click rate", interval(found - by_rate), target=OVER_RATE),
            quality(f"model {told} less LightGBM", interval(found - trees), target=OVER_TREES),
        ]
        calibration += judged.others(f"model {told}", scores)
    return Finding(
        SUITE,
        "RankLens: clicks on films, in order of time",
        (*rows, *calibration),
        (
            f"NDCG@10 of the last {len(films.test):,} clicked lists by time, after the {len(films.learn):,} that are "
            f"learned from; mean of {asking.seeds} trainings, spread: 95 %. A click is known 5 s after the list it was "
            "made in.",
            "Floor: the engine's ctr_24h, (clicks + 1) / (impressions + 20); peer: LightGBM's LambdaRank. Gains are "
            "paired.",
            "Features come from the engine's own functions (product_behavior, user_behavior). Lists at "
            f"{len(CUTS)} moments were built again from a log that ends there: no feature differs. Above "
            f"{SUSPICIOUS} look for a leak all the same.",
        ),
        (
            Bars(
                SUITE,
                "RankLens: NDCG@10 of the last clicked lists by time",
                "NDCG@10",
                tuple(row for row in rows if " less " not in row.name),
                "NDCG@10 on RankLens of floors, LightGBM and the model, with and without position",
            ),
        ),
    )


def load(asking: Asking) -> Films:
    """The log as lists. Raises LeakError if a feature depends on what happened later."""
    data = ranklens.load(asking.folder(SUITE))
    ids = [product.product_id for product in data.products]
    _check(ids, data.behavior)
    found = lists(ids, data.behavior, tell=partial(asking.tell, "lists"))
    clicked = [(name, one) for name, one in found.items() if one.bought.any()]
    clicked = clicked[: asking.fewer(len(clicked))]
    cut = int(LEARNED * len(clicked))
    before = [event for event in data.behavior if event.event_time < clicked[cut][1].time_ms]
    return Films(data.products, click_rates_of(before), dict(clicked[:cut]), dict(clicked[cut:]))


def _check(ids: Sequence[str], behavior: Sequence[Behavior]) -> None:
    """Raise LeakError if a list of some moments depends on what happened later."""
    some = behavior[: int(CHECKED * len(behavior))]
    shown = [event.event_time for event in some if event.type == "impression"]
    check(lists, ids, some, [shown[int(cut * len(shown))] for cut in CUTS])


def trained(films: Films, told: str, seed: int, asking: Asking) -> Nets:
    """Nets that have seen the lists to learn from; the last of them only to calibrate."""
    stage = f"model {told}, training {seed + 1} of {asking.seeds}"
    cut = int((1 - HELD_OUT) * len(films.learn))
    epochs = 1 if asking.quick else EPOCHS
    shop, held_out = films.shop(films.learn[:cut]), films.shop(films.learn[cut:])
    nets = learned(MODEL, [shop], seed, epochs, partial(asking.tell, stage), training=TRAINING)
    calibrate(nets, Lesson(held_out, held_out.lists))
    return nets


def scores_of(nets: Nets, films: Films) -> Doubles:
    """[N] logits of the tested lists."""
    shop = films.shop(films.test)
    return logits(nets.ranker, request(nets, shop, shop.lists)).astype(np.float64)


def _scores(films: Films, told: str, seed: int, asking: Asking) -> Doubles:
    return scores_of(trained(films, told, seed, asking), films)


def _without_positions(some: Mapping[str, RankedList]) -> dict[str, RankedList]:
    return {name: without_positions(one) for name, one in some.items()}


def _trees(films: Films) -> Doubles:
    """[N] LightGBM's scores of the tested lists."""
    plain = Plain(films.products)
    learn, test = (np.concatenate([plain.table(one) for one in side]) for side in (films.learn, films.test))
    gains = np.concatenate([one.relevance for one in films.learn]).astype(np.float64)
    sizes = np.array([len(one.items) for one in films.learn])
    return floors.boosted(floors.Table(learn, gains, sizes), test, seed=0)


def _content(product: Product) -> ProductContent:
    return ProductContent(
        product.product_id,
        title=_text(product.title),
        description=_text(product.description),
        brand=_text(product.brand),
        category=tuple(product.category) if isinstance(product.category, list) else (),
        attributes=product.attributes if isinstance(product.attributes, dict) else {},
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
