"""What a reader gets of one row: header, numbers, stamps, strings, in one blob of bytes.

header   40 bytes: format, number of stamps, flags, version, as_of, event_time, kafka_time
ints     int64 fields, little-endian        (fixed place: a column of many rows is one NumPy view)
floats   float32 fields, little-endian
stamps   (partition int32, offset int64) of every origin partition
strings  msgpack list of the string and bytes fields
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from feature_repo.views import View

FORMAT = 1
HEADER = struct.Struct("<HHIqqqq")
STAMP = struct.Struct("<iq")
#: flag of a row that time changed, not an event: a bucket has left a window
BY_TIME = 1
#: the strings of a row that has none
NO_STRINGS = b"\x90"

#: origin partition -> last offset the row contains
Stamps = dict[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One row as a reader sees it. Times in ms UTC; `kafka_time` is that of the newest message it contains."""

    version: int
    as_of: int
    event_time: int
    kafka_time: int
    ints: tuple[int, ...]
    floats: NDArray[np.float32]
    strings: tuple[str | bytes, ...]
    stamps: Stamps


class Values(NamedTuple):
    """Feature values as they stand in a row: its numbers and its strings. Equal bytes are equal values."""

    numbers: bytes
    strings: bytes


def version_of(stamps: Stamps) -> int:
    """Readers order rows by this, then by as_of: a function of what the row contains, 0 only for an empty row."""
    return sum(stamps.values()) + len(stamps)


@cache
def fixed_dtype(view: View) -> np.dtype[np.void]:
    """The fixed part of a row as a NumPy structured dtype."""
    return np.dtype(
        [
            ("format", "<u2"),
            ("stamps", "<u2"),
            ("flags", "<u4"),
            ("version", "<i8"),
            ("as_of", "<i8"),
            ("event_time", "<i8"),
            ("kafka_time", "<i8"),
            ("ints", "<i8", (len(view.ints),)),
            ("floats", "<f4", (view.float_width,)),
        ]
    )


@cache
def numbers_of(view: View) -> struct.Struct:
    """How the numbers of a row are packed."""
    return struct.Struct(f"<{len(view.ints)}q{view.float_width}f")


def pack_values(
    view: View, ints: Sequence[int], floats: Sequence[float] | NDArray[np.float32], strings: Sequence[str | bytes]
) -> Values:
    """Values of a row, in the order of its view."""
    return Values(numbers_of(view).pack(*ints, *floats), pack_strings(strings))


def pack_strings(strings: Sequence[str | bytes]) -> bytes:
    """The strings of a row."""
    return msgpack.packb(list(strings)) or b"" if strings else NO_STRINGS


def join_row(values: Values, *, as_of: int, event_time: int, kafka_time: int, stamps: Stamps, flags: int = 0) -> bytes:
    """The blob of one row whose values are packed."""
    numbers, strings = values
    if len(stamps) == 1:
        ((partition, offset),) = stamps.items()
        header = HEADER.pack(FORMAT, 1, flags, offset + 1, as_of, event_time, kafka_time)
        return b"".join((header, numbers, STAMP.pack(partition, offset), strings))
    header = HEADER.pack(FORMAT, len(stamps), flags, version_of(stamps), as_of, event_time, kafka_time)
    return b"".join((header, numbers, pack_stamps(stamps), strings))


def pack_row(
    view: View,
    *,
    as_of: int,
    event_time: int,
    kafka_time: int,
    ints: Sequence[int],
    floats: Sequence[float] | NDArray[np.float32],
    strings: Sequence[str | bytes],
    stamps: Stamps,
    flags: int = 0,
) -> bytes:
    """The blob of one row."""
    values = pack_values(view, ints, floats, strings)
    return join_row(values, as_of=as_of, event_time=event_time, kafka_time=kafka_time, stamps=stamps, flags=flags)


def unpack_row(view: View, blob: bytes) -> Row:
    """The whole row; ValueError for a blob of another format."""
    fixed = np.frombuffer(blob, dtype=fixed_dtype(view), count=1)[0]
    if fixed["format"] != FORMAT:
        raise ValueError(f"row of view {view.name} has format {fixed['format']}, expected {FORMAT}")
    size = fixed_dtype(view).itemsize
    end = size + STAMP.size * int(fixed["stamps"])
    return Row(
        version=int(fixed["version"]),
        as_of=int(fixed["as_of"]),
        event_time=int(fixed["event_time"]),
        kafka_time=int(fixed["kafka_time"]),
        ints=tuple(int(value) for value in fixed["ints"]),
        floats=fixed["floats"].copy(),
        strings=tuple(msgpack.unpackb(blob[end:])),
        stamps=unpack_stamps(blob[size:end]),
    )


def kafka_time_of(blob: bytes) -> int:
    """Kafka timestamp (ms) of the newest message in a row; 0 when it was time that changed the row."""
    _, _, flags, _, _, _, kafka_time = HEADER.unpack_from(blob)
    return 0 if flags & BY_TIME else int(kafka_time)


def order_of(blob: bytes) -> tuple[int, int]:
    """(version, as_of): of two rows of an entity, the greater one is the newer."""
    _, _, _, version, as_of, _, _ = HEADER.unpack_from(blob)
    return version, as_of


def unpack_fixed(view: View, blobs: Sequence[bytes | None]) -> NDArray[np.void]:
    """The fixed parts of many rows as one structured array; a missing row is all zeros (version 0)."""
    dtype = fixed_dtype(view)
    size = dtype.itemsize
    empty = bytes(size)
    return np.frombuffer(b"".join([blob[:size] if blob else empty for blob in blobs]), dtype=dtype)


def pack_stamps(stamps: Stamps) -> bytes:
    if len(stamps) == 1:
        ((partition, offset),) = stamps.items()
        return STAMP.pack(partition, offset)
    return b"".join([STAMP.pack(*stamp) for stamp in sorted(stamps.items())])


def unpack_stamps(data: bytes) -> Stamps:
    return dict(STAMP.iter_unpack(data))
