"""What arrived in the last minute is there for whoever begins to watch."""

from __future__ import annotations

import msgpack

from streams.minute import KEEP_MS, Minute
from streams.records import Change


def packed(entity: str, number: int) -> bytes:
    row = msgpack.packb(["product_catalog", entity, b"%d" % number])
    assert isinstance(row, bytes)
    return row


def seen(changes: object) -> list[tuple[str, bytes]]:
    return [(change.entity, change.blob) for change in changes if isinstance(change, Change)]  # type: ignore[attr-defined]


def test_only_watched_rows_are_decoded() -> None:
    minute = Minute()
    assert seen(minute.watch([1, 3])) == []
    assert seen(minute.add(0, [1, 2, 3], [packed("a", 0), b"not decoded", packed("c", 0)])) == [
        ("a", b"0"),
        ("c", b"0"),
    ]


def test_watching_gives_what_arrived_before_oldest_first() -> None:
    minute = Minute()
    minute.add(0, [1, 2], [packed("a", 0), packed("b", 0)])
    minute.add(5, [2, 1], [packed("b", 1), packed("a", 1)])
    assert seen(minute.watch([1])) == [("a", b"0"), ("a", b"1")]
    assert seen(minute.watch([2])) == [("b", b"0"), ("b", b"1")], "those of 1 were given already"
    assert seen(minute.add(6, [1], [packed("a", 2)])) == [("a", b"2")]


def test_a_row_is_kept_for_a_minute_by_arrival() -> None:
    minute = Minute()
    minute.add(1_000, [1], [packed("a", 0)])
    minute.add(1_000 + KEEP_MS, [2], [packed("b", 0)])
    assert seen(minute.watch([1])) == [("a", b"0")]
    minute.add(1_001 + KEEP_MS, [2], [packed("b", 1)])
    assert seen(minute.watch([1])) == []
    assert seen(minute.watch([2])) == [("b", b"0"), ("b", b"1")]


def test_what_is_not_watched_any_more_is_not_decoded() -> None:
    minute = Minute()
    assert seen(minute.watch([1, 2])) == []
    minute.unwatch([1])
    assert seen(minute.add(0, [1, 2], [b"not decoded", packed("b", 0)])) == [("b", b"0")]


def test_a_row_that_arrives_between_two_watchers_reaches_the_second() -> None:
    """Watching and adding leave no gap: a row is yielded by the one or by the other."""
    minute = Minute()
    for number in range(4):
        arrived = seen(minute.add(number, [1], [packed("a", number)]))
        given = seen(minute.watch([1])) if number == 2 else []
        assert bool(arrived) == (number > 2)
        assert len(given) == (3 if number == 2 else 0)
