"""What late features cost: the same lists ordered by what was known some time, or some events, before the moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from serving.datasets import online_retail as retail
from serving.datasets import ranklens
from serving.model.dataset import Shop, online_retail
from serving.model.evaluate import Nets, logits, request
from serving.model.metrics import Doubles, Interval, interval
from serving.model.suites import ranklens as films
from serving.model.suites.asking import Asking
from serving.model.suites.judging import Judged
from serving.model.suites.learning import served
from serving.model.suites.replaying import Late, lists
from serving.model.suites.rows import Figure, Finding, Line, Row, quality
from serving.model.suites.shops import AS_TRAINED, SALES

SUITE: Final = "freshness"
#: how late, by time
MOMENTS: Final[Mapping[str, int]] = {"0": 0, "10 s": 10_000, "1 min": 60_000, "10 min": 600_000, "1 h": 3_600_000}
#: and by events
EVENTS: Final = (0, 100, 1_000, 5_000, 10_000)
#: whose features are late
WHOSE: Final[Mapping[str, Callable[[int], Late]]] = {
    "all features late": lambda number: Late(number, number),
    "those of users late": lambda number: Late(users=number),
    "those of products late": lambda number: Late(products=number),
}


def measure(asking: Asking) -> Finding:
    """The committed or trained weights on Online Retail, nets of the RankLens suite on RankLens."""
    by_time, retail_rows = of_retail(asking)
    by_events, ranklens_rows = of_ranklens(asking)
    return Finding(
        SUITE,
        "Freshness: what late features cost",
        (*retail_rows, *ranklens_rows),
        (
            "NDCG@10 of the same lists and the same weights, with live features as they were some time or some events "
            "before the moment; spread: 95 %. Nothing else is late: not the candidates, not what they consist of.",
            "Online Retail: the last week, which was not learned from; its events are minutes apart. Floor: popularity "
            "(sales_7d), as late.",
            f"RankLens: as in its suite, with positions, mean of {asking.seeds} trainings; its events happen within "
            "some twenty minutes. Floor: click rate (ctr_24h), as late.",
        ),
        (by_time, by_events),
    )


def of_retail(asking: Asking) -> tuple[Figure, list[Row]]:
    """By time."""
    nets, history = served(asking.weights), retail.load()
    per_day = asking.fewer(AS_TRAINED.lists_per_day)
    found: dict[str, Interval] = {}
    rows = []
    for name, late_ms in MOMENTS.items():
        report = partial(asking.tell, f"Online Retail, {name} late")
        shop = online_retail(history, AS_TRAINED.seed, per_day, report, late_ms, since_ms=history.split_ms)
        scores, floor = _scored(nets, shop)
        judged = Judged(shop.lists)
        found[name] = judged.ndcg(scores)
        rows.append(quality(f"Online Retail, {name} late", found[name], floor=judged.ndcg(floor).mean))
    figure = Figure(
        name="freshness-online-retail",
        title="Online Retail: NDCG@10 when live features are late",
        across="late by",
        up="NDCG@10",
        places=tuple(found),
        lines=(Line("all features late", tuple(found.values())),),
        told="NDCG@10 on Online Retail as live features come late, by time",
    )
    return figure, rows


def of_ranklens(asking: Asking) -> tuple[Figure, list[Row]]:
    """By events: all late, or only what is known of users, or of products."""
    known, data = films.load(asking), ranklens.load(asking.folder(films.SUITE))
    ids = [product.product_id for product in data.products]
    nets = [films.trained(known, "with position", seed, asking) for seed in range(asking.seeds)]
    first = min(one.time_ms for one in known.test)
    found: dict[Late, tuple[Interval, float]] = {}  # late by nothing is one and the same for all
    curves: dict[str, list[Interval]] = {}
    rows = []
    for whose, late_of in WHOSE.items():
        curves[whose] = []
        for done, number in enumerate(EVENTS):
            asking.tell(f"RankLens, {whose}", done, len(EVENTS))
            late = late_of(number)
            if late not in found:
                replayed = lists(ids, data.behavior, late, first)
                found[late] = _ranked(nets, replace(known, tested={name: replayed[name] for name in known.tested}))
            value, floor = found[late]
            curves[whose].append(value)
            rows.append(quality(f"RankLens, {whose} by {number:,} events", value, floor=floor))
    figure = Figure(
        name="freshness-ranklens",
        title="RankLens: NDCG@10 when live features are late",
        across="late by events",
        up="NDCG@10",
        places=tuple(f"{number:,}" for number in EVENTS),
        lines=tuple(Line(whose, tuple(values)) for whose, values in curves.items()),
        told="NDCG@10 on RankLens as live features come late, by events: all, those of users, those of products",
    )
    return figure, rows


def _ranked(nets: Sequence[Nets], known: films.Films) -> tuple[Interval, float]:
    """NDCG@10 of the nets, and of the click rate."""
    judged = Judged(known.test)
    rates = np.concatenate([one.numeric[:, films.RATE] for one in known.test])
    scores = np.stack([films.scores_of(one, known) for one in nets])
    return interval(judged.ndcg_of(scores)), judged.ndcg(rates).mean


def _scored(nets: Nets, shop: Shop) -> tuple[Doubles, Doubles]:
    """[N] logits, and popularity, of the lists of a shop."""
    asked = request(nets, shop, shop.lists)
    return logits(nets.ranker, asked).astype(np.float64), asked.numeric[:, SALES].astype(np.float64)
