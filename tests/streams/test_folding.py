"""What each view makes of its input, and which entries a row holds already."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from feature_repo.features import CatalogState
from feature_repo.row import Stamps, version_of
from feature_repo.views import PRODUCT_CONTENT
from streams.folding import (
    BehaviorFolding,
    CatalogFolding,
    ContentFolding,
    Encoded,
    Entry,
    Folding,
    UserFolding,
    admit,
    admitted,
    content_version,
)
from streams.records import ContentMessage, decode_content
from tests.streams.bench import HOUR, behavior, bought, patched


def encoded(product: str, stamps: Stamps, number: float, input_offset: int = 0) -> Entry:
    """What a message of `content` says once it is encoded."""
    numbers = np.full(PRODUCT_CONTENT.float_width, number, "<f4").tobytes()
    record = Encoded(version_of(stamps), HOUR, "1", f"hash {number}", numbers)
    return Entry(product, stamps, input_offset, HOUR + 1, ((0, record),), replaces=True)


@pytest.mark.parametrize(
    ("stamps", "entry", "expected"),
    [
        ({}, {0: 0}, False),
        ({0: 4}, {0: 5}, False),
        ({0: 5}, {0: 5}, True),
        ({0: 6}, {0: 5}, True),
        ({0: 9, 1: 2}, {1: 3}, False),
        ({0: 9, 1: 3}, {1: 3}, True),
        ({1: 100}, {0: 0}, False),
    ],
)
def test_a_row_holds_what_lies_below_its_stamp_of_the_same_partition(
    stamps: Stamps, entry: Stamps, expected: bool
) -> None:
    assert admit(stamps, Entry("a", entry, 0, 0, ())) is not expected


def test_stamps_are_merged_by_partition_and_never_fall() -> None:
    stamps = {0: 5, 1: 2}
    assert admit(stamps, Entry("a", {0: 3, 2: 7}, 0, 0, ()))
    assert stamps == {0: 5, 1: 2, 2: 7}


def test_an_entry_that_replaces_a_row_brings_its_stamps() -> None:
    """{0: 10} was encoded from a catalog row that lacked what {0: 4, 1: 3} holds; {0: 10, 1: 3} holds both."""
    first, lower, both = ({0: 10}, {0: 4, 1: 3}, {0: 10, 1: 3})
    assert not admit(dict(first), encoded("a", lower, 1.0))
    assert admit(dict(first), encoded("a", both, 1.0))
    stamps = dict(first)
    assert admit(stamps, encoded("a", {0: 9, 1: 9}, 1.0))
    assert stamps == {0: 9, 1: 9}
    assert not admit({0: 10}, encoded("a", {0: 10}, 1.0))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_the_newest_content_wins_in_any_order(order: tuple[int, int, int]) -> None:
    folding = ContentFolding()
    entries = [encoded("a", stamps, float(n)) for n, stamps in enumerate(({0: 10}, {0: 4, 1: 3}, {0: 10, 1: 3}))]
    state, stamps = folding.empty(), {}  # type: ignore[var-annotated]
    for number in order:
        if admit(stamps, entries[number]):
            folding.fold(state, [entries[number]])
    assert msgpack.unpackb(folding.values(state, 0).strings) == ["1", "hash 2.0"]
    assert set(np.frombuffer(folding.values(state, 0).numbers, "<f4").tolist()) == {2.0}
    assert stamps == {0: 10, 1: 3}


@pytest.mark.parametrize(
    ("folding", "entry"),
    [
        (
            CatalogFolding(),
            patched("a", 3, title="x", category=["a", "b"], price=5, stock=2, attributes={"x": 1}),
        ),
        (BehaviorFolding(), bought("a", 3, quantity=2, user_id="u")),
        (UserFolding(), Entry("u", {2: 3}, 9, HOUR, ((0, behavior("a", 1)), (4, behavior("b", 2, position=3))))),
        (ContentFolding(), encoded("a", {0: 3}, 0.5)),
    ],
)
def test_a_state_survives_being_packed(folding: Folding[object], entry: Entry) -> None:
    state = folding.empty()
    folding.fold(state, [entry])
    loaded = folding.unpack(folding.pack(state))
    assert folding.values(loaded, HOUR) == folding.values(state, HOUR) != folding.values(folding.empty(), HOUR)
    assert folding.newest(loaded) == HOUR
    assert folding.next_change(loaded, HOUR) == folding.next_change(state, HOUR)
    assert folding.pack(loaded) == folding.pack(state)


def test_an_empty_content_row_has_every_number() -> None:
    folding = ContentFolding()
    assert folding.values(folding.empty(), 0).numbers == bytes(4 * PRODUCT_CONTENT.float_width)


def own(offset: int, partition: int = 0) -> Entry:
    """One that comes from the partition whose offset is its stamp."""
    return Entry("a", {partition: offset}, offset, HOUR, (), is_own=True)


@pytest.mark.parametrize("known", [{}, {0: 4}, {0: 5}, {0: 6}, {0: 7}, {0: 9}, {1: 6}, {0: 5, 1: 9}])
def test_own_entries_are_admitted_together_as_they_are_one_by_one(known: Stamps) -> None:
    entries = [own(offset) for offset in (5, 6, 8)]
    one_by_one, together = dict(known), dict(known)
    expected = [entry for entry in entries if admit(one_by_one, entry)]
    assert list(admitted(together, entries)) == expected
    assert together == one_by_one


def test_where_nothing_comes_nothing_is_admitted() -> None:
    stamps = {0: 5}
    assert admitted(stamps, []) == []
    assert stamps == {0: 5}


def test_entries_of_many_partitions_are_admitted_one_by_one() -> None:
    stamps = {0: 5, 1: 2}
    entries = [Entry("a", {0: 5}, 1, 0, ()), Entry("a", {1: 3}, 2, 0, ()), Entry("a", {0: 7}, 3, 0, ())]
    assert admitted(stamps, entries) == entries[1:]
    assert stamps == {0: 7, 1: 3}


# --- what goes on to be encoded ------------------------------------------------------------------------------------


def forwarded(state: CatalogState, entry: Entry, *, changed: bool = True, stamps: Stamps | None = None) -> object:
    message = CatalogFolding().forward("a", state, entry.stamps if stamps is None else stamps, [entry], changed)
    return None if message is None else decode_content(message.value)


def test_a_change_of_content_goes_on_with_all_of_it() -> None:
    folding, state = CatalogFolding(), CatalogState()
    first = patched("a", 1, title="shirt", price=5)
    assert folding.fold(state, [first])
    assert forwarded(state, first) == ContentMessage("a", {0: 1}, HOUR, {"title": "shirt"})
    second = patched("a", 2, brand="b", time=HOUR + 1)
    assert folding.fold(state, [second])
    assert forwarded(state, second) == ContentMessage("a", {0: 2}, HOUR + 1, {"title": "shirt", "brand": "b"})


def test_a_patch_without_content_goes_nowhere_even_when_read_again() -> None:
    assert forwarded(CatalogState(), patched("a", 1, price=5, stock=3, delisted=False, currency="EUR")) is None


def test_the_same_content_again_goes_nowhere_unless_somebody_else_may_have_said_otherwise() -> None:
    folding, state = CatalogFolding(), CatalogState()
    folding.fold(state, [patched("a", 1, title="shirt")])
    again = patched("a", 2, title="shirt", time=HOUR + 1)
    changed = folding.fold(state, [again])
    assert not changed
    assert forwarded(state, again, changed=changed) is None
    both = forwarded(state, again, changed=changed, stamps={0: 2, 1: 7})
    assert both == ContentMessage("a", {0: 2, 1: 7}, HOUR + 1, {"title": "shirt"})


def test_the_version_of_content_is_that_of_its_catalog_row() -> None:
    assert content_version(ContentMessage("a", {0: 2, 1: 7}, HOUR, {})) == version_of({0: 2, 1: 7}) == 11
