"""What arrived in the last minute is there for whoever begins to watch."""

from __future__ import annotations

import msgpack
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.minute import BLOCK_ROWS, KEEP_MS, Hashes, Minute, Watched
from streams.records import Change


def packed(entity: str, number: int) -> bytes:
    row = msgpack.packb(["product_catalog", entity, b"%d" % number])
    assert isinstance(row, bytes)
    return row


def hashed(numbers: list[int]) -> Hashes:
    return np.array(numbers, np.uint64)


def seen(changes: object) -> list[tuple[str, bytes]]:
    return [(change.entity, change.blob) for change in changes if isinstance(change, Change)]  # type: ignore[attr-defined]


def test_only_watched_rows_are_decoded() -> None:
    minute = Minute()
    assert seen(minute.watch([1, 3])) == []
    assert seen(minute.add(0, hashed([1, 2, 3]), [packed("a", 0), b"not decoded", packed("c", 0)])) == [
        ("a", b"0"),
        ("c", b"0"),
    ]


def test_watching_gives_what_arrived_before_oldest_first() -> None:
    minute = Minute()
    minute.add(0, hashed([1, 2]), [packed("a", 0), packed("b", 0)])
    minute.add(5, hashed([2, 1]), [packed("b", 1), packed("a", 1)])
    assert seen(minute.watch([1])) == [("a", b"0"), ("a", b"1")]
    assert seen(minute.watch([2])) == [("b", b"0"), ("b", b"1")], "those of 1 were given already"
    assert seen(minute.add(6, hashed([1]), [packed("a", 2)])) == [("a", b"2")]


def test_a_row_is_kept_for_a_minute_by_arrival() -> None:
    minute = Minute()
    minute.add(1_000, hashed([1]), [packed("a", 0)])
    minute.add(1_000 + KEEP_MS, hashed([2]), [packed("b", 0)])
    assert seen(minute.watch([1])) == [("a", b"0")]
    minute.add(1_001 + KEEP_MS, hashed([2]), [packed("b", 1)])
    assert seen(minute.watch([1])) == []
    assert seen(minute.watch([2])) == [("b", b"0"), ("b", b"1")]


def test_what_is_not_watched_any_more_is_not_decoded() -> None:
    minute = Minute()
    assert seen(minute.watch([1, 2])) == []
    minute.unwatch([1])
    assert seen(minute.add(0, hashed([1, 2]), [b"not decoded", packed("b", 0)])) == [("b", b"0")]


def test_a_row_that_arrives_between_two_watchers_reaches_the_second() -> None:
    """Watching and adding leave no gap: a row is yielded by the one or by the other."""
    minute = Minute()
    for number in range(4):
        arrived = seen(minute.add(number, hashed([1]), [packed("a", number)]))
        given = seen(minute.watch([1])) if number == 2 else []
        assert bool(arrived) == (number > 2)
        assert len(given) == (3 if number == 2 else 0)


@given(
    st.sets(st.integers(0, 2**64 - 1), max_size=40),
    st.lists(st.integers(0, 2**64 - 1), max_size=120),
    st.integers(0, 40),
)
def test_what_is_watched_is_found_among_few_and_among_many(watched: set[int], others: list[int], gone: int) -> None:
    """In a bitmap this small nearly every hash shares its bit with others, and it has to grow."""
    index = Watched(bits=3)
    for number in sorted(watched):
        index.add({number})
    removed = set(sorted(watched)[:gone])
    index.remove(removed)
    arrived = [*others, *sorted(watched), *others]
    found = index.places(hashed(arrived))
    assert found == [place for place, number in enumerate(arrived) if number in watched - removed]
    assert index.places(hashed(arrived[:5])) == [place for place in found if place < 5]
    assert len(index) == len(watched - removed)


def test_a_minute_of_many_rows_is_searched_in_order_of_arrival_and_forgotten_in_time() -> None:
    minute = Minute()
    rows = BLOCK_ROWS // 4
    for number in range(10):
        hashes = np.arange(rows, dtype=np.uint64)
        minute.add(number * 1_000, hashes, [packed(f"p{place}", number) for place in range(rows)])
    everything = [(f"p{place}", b"%d" % number) for number in range(10) for place in (0, 7, rows - 1)]
    assert seen(minute.watch([7, rows - 1, 0, 10**9])) == everything
    # a block goes with the last of its rows, later ones stay
    minute.add(3_001 + KEEP_MS, hashed([]), [])
    assert seen(minute.watch([7])) == [("p7", b"%d" % number) for number in range(4, 10)]
    minute.add(9_001 + KEEP_MS, hashed([]), [])
    assert seen(minute.watch([7])) == []
