"""Product ids as msgpack packs them, by product slot: a list of ids is packed by copying rows of one matrix. Pure."""

import msgpack
import numpy as np

from streams.places import Numbers

DIFFERENT = -1


class PackedIds:
    """The bytes of slot s are the first `lengths[s]` of row s. The matrix is as wide as the longest."""

    def __init__(self, capacity: int = 1024) -> None:
        self._bytes = np.zeros((capacity, 1), np.uint8)
        self._lengths = np.zeros(capacity, np.int64)
        #: how many bytes every id has that was ever put; 0 before the first, DIFFERENT when they are not alike
        self._common = 0

    def put(self, slot: int, product_id: str) -> None:
        """The slot is this product's from now on."""
        packed = np.frombuffer(msgpack.packb(product_id) or b"", np.uint8)
        capacity, width = self._bytes.shape
        if slot >= capacity or len(packed) > width:
            self._grow(max(slot + 1, capacity * 3 // 2 if slot >= capacity else capacity), max(len(packed), width))
        self._common = len(packed) if self._common in (0, len(packed)) else DIFFERENT
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
        size = self._bytes.shape[1]
        cells = np.take(self._bytes.view(f"V{size}")[:, 0], slots)
        if self._common == size:
            ends = (counts * size).tolist()
            whole: list[bytes] = cells.view(f"V{size * width}")[:, 0].tolist() if width else [b""] * lists
            return [packed[:end] for packed, end in zip(whole, ends, strict=True)]
        lengths = np.take(self._lengths, slots)
        lengths[np.arange(width) >= counts[:, None]] = 0
        ends = np.cumsum(lengths.sum(axis=1)).tolist()
        bytes_of = cells.view(np.uint8).reshape(lists, width, size)
        packed = bytes_of[np.arange(size) < lengths[:, :, None]].tobytes()
        return [packed[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
