"""How good an order is, and how sure that is. Pure NumPy over lists of unequal length.

Rows [N] of L lists; `of_list` [N] int tells the list of a row, 0 .. L - 1, in any order. Scores are finite; rows with
equal scores stay in the order they come in. A list of which a metric says nothing (nothing in it was wanted) is NaN,
and means leave it out.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

#: resamples of a bootstrap interval
RESAMPLES: Final = 2000
LEVEL: Final = 0.95
#: resamples drawn at a time: bounds the memory
DRAWN: Final = 200


def ndcg(scores: ArrayLike, gains: ArrayLike, of_list: ArrayLike, top: int | None = 10) -> Doubles:
    """[L] discounted gain of the first `top` rows of each list (all of them without `top`) as a share of the best
    possible. Linear in the gain, >= 0 (Järvelin & Kekäläinen 2002)."""
    gained, lists = np.asarray(gains, np.float64), _lists(of_list)
    found = _discounted(places(scores, lists), gained, lists, top)
    return _share(found, _discounted(places(gained, lists), gained, lists, top))


def mrr(scores: ArrayLike, gains: ArrayLike, of_list: ArrayLike) -> Doubles:
    """[L] 1 / (place, from 1, of the first row with a gain)."""
    wanted, lists = np.asarray(gains) > 0, _lists(of_list)
    first = np.full(_count(lists), np.inf)
    np.minimum.at(first, lists[wanted], places(scores, lists)[wanted])
    return np.where(np.isfinite(first), 1 / (1 + first), np.nan)


def auc(scores: ArrayLike, gains: ArrayLike, of_list: ArrayLike) -> Doubles:
    """[L] how often a row with a gain stands above one without, equal scores half. All rows as one list: zeros."""
    wanted, lists, values = np.asarray(gains) > 0, _lists(of_list), np.asarray(scores, np.float64)
    order = np.lexsort((values, lists))
    new_list = np.diff(lists[order], prepend=-1) != 0
    new_value = new_list | (np.diff(values[order], prepend=np.nan) != 0)
    ties = np.cumsum(new_value) - 1
    sizes = np.bincount(ties, minlength=1)
    middle = np.cumsum(sizes) - (sizes - 1) / 2  # of a run of equal scores, counted from 1 over all lists
    ranks = np.empty(len(order))
    ranks[order] = middle[ties] - _starts(lists)[lists[order]]
    positives = _sums(lists, wanted)
    negatives = _sums(lists, ~wanted)
    above = _sums(lists, ranks * wanted) - positives * (positives + 1) / 2
    return _share(above, positives * negatives)


def places(scores: ArrayLike, of_list: ArrayLike) -> Longs:
    """[N] place of each row in its list by falling score, from 0."""
    lists = _lists(of_list)
    order = np.lexsort((-np.asarray(scores, np.float64), lists))
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(len(order)) - _starts(lists)[lists[order]]
    return found


@dataclass(frozen=True, slots=True)
class Reliability:
    """What was predicted and what came, in B bins of (nearly) equal numbers of rows by rising prediction: `rows` [B],
    the mean `predicted` [B] probability and the `observed` [B] share."""

    rows: Longs
    predicted: Doubles
    observed: Doubles

    @property
    def error(self) -> float:
        """Expected calibration error: mean |predicted - observed|, each bin by its rows (Naeini et al. 2015)."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.rows))


def reliability(probability: ArrayLike, wanted: ArrayLike, bins: int = 10) -> Reliability:
    """Of N >= 1 rows: probability [N] in [0, 1], wanted [N] 0 or 1."""
    predicted, came = np.asarray(probability, np.float64), np.asarray(wanted, np.float64)
    order = np.argsort(predicted, kind="stable")
    edges = np.unique(np.linspace(0, len(order), min(bins, len(order)) + 1).astype(np.int64))
    rows = np.diff(edges)
    return Reliability(
        rows=rows,
        predicted=np.add.reduceat(predicted[order], edges[:-1]) / rows,
        observed=np.add.reduceat(came[order], edges[:-1]) / rows,
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and where it lies in LEVEL of the bootstrap's resamples."""

    mean: float
    low: float
    high: float


def interval(values: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Percentile bootstrap over lists of the mean of `values` [L], or [S, L] of S trainings: then the trainings are
    drawn, too. Paired when `values` are differences on the same lists."""
    table = np.atleast_2d(np.asarray(values, np.float64))
    table = table[:, ~np.isnan(table).any(0)]
    trainings, lists = table.shape
    random = np.random.default_rng(seed)
    means = []
    for first in range(0, resamples, DRAWN):
        some = min(DRAWN, resamples - first)
        drawn = table[random.integers(trainings, size=(some, trainings))].mean(1)
        means.append(np.take_along_axis(drawn, random.integers(lists, size=(some, lists)), 1).mean(1))
    low, high = np.quantile(np.concatenate(means), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(table.mean()), float(low), float(high))


def mean(values: ArrayLike) -> float:
    """Mean over the lists of which the metric says something."""
    return float(np.nanmean(np.asarray(values, np.float64)))


def _discounted(found: Longs, gains: Doubles, lists: Longs, top: int | None) -> Doubles:
    counted: Doubles = gains / np.log2(found + 2)
    return _sums(lists, counted if top is None else counted * (found < top))


def _sums(lists: Longs, values: ArrayLike) -> Doubles:
    """[L] sums of values [N]."""
    sums = np.zeros(_count(lists))
    np.add.at(sums, lists, np.asarray(values, np.float64))
    return sums


def _share(part: Doubles, whole: Doubles) -> Doubles:
    share = np.full(len(whole), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _lists(of_list: ArrayLike) -> Longs:
    return np.asarray(of_list, np.int64)


def _count(lists: Longs) -> int:
    return int(lists.max(initial=-1)) + 1


def _starts(lists: Longs) -> Longs:
    """[L] rows of the lists before each."""
    sizes = np.bincount(lists)
    starts: Longs = np.cumsum(sizes) - sizes
    return starts
