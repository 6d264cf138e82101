"""Order and degraded scores."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.ranking import degraded_scores, order, rounded


def longs(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


@given(st.lists(st.tuples(st.integers(-1, 2), st.floats(-5, 5, width=32)), max_size=50))
def test_order_is_sorted_by_stock_score_and_position(rows: list[tuple[int, float]]) -> None:
    stock = np.array([row[0] for row in rows], np.int64)
    scores = rounded(np.array([row[1] for row in rows], np.float32))
    want = sorted(range(len(rows)), key=lambda n: (stock[n] == 0, -scores[n], n))
    assert order(scores, stock).tolist() == want


def test_what_is_out_of_stock_comes_last_in_order_of_score() -> None:
    scores = np.array([9.0, 8.0, 1.0, 2.0])
    assert order(scores, longs(0, 0, 5, -1)).tolist() == [3, 2, 0, 1]


def test_scores_are_equal_when_their_five_digits_are() -> None:
    scores = rounded(np.array([0.123451, 0.123454, 0.12346], np.float64))
    assert order(scores, longs(1, 1, 1)).tolist() == [2, 0, 1]


def test_degraded_scores_follow_the_price() -> None:
    last = np.array([1.0, 1.0, 1.0])
    scores = degraded_scores(last, longs(100, 200, 50), longs(100, 100, 100), price_weight=0.5)
    np.testing.assert_array_equal(scores, rounded(1 - 0.5 * np.log([1, 2, 0.5])))


def test_an_unknown_price_corrects_nothing() -> None:
    last = np.array([1.0, 2.0, 3.0, 4.0])
    now, then = longs(-1, 100, 0, 100), longs(100, -1, 100, 0)
    np.testing.assert_array_equal(degraded_scores(last, now, then, price_weight=2.0), last)
