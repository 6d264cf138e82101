"""Reordered sets -> message values of `rankings`, many at once. Pure.

`streams.records.decode_ranking` reads them. Numbers of sets with equally many candidates are written as one matrix of
bytes, a row a set; what is of any length, the ids and the cause, is packed once each. A set costs one join.
"""

from collections.abc import Sequence
from functools import cache, lru_cache

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
_VIEW_BITS = 1 << np.arange(len(PRODUCT_VIEWS))
#: what lies in a row of numbers: its name, what goes before it, its type and how many there are
Field = tuple[str, bytes, str, tuple[int, ...]]


def pack(value: object) -> bytes:
    """As msgpack."""
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def pack_rankings(
    reordered: Reordered, keys: Sequence[bytes], packed_ids: PackedIds, versions: Numbers, published_at: int
) -> list[bytes]:
    """One message value a set. `keys` are the ids of the sets as UTF-8, `versions` one a set."""
    begins = [_begin(len(key)) for key in keys]
    lists = [_ids_head(count) for count in reordered.counts.tolist()]
    ids = packed_ids.lists(reordered.slots, reordered.counts)
    numbers = _numbers(reordered, versions, published_at)
    ends = _pack_causes(reordered.causes.tolist())
    if reordered.contributions:
        explained = [_pack_contributions(reordered.contributions.get(row)) for row in range(len(reordered))]
        return list(map(b"".join, zip(begins, keys, lists, ids, numbers, explained, ends, strict=True)))
    return list(map(b"".join, zip(begins, keys, lists, ids, numbers, ends, strict=True)))


@cache
def _begin(size: int) -> bytes:
    """What goes before an id of so many bytes."""
    packed = pack("x" * size)
    return bytes([0x80 | _FIELDS]) + pack("result_set_id") + packed[: len(packed) - size]


@cache
def _ids_head(count: int) -> bytes:
    """What goes before so many product ids."""
    head: bytes = msgpack.Packer().pack_array_header(count)
    return pack("product_ids") + head


@cache
def _bin_head(name: str, size: int) -> bytes:
    packed = pack(bytes(size))
    return pack(name) + packed[: len(packed) - size]


def _pack_contributions(contributions: NDArray[np.float32] | None) -> bytes:
    found = None if contributions is None else contributions.astype("<f4", copy=False).tobytes()
    return pack("contributions") + pack(found)


def _pack_causes(causes: Sequence[Cause | None]) -> list[bytes]:
    """Of each set; one change is the cause of many."""
    known = {id(cause): cause for cause in causes}
    packed = {
        name: pack("caused_by") + pack(None if it is None else (it.view, it.entity, it.version, it.event_time))
        for name, it in known.items()
    }
    return [packed[id(cause)] for cause in causes]


# --- numbers -------------------------------------------------------------------------------------------------------


def _numbers(reordered: Reordered, versions: Numbers, published_at: int) -> list[bytes]:
    """The fields of fixed size of every set, and the ages of the views of which it has rows."""
    counts, patterns = reordered.counts, _VIEW_BITS @ (reordered.youngest >= 0)
    alike = (counts == counts[0]) & (patterns == patterns[0])
    if alike.all():
        return _numbers_alike(reordered, slice(None), versions, published_at, int(counts[0]), int(patterns[0]))
    numbers = [b""] * len(counts)
    kinds, kind = np.unique(np.stack((counts, patterns)), axis=1, return_inverse=True)
    for place, (count, pattern) in enumerate(kinds.T.tolist()):
        rows = np.flatnonzero(kind == place)
        found = _numbers_alike(reordered, rows, versions, published_at, count, pattern)
        for row, packed in zip(rows.tolist(), found, strict=True):
            numbers[row] = packed
    return numbers


def _numbers_alike(
    reordered: Reordered, rows: NDArray[np.intp] | slice, versions: Numbers, published_at: int, count: int, pattern: int
) -> list[bytes]:
    """Of sets with so many candidates, and rows of the views in the bits of the pattern."""
    template = _template(count, pattern, reordered.model_version, bool(reordered.contributions))
    # as plain bytes: field by field it takes twenty times as long
    plain = np.full(len(versions[rows]), template.view(f"V{template.itemsize}"))
    made = plain.view(template.dtype)
    made["scores"] = reordered.scores[rows, :count]
    made["previous_ranks"] = reordered.previous_ranks[rows, :count]
    made["version"], made["scored_at"] = versions[rows], reordered.scored_at[rows]
    made["published_at"], made["cause_kafka_time"] = published_at, reordered.cause_times[rows, 0]
    made["degraded"] = np.where(reordered.degraded[rows], _TRUE, _FALSE)
    for place in _views(pattern):
        made[f"youngest_{place}"] = reordered.youngest[place, rows]
        made[f"oldest_{place}"] = reordered.oldest[place, rows]
    found: list[bytes] = plain.tolist()
    return found


def _views(pattern: int) -> list[int]:
    return [place for place in range(len(PRODUCT_VIEWS)) if pattern >> place & 1]


@lru_cache(maxsize=1024)
def _template(count: int, pattern: int, model_version: str, explained: bool) -> NDArray[np.void]:
    """A row whose numbers are to be filled in."""
    layout = _layout(count, _views(pattern), model_version, explained)
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = []
    for place, (name, before, kind, shape) in enumerate(layout):
        fields.append((f"before_{place}", f"V{len(before)}"))
        if name:
            fields.append((name, kind, shape))
    template = np.zeros((), np.dtype(fields))
    for place, (_, before, _, _) in enumerate(layout):
        template[f"before_{place}"] = np.void(before)
    return template


def _layout(count: int, views: Sequence[int], model_version: str, explained: bool) -> list[Field]:
    layout: list[Field] = [
        ("scores", _bin_head("scores", 4 * count), "<f4", (count,)),
        ("previous_ranks", _bin_head("previous_ranks", 2 * count), "<i2", (count,)),
    ]
    before = pack("model_version") + pack(model_version)
    before += b"" if explained else _pack_contributions(None)
    for name in ("version", "scored_at", "published_at", "cause_kafka_time"):
        layout.append((name, before + pack(name) + _UINT64, ">u8", ()))
        before = b""
    layout.append(("degraded", pack("degraded"), "u1", ()))
    before = pack("feature_age_ms") + bytes([0x80 | len(views)])
    for place in views:
        layout.append((f"youngest_{place}", before + pack(PRODUCT_VIEWS[place].name) + b"\x92" + _UINT64, ">u8", ()))
        layout.append((f"oldest_{place}", _UINT64, ">u8", ()))
        before = b""
    return layout if views else [*layout, ("", before, "", ())]
