"""Product ids as msgpack packs them, by product slot: a list of ids is packed by copying rows of one matrix. Pure."""

import msgpack
import numpy as np
from numpy.typing import NDArray

from streams.places import Numbers


class PackedIds:
    """The bytes of slot s are the first `lengths[s]` of row s."""

    def __init__(self, capacity: int = 1024, width: int = 16) -> None:
        self._bytes = np.zeros((capacity, width), np.uint8)
        self._lengths = np.zeros(capacity, np.int64)

    def put(self, slot: int, product_id: str) -> None:
        """The slot is this product's from now on."""
        packed = np.frombuffer(msgpack.packb(product_id) or b"", np.uint8)
        capacity, width = self._bytes.shape
        if slot >= capacity or len(packed) > width:
            self._grow(max(slot + 1, capacity * 3 // 2 if slot >= capacity else capacity), max(len(packed), width))
        self._bytes[slot, : len(packed)] = packed
        self._lengths[slot] = len(packed)

    def _grow(self, capacity: int, width: int) -> None:
        old, lengths = self._bytes, self._lengths
        self._bytes = np.zeros((capacity, width), np.uint8)
        self._bytes[: len(old), : old.shape[1]] = old
        self._lengths = np.zeros(capacity, np.int64)
        self._lengths[: len(lengths)] = lengths

    def lists(self, slots: Numbers, counts: Numbers) -> list[bytes]:
        """The packed ids of the first counts[g] slots of each row of `slots` [G, W], one after the other."""
        lists, width = slots.shape
        inside = np.arange(width) < counts[:, None]
        lengths = np.take(self._lengths, slots)
        size = self._bytes.shape[1]
        cells = np.take(self._bytes.view(f"V{size}")[:, 0], slots).view(np.uint8).reshape(lists, width, size)
        common = int(lengths.max(initial=0))
        if ((lengths == common) | ~inside).all():
            packed = np.ascontiguousarray(cells[:, :, :common]).data.cast("B")
            begins = np.arange(0, lists * width * common, width * common) if common and width else np.zeros(lists, int)
            return _slices(packed, begins, begins + common * counts)
        lengths[~inside] = 0
        ends = np.cumsum(lengths.sum(axis=1))
        packed = cells[_ones_before(lengths, size)].data
        return _slices(packed, np.concatenate([[0], ends[:-1]]), ends)


def _ones_before(lengths: Numbers, size: int) -> NDArray[np.bool_]:
    return np.arange(size) < lengths[:, :, None]


def _slices(packed: memoryview, begins: Numbers, ends: Numbers) -> list[bytes]:
    return [bytes(packed[begin:end]) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
