"""Runs of places: given, given back, given again; and where the candidates of a product are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.places import WIDTHS, Places, Postings, width_of


@given(st.integers(1, 40_000))
def test_a_width_holds_its_set_and_wastes_less_than_the_set(candidates: int) -> None:
    width = width_of(candidates)
    assert candidates <= width <= max(2 * candidates, WIDTHS[0])


def test_lists_as_long_as_pages_waste_nothing() -> None:
    assert [width_of(page) for page in (20, 24, 50, 100, 200, 500, 1000)] == [20, 24, 50, 100, 200, 500, 1000]


@given(st.lists(st.integers(0, 5), max_size=60))
def test_runs_never_overlap_and_come_back_as_new(steps: list[int]) -> None:
    """Each step takes a run of some width, or gives the oldest back."""
    places = Places(capacity=4)
    taken: list[tuple[int, int]] = []
    for step in steps:
        if step and taken:
            first, width = taken.pop(0)
            assert (places.sets[first : first + width] == width).all()
            places.release(first, width)
        else:
            width = WIDTHS[step % len(WIDTHS)]
            first = places.allocate(width)
            run = slice(first, first + width)
            assert np.isnan(places.logits[run]).all()
            assert (places.ranked[run] == -1).all()
            assert not places.touched[run].any()
            places.sets[run], places.logits[run], places.ranked[run], places.touched[run] = width, 1.0, 2, True
            taken.append((first, width))
    spans = sorted(taken)
    assert all(first + width <= after for (first, width), (after, _) in pairwise(spans))


@pytest.mark.parametrize("holders", [3, 500])
def test_postings_of_a_product(holders: int) -> None:
    """Few are searched in Python, many in NumPy."""
    postings = Postings()
    for number in range(holders):
        postings.add(np.array([7, 100 + number], np.int32), 10 * number)
    assert sorted(postings.of(7).tolist()) == [10 * number for number in range(holders)]
    assert postings.of(101).tolist() == [11]
    for number in range(0, holders, 2):
        postings.remove(np.array([7, 100 + number], np.int32), 10 * number)
    assert sorted(postings.of(7).tolist()) == [10 * number for number in range(1, holders, 2)]
    assert postings.of(100).tolist() == []
