"""Many lists at once are in the order that each of them has alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.ranking import order, rounded
from streams.ordering import UNIT, in_units, orders, previous_ranks

logits = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-30, 30, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-5, -1e-5, 5e-6, 3e38, 1e8, -1e8]),
)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lists, width = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    cells = lists * width
    scores = draw(st.lists(logits, min_size=cells, max_size=cells))
    flags = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=cells, max_size=cells))
    shape = (lists, width)
    kinds = np.array(flags).reshape(shape)
    return rounded(np.array(scores, np.float32).reshape(shape)), kinds & 1 > 0, kinds & 2 > 0


@given(matrices())
def test_every_list_is_ordered_as_if_it_were_alone(matrix: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, sold_out, left_out = matrix
    ranked = orders(in_units(scores), sold_out, left_out)
    for row in range(len(scores)):
        alone = order(scores[row], np.where(sold_out[row], 0, 7))
        alone = alone[~left_out[row, alone]]
        assert ranked[row, : len(alone)].tolist() == alone.tolist()
        assert sorted(ranked[row].tolist()) == list(range(scores.shape[1]))


@given(matrices())
def test_units_are_what_is_published(matrix: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores = matrix[0].astype(np.float32)
    np.testing.assert_array_equal(in_units(scores) / UNIT, rounded(scores))


def test_a_score_that_is_none_comes_where_it_comes_in_a_list_alone() -> None:
    scores = np.array([[1.0, np.nan, 3.0, -np.inf], [1.0, 2.0, 3.0, np.inf]])
    nobody = np.zeros(scores.shape, bool)
    found = orders(in_units(scores), nobody, nobody)
    assert found.tolist() == [order(row, np.ones(4, np.int64)).tolist() for row in scores]


@pytest.mark.parametrize("width", [8, 1000, 20_000])
def test_equal_scores_are_in_order_of_position_in_lists_of_any_width(width: int) -> None:
    scores = np.zeros((2, width))
    nobody = np.zeros(scores.shape, bool)
    assert (orders(scores, nobody, nobody) == np.arange(width)).all()


@given(st.permutations(range(6)), st.permutations(range(6)), st.integers(0, 6))
def test_ranks_in_the_order_before(before: list[int], now: list[int], count: int) -> None:
    """The order before had `count` ranks."""
    was = np.array([before[:count] + [-1] * (6 - count)], np.int16)
    found = previous_ranks(np.repeat(was, 2, axis=0), np.array([now, [6 + place for place in now]]))
    expected = [before[:count].index(one) if one in before[:count] else -1 for one in now]
    assert found.tolist() == [expected, expected]
