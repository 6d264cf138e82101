"""Rows to test with, as their writer and as their reader see them."""

from __future__ import annotations

from uuid import uuid4

from feature_repo.row import Stamps, pack_row, pack_stamps
from feature_repo.row_store import RowWrite, Space, Stored, pack_stored
from feature_repo.views import View

BASE = 1_300_000_000_000


def new_space(view: View, variant: str = "") -> Space:
    """A space that no other test uses."""
    return Space("cluster", uuid4().hex, view.name, variant)


def blob_of(view: View, number: int = 1, *, event_time: int = BASE, stamps: Stamps | None = None) -> bytes:
    """A row whose every value is different, and different for every `number`."""
    return pack_row(
        view,
        as_of=event_time + 5,
        event_time=event_time,
        kafka_time=event_time + 7,
        ints=[number * 100 + column for column in range(len(view.ints))],
        floats=[number + column / 8 for column in range(view.float_width)],
        strings=[
            f"{field.name} {number} 白色" if field.dtype == "string" else bytes([0, 255, number % 256])
            for field in view.strings
        ],
        stamps=stamps or {0: number},
    )


def stored_of(number: int, *, home: int = 0, event_time: int = BASE) -> Stored:
    """What the writer of a row at offset `number` of partition 0 leaves of it."""
    return Stored(home, {0: number}, event_time + 5, event_time + 7, f"state {number}".encode())


def packed(stored: Stored) -> bytes:
    """As it lies in Redis."""
    return pack_stored(stored.home, pack_stamps(stored.stamps), stored.as_of, stored.kafka_time, stored.state)


def write_of(
    view: View,
    entity: str,
    number: int,
    *,
    read: Stamps | None = None,
    due: int | None = None,
    event_time: int = BASE,
    home: int = 0,
    is_own: bool = False,
) -> RowWrite:
    """A row at offset `number` of partition 0, read before with the stamps `read`; not looked at if `is_own`."""
    stamps = {0: number}
    return RowWrite(
        entity,
        None if is_own else pack_stamps(read or {}),
        blob_of(view, number, event_time=event_time, stamps=stamps),
        packed(stored_of(number, home=home, event_time=event_time)),
        due,
    )
