"""Live sets: found by id, product and user; replaced, removed and expired."""

from __future__ import annotations

import pytest

from streams.candidate_rows import CandidateRows
from streams.result_sets import LiveSets
from tests.streams.lists import registration


@pytest.fixture
def sets() -> LiveSets:
    return LiveSets(CandidateRows(8))


def ids(sets: LiveSets, product: str) -> dict[str, int]:
    """Sets that hold the product: id -> position."""
    slot = sets.rows.slots.get(product)
    found = {}
    for place in [] if slot is None else sets.holding(slot).tolist():
        live = sets.by_number[sets.places.sets[place]]
        assert live is not None
        found[live.id] = place - int(sets.firsts[live.number])
    return found


def of_user(sets: LiveSets, user_id: str) -> list[str]:
    members = [sets.by_number[number] for number in sets.of_user(user_id).tolist()]
    return [live.id for live in members if live is not None]


def test_candidates_are_kept_in_order_of_their_ids(sets: LiveSets) -> None:
    live, new = sets.register(registration("s", [("c", 3.0), ("a", 1.0), ("b", 2.0)]), b"s", 2)
    assert new == ["a", "b", "c"]
    assert sets.products(live) == ["a", "b", "c"]
    first = sets.firsts[live.number]
    assert sets.places.retrieval[first : first + 3].tolist() == [1.0, 2.0, 3.0]
    assert (live.partition, len(sets)) == (2, 1)
    assert (sets.loaded[live.number], sets.needs_model[live.number]) == (False, True)
    assert [ids(sets, product) for product in "abc"] == [{"s": 0}, {"s": 1}, {"s": 2}]


def test_only_products_that_no_set_holds_must_be_read(sets: LiveSets) -> None:
    sets.register(registration("s", ["a", "b"]), b"s", 0)
    _, new = sets.register(registration("t", ["b", "c"]), b"t", 0)
    assert new == ["c"]
    assert ids(sets, "b") == {"s": 1, "t": 0}


def test_a_set_that_is_registered_anew_replaces_the_old_one_and_keeps_shared_rows(sets: LiveSets) -> None:
    sets.register(registration("s", ["a", "b"], user_id="u"), b"1", 0)
    slot = sets.rows.slots["b"]
    live, new = sets.register(registration("s", ["b", "c"], user_id="v"), b"2", 0)
    assert new == ["c"], "b was never let go"
    assert sets.rows.slots["b"] == slot
    assert "a" not in sets.rows.slots
    assert sets.by_id == {"s": live}
    assert ids(sets, "b") == {"s": 0}
    assert of_user(sets, "u") == []
    assert of_user(sets, "v") == ["s"]


def test_a_set_that_is_removed_leaves_nothing(sets: LiveSets) -> None:
    sets.register(registration("s", ["a"], user_id="u", expires_at=5), b"s", 0)
    sets.register(registration("t", ["a"]), b"t", 0)
    assert sets.remove("s") is not None
    assert sets.remove("s") is None
    assert ids(sets, "a") == {"t": 0}
    assert of_user(sets, "u") == []
    assert sets.expired(10) == []
    sets.remove("t")
    assert not sets.rows.slots
    assert len(sets) == 0


def test_sets_expire_when_the_clock_has_reached_them_each_once(sets: LiveSets) -> None:
    for name, expires_at in (("a", 10), ("b", 20), ("never", None), ("c", 20)):
        sets.register(registration(name, ["p"], expires_at=expires_at), name.encode(), 0)
    assert sets.expired(9) == []
    assert sets.expired(10) == ["a"]
    assert sets.expired(10) == []
    assert sorted(sets.expired(1_000)) == ["b", "c"]


@pytest.mark.parametrize(("later", "expected"), [(30, []), (None, []), (5, ["s"]), (10, ["s"])])
def test_a_set_that_is_registered_anew_expires_by_the_new_registration(
    sets: LiveSets, later: int | None, expected: list[str]
) -> None:
    sets.register(registration("s", ["p"], expires_at=10), b"1", 0)
    sets.register(registration("s", ["p"], expires_at=later), b"2", 0)
    assert sets.expired(10) == expected
