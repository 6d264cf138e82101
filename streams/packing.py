"""Reordered sets -> message values of `rankings`, many at once. Pure.

`streams.records.decode_ranking` reads them. What is the same for all is packed once, product ids are packed once each,
numbers are written as columns, so that a set costs a few slices and one join.
"""

from collections.abc import Sequence
from functools import cache

import msgpack
import numpy as np
from numpy.typing import NDArray

from streams.candidate_rows import PRODUCT_VIEWS
from streams.packed_ids import PackedIds
from streams.places import Numbers
from streams.records import Cause
from streams.reordering import Reordered

#: msgpack's bytes for a uint64 that follows, for false and true
_UINT64, _FALSE, _TRUE = b"\xcf", 0xC2, 0xC3
_FIELDS = 13


def pack(value: object) -> bytes:
    """As msgpack."""
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def pack_rankings(
    reordered: Reordered, keys: Sequence[bytes], packed_ids: PackedIds, versions: Numbers, published_at: int
) -> list[bytes]:
    """One message value a set. `keys` are the ids of the sets as UTF-8, `versions` one a set."""
    model = pack("model_version") + pack(reordered.model_version) + pack("caused_by")
    width = reordered.scores.shape[1]
    scores = reordered.scores.astype("<f4", copy=False).tobytes()
    ranks = reordered.previous_ranks.astype("<i2", copy=False).tobytes()
    ids = packed_ids.lists(reordered.slots, reordered.counts)
    tails = _tails(reordered, versions, published_at)
    causes = _pack_causes(reordered.causes.tolist())
    values = []
    for row, count in enumerate(reordered.counts.tolist()):
        begin, score_head, rank_head = _heads(count)
        contributions = reordered.contributions.get(row)
        cell = row * width
        values.append(
            b"".join(
                (
                    _BEGIN,
                    _text_head(len(keys[row])),
                    keys[row],
                    begin,
                    ids[row],
                    score_head,
                    scores[4 * cell : 4 * (cell + count)],
                    rank_head,
                    ranks[2 * cell : 2 * (cell + count)],
                    _NO_CONTRIBUTIONS if contributions is None else _pack_contributions(contributions),
                    model,
                    causes[row],
                    tails[row],
                )
            )
        )
    return values


_BEGIN = bytes([0x80 | _FIELDS]) + pack("result_set_id")
_NO_CONTRIBUTIONS = pack("contributions") + pack(None)


@cache
def _heads(count: int) -> tuple[bytes, bytes, bytes]:
    """What goes before the product ids, the scores and the previous ranks of a list of `count`."""
    packer = msgpack.Packer()
    ids = pack("product_ids") + packer.pack_array_header(count)
    return ids, pack("scores") + _bin_header(4 * count), pack("previous_ranks") + _bin_header(2 * count)


@cache
def _text_head(size: int) -> bytes:
    """What goes before a text of so many bytes."""
    packed = pack("x" * size)
    return packed[: len(packed) - size]


def _bin_header(size: int) -> bytes:
    packed = pack(bytes(size))
    return packed[: len(packed) - size]


def _pack_contributions(contributions: NDArray[np.float32]) -> bytes:
    return pack("contributions") + pack(contributions.astype("<f4", copy=False).tobytes())


def _pack_causes(causes: Sequence[Cause | None]) -> list[bytes]:
    """Of each set; one change is the cause of many."""
    known = {id(cause): cause for cause in causes}
    packed = {
        name: pack(None if it is None else (it.view, it.entity, it.version, it.event_time))
        for name, it in known.items()
    }
    return [packed[id(cause)] for cause in causes]


# --- numbers -------------------------------------------------------------------------------------------------------


def _tails(reordered: Reordered, versions: Numbers, published_at: int) -> list[bytes]:
    """The fields of fixed size of every set, and the ages of the views of which it has rows."""
    known = reordered.youngest >= 0
    patterns = (1 << np.arange(len(PRODUCT_VIEWS))) @ known
    tails = [b""] * len(reordered)
    for pattern in np.unique(patterns).tolist():
        rows = np.flatnonzero(patterns == pattern)
        views = tuple(place for place in range(len(PRODUCT_VIEWS)) if pattern >> place & 1)
        made = np.empty(len(rows), _tail_dtype(views))
        made[:] = _tail_template(views)
        made["version"], made["scored_at"] = versions[rows], reordered.scored_at[rows]
        made["published_at"], made["cause_kafka_time"] = published_at, reordered.cause_times[rows]
        made["degraded"] = np.where(reordered.degraded[rows], _TRUE, _FALSE)
        for place in views:
            made[f"youngest_{place}"] = reordered.youngest[place, rows]
            made[f"oldest_{place}"] = reordered.oldest[place, rows]
        packed, size = made.tobytes(), made.itemsize
        for at, row in enumerate(rows.tolist()):
            tails[row] = packed[at * size : (at + 1) * size]
    return tails


@cache
def _tail_layout(views: tuple[int, ...]) -> tuple[tuple[str, bytes, str], ...]:
    """(name of the number, what goes before it, its type) in order."""
    layout = [
        *((name, pack(name) + _UINT64, ">u8") for name in ("version", "scored_at", "published_at", "cause_kafka_time")),
        ("degraded", pack("degraded"), "u1"),
    ]
    before = pack("feature_age_ms") + bytes([0x80 | len(views)])
    for place in views:
        layout.append((f"youngest_{place}", before + pack(PRODUCT_VIEWS[place].name) + b"\x92" + _UINT64, ">u8"))
        layout.append((f"oldest_{place}", _UINT64, ">u8"))
        before = b""
    if not views:
        layout.append(("", before, ""))
    return tuple(layout)


@cache
def _tail_dtype(views: tuple[int, ...]) -> np.dtype[np.void]:
    fields: list[tuple[str, str]] = []
    for place, (name, before, kind) in enumerate(_tail_layout(views)):
        fields.append((f"before_{place}", f"V{len(before)}"))
        if name:
            fields.append((name, kind))
    return np.dtype(fields)


@cache
def _tail_template(views: tuple[int, ...]) -> NDArray[np.void]:
    """A tail whose numbers are to be filled in."""
    template = np.zeros((), _tail_dtype(views))
    for place, (_, before, _) in enumerate(_tail_layout(views)):
        template[f"before_{place}"] = np.void(before)
    return template
