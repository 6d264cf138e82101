"""Why it moved: rankings made from parts and stock, and what is told about their difference."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.explaining import Listing, explanation, most, movements
from serving.ranking import order, rounded
from serving.requests import CONTRIBUTIONS

#: product -> part -> what it adds to the score; "stock" is the stock
Shelf = Mapping[str, Mapping[str, float]]

SHELF: Shelf = {
    "a": {"text": 2.0, "price": 1.0},
    "b": {"text": 1.5, "price": 1.0},
    "c": {"text": 1.0, "price": 1.0, "clicks": 0.2},
    "d": {"text": 0.5, "price": 1.0},
}


def listing(shelf: Shelf, explained: bool = True) -> Listing:
    """The shelf ranked as the engine ranks."""
    ids = sorted(shelf)
    parts = np.array([[shelf[one].get(name, 0.0) for name in CONTRIBUTIONS] for one in ids], np.float32)
    scores = rounded(parts.sum(1))
    stock = np.array([shelf[one].get("stock", 5) for one in ids], np.int64)
    ranked = order(scores, stock)
    contributions = parts[ranked] if explained else None
    return Listing([ids[n] for n in ranked], scores[ranked].astype(np.float32), contributions)


def changed(**products: Mapping[str, float]) -> Shelf:
    """SHELF with some parts of some products changed."""
    return {one: {**parts, **products.get(one, {})} for one, parts in SHELF.items()}


def test_nothing_moved() -> None:
    assert all(movement.is_still for movement in movements(listing(SHELF), listing(SHELF)))


def test_a_dearer_product_falls_by_its_price() -> None:
    told = explanation(listing(SHELF), listing(changed(a={"price": -0.2})), "a")
    assert (told.movement.rank_before, told.movement.rank_after) == (1, 3)
    assert told.movement.change == pytest.approx(-1.2)
    assert dict(most(told.movement.parts)) == pytest.approx({"price": -1.2})
    assert [(passing.winner, passing.loser) for passing in told.passings] == [("c", "a"), ("b", "a")]
    assert all(dict(most(passing.parts)) == pytest.approx({"price": 1.2}) for passing in told.passings)


def test_a_product_that_sells_passes_by_sales() -> None:
    after = listing(changed(d={"sales": 1.3}, b={"clicks": 0.1}))
    told = explanation(listing(SHELF), after, "d")
    assert (told.movement.rank_before, told.movement.rank_after) == (4, 1 + 1)
    assert [passing.loser for passing in told.passings] == ["b", "c"]
    by = {passing.loser: dict(most(passing.parts)) for passing in told.passings}
    assert by["b"] == pytest.approx({"sales": 1.3, "clicks": -0.1})
    seen_by_the_loser = explanation(listing(SHELF), after, "b")
    assert [(passing.winner, most(passing.parts)[0][0]) for passing in seen_by_the_loser.passings] == [("d", "sales")]


def test_what_is_sold_out_falls_by_stock_and_what_is_back_rises_by_it() -> None:
    full, empty = listing(SHELF), listing(changed(a={"stock": 0}))
    told = explanation(full, empty, "a")
    assert (told.movement.rank_after, told.movement.stock, told.movement.change) == (4, "sold out", 0)
    assert most(told.movement.parts) == []
    assert all(passing.stock == {"a": "sold out"} for passing in told.passings)
    back = explanation(empty, full, "a")
    assert (back.movement.rank_after, back.movement.stock) == (1, "back in stock")
    (passed_b,) = [passing for passing in back.passings if passing.loser == "b"]
    assert passed_b.stock == {"a": "back in stock"}


def test_equal_scores_against_the_order_of_ids_tell_stock_too() -> None:
    twins: Shelf = {"a": {"text": 1.0, "stock": 0}, "b": {"text": 1.0}}
    assert listing(twins).product_ids == ["b", "a"]
    assert listing(twins).sold_out_from == 1


def test_new_and_gone() -> None:
    fewer = {one: parts for one, parts in SHELF.items() if one != "b"}
    by_id = {movement.product_id: movement for movement in movements(listing(SHELF), listing(fewer))}
    assert (by_id["b"].rank_before, by_id["b"].rank_after, by_id["b"].change) == (2, None, 0)
    assert (by_id["c"].rank_before, by_id["c"].rank_after) == (3, 2)
    back = explanation(listing(fewer), listing(SHELF), "b")
    assert (back.movement.rank_before, back.movement.rank_after, back.passings) == (None, 2, ())


def test_rankings_without_contributions_tell_ranks_scores_and_stock() -> None:
    before, after = listing(SHELF, explained=False), listing(changed(a={"price": -0.2}))
    told = explanation(before, after, "a")
    assert told.movement.change == pytest.approx(-1.2)
    assert told.movement.parts == {}


def test_what_the_parts_do_not_tell_is_the_rest() -> None:
    before = listing(SHELF)
    assert before.contributions is not None
    stopgap = Listing(before.product_ids, before.scores - np.float32(0.25), before.contributions)
    told = explanation(before, stopgap, "a")
    assert dict(most(told.movement.parts)) == pytest.approx({"rest": -0.25})


def test_a_product_that_is_nowhere_is_named() -> None:
    with pytest.raises(ValueError, match="product z is in neither ranking"):
        explanation(listing(SHELF), listing(SHELF), "z")


shelves = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.fixed_dictionaries(
        {
            "text": st.floats(-3, 3, width=32),
            "price": st.floats(-3, 3, width=32),
            "stock": st.sampled_from((0.0, 5.0)),
        }
    ),
    min_size=1,
)


@settings(max_examples=100, deadline=None)
@given(before=shelves, after=shelves)
def test_parts_sum_to_the_change_and_passings_are_the_pairs_that_turned(before: Shelf, after: Shelf) -> None:
    one, other = listing(before), listing(after)
    for movement in movements(one, other):
        if movement.rank_before is not None and movement.rank_after is not None:
            assert sum(movement.parts.values()) == pytest.approx(movement.change, abs=1e-3)
        told = explanation(one, other, movement.product_id)
        turned = {
            rival
            for rival in set(before) & set(after) - {movement.product_id}
            if movement.product_id in set(before) & set(after)
            and (one.product_ids.index(rival) < one.product_ids.index(movement.product_id))
            != (other.product_ids.index(rival) < other.product_ids.index(movement.product_id))
        }
        assert {passing.winner for passing in told.passings} | {passing.loser for passing in told.passings} == (
            turned | {movement.product_id} if turned else set()
        )


@settings(max_examples=100, deadline=None)
@given(shelf=shelves)
def test_only_what_is_sold_out_is_told_so(shelf: Shelf) -> None:
    found = listing(shelf)
    told = set(found.product_ids[found.sold_out_from :])
    assert all(shelf[product_id]["stock"] == 0 for product_id in told)
