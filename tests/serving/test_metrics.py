"""Metrics against known values, against brute force, and the bootstrap against what it should cover."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.model import metrics

#: lists of (score, gain); few different scores, so that there are ties
LISTS = st.lists(
    st.lists(
        st.tuples(st.sampled_from((-1.5, 0.0, 0.25, 2.0)), st.sampled_from((0.0, 0.3, 1.0))), min_size=1, max_size=9
    ),
    min_size=1,
    max_size=6,
)
List = list[tuple[float, float]]


def columns(lists: Sequence[List], seed: int) -> tuple[list[float], list[float], list[int]]:
    """Scores, gains and list of all rows; rows of different lists mixed, those of one list in their order."""
    random = np.random.default_rng(seed)
    queues = [list(rows) for rows in lists]
    mixed = random.permutation([n for n, rows in enumerate(lists) for _ in rows])
    rows = [(*queues[n].pop(0), int(n)) for n in mixed]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def ndcg(rows: List, top: int | None) -> float:
    gains = [gain for _, gain in sorted(rows, key=lambda row: -row[0])]
    best = sum(gain / math.log2(n + 2) for n, gain in enumerate(sorted(gains, reverse=True)[:top]))
    return sum(gain / math.log2(n + 2) for n, gain in enumerate(gains[:top])) / best if best else math.nan


def mrr(rows: List) -> float:
    ordered = sorted(rows, key=lambda row: -row[0])
    return next((1 / (n + 1) for n, (_, gain) in enumerate(ordered) if gain), math.nan)


def auc(rows: List) -> float:
    pairs = [(one > other) + (one == other) / 2 for one, a in rows if a for other, b in rows if not b]
    return sum(pairs) / len(pairs) if pairs else math.nan


@given(LISTS, st.integers(0, 5), st.sampled_from((1, 3, 5, None)))
def test_ndcg_is_that_of_brute_force(lists: list[List], seed: int, top: int | None) -> None:
    found = metrics.ndcg(*columns(lists, seed), top)
    np.testing.assert_allclose(found, [ndcg(rows, top) for rows in lists])


@given(LISTS, st.integers(0, 5))
def test_mrr_and_auc_are_those_of_brute_force(lists: list[List], seed: int) -> None:
    np.testing.assert_allclose(metrics.mrr(*columns(lists, seed)), [mrr(rows) for rows in lists])
    np.testing.assert_allclose(metrics.auc(*columns(lists, seed)), [auc(rows) for rows in lists])


@given(LISTS)
def test_scores_that_order_alike_are_as_good(lists: list[List]) -> None:
    scores, gains, of_list = columns(lists, 0)
    moved = [3 * score + 7 * n for score, n in zip(scores, of_list, strict=True)]
    for metric in (metrics.ndcg, metrics.mrr, metrics.auc):
        np.testing.assert_allclose(metric(moved, gains, of_list), metric(scores, gains, of_list))


def test_known_values() -> None:
    scores, gains, of_list = [3, 2, 1, 1, 2, 3], [1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(metrics.ndcg(scores, gains, of_list), [1, 0.5])
    np.testing.assert_allclose(metrics.ndcg(scores, gains, of_list, 2), [1, 0])
    np.testing.assert_allclose(metrics.mrr(scores, gains, of_list), [1, 1 / 3])
    np.testing.assert_allclose(metrics.auc(scores, gains, of_list), [1, 0])
    assert metrics.auc(scores, gains, [0] * 6)[0] == pytest.approx((3.5 + 0.5) / 8)


def test_a_list_in_which_nothing_was_wanted_says_nothing() -> None:
    for metric in (metrics.ndcg, metrics.mrr, metrics.auc):
        found = metric([1, 2, 1, 2], [0, 0, 0, 1], [0, 0, 1, 1])
        assert np.isnan(found[0])
        assert metrics.mean(found) == 1
    assert np.isnan(metrics.auc([1, 2], [1, 1], [0, 0])[0])


def test_a_calibration_that_is_known() -> None:
    found = metrics.reliability([0.9, 0.1, 0.9, 0.1], [1, 0, 0, 0], bins=2)
    np.testing.assert_array_equal(found.rows, [2, 2])
    np.testing.assert_allclose(found.predicted, [0.1, 0.9])
    np.testing.assert_allclose(found.observed, [0, 0.5])
    assert found.error == pytest.approx((0.1 + 0.4) / 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_bins_hold_every_row_once(rows: list[tuple[float, bool]], bins: int) -> None:
    probability, wanted = [row[0] for row in rows], [row[1] for row in rows]
    found = metrics.reliability(probability, wanted, bins)
    assert found.rows.sum() == len(rows)
    assert found.rows.max() - found.rows.min() <= 1
    assert (found.rows * found.predicted).sum() == pytest.approx(sum(probability))
    assert (found.rows * found.observed).sum() == pytest.approx(sum(wanted))
    assert all(np.diff(found.predicted) >= -1e-12)


def test_probabilities_that_are_true_have_a_small_error() -> None:
    random = np.random.default_rng(1)
    probability = random.random(20_000)
    came = random.random(20_000) < probability
    assert metrics.reliability(probability, came).error < 0.02
    assert metrics.reliability(np.sqrt(probability), came).error > 0.1


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    samples = random.exponential(1, (300, 80))
    found = [metrics.interval(sample, seed=n, resamples=400) for n, sample in enumerate(samples)]
    assert 0.9 < np.mean([one.low <= 1 <= one.high for one in found]) < 0.98
    assert found[0].mean == pytest.approx(samples[0].mean())


def test_pairs_are_surer_than_their_sides() -> None:
    random = np.random.default_rng(3)
    hard = random.random(500)
    better = hard + 0.02 + random.normal(0, 0.02, 500)
    gain = metrics.interval(better - hard)
    assert gain.low > 0.015
    assert metrics.interval(better).low < metrics.interval(hard).high


def test_trainings_that_disagree_widen_the_interval() -> None:
    values = np.random.default_rng(4).random(400)
    agreed = metrics.interval(np.stack([values, values, values]))
    assert agreed == metrics.interval(np.stack([values] * 3))
    assert (agreed.high - agreed.low) == pytest.approx(1.96 * 2 * values.std() / 20, rel=0.15)
    apart = metrics.interval(np.stack([values - 0.1, values, values + 0.1]))
    assert apart.mean == pytest.approx(agreed.mean)
    assert apart.high - apart.low > 2 * (agreed.high - agreed.low)


def test_lists_that_say_nothing_are_left_out_of_an_interval() -> None:
    assert metrics.interval([1.0, math.nan, 1.0]) == metrics.Interval(1, 1, 1)
