"""The candidates of all live sets in arrays: one place a candidate, a run of places a set. Pure.

Widths of runs are few, so that sets of one width are rows of a matrix and a hundred of them are ranked at once. What a
run has beyond the candidates of its set is padding.
"""

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: a run is as wide as the first of these that holds its set; beyond them, a power of two
WIDTHS = (8, 12, 16, 20, 24, 30, 40, 50, 64, 80, 100, 125, 150, 200, 250, 300, 400, 500, 750, 1000)
#: postings of a product up to which one is found faster in Python than in NumPy
_FEW = 200

Numbers = NDArray[np.int64]


def width_of(candidates: int) -> int:
    """Places that a set of so many candidates takes."""
    return next((width for width in WIDTHS if width >= candidates), 1 << (candidates - 1).bit_length())


def runs(values: NDArray[Any], width: int) -> NDArray[Any]:
    """A view of an array by place: row p is the run of this width that begins at place p.

    Rows that are taken from it or put into it are copied whole; places one by one take twice as long.
    """
    return np.ndarray((len(values) - width + 1, width), values.dtype, values, 0, (values.itemsize, values.itemsize))


def grow(columns: object, allocate: Callable[[int], None], size: int) -> None:
    """Make the arrays of an object anew for `size` entries and copy what they held."""
    old = {name: values for name, values in vars(columns).items() if isinstance(values, np.ndarray)}
    allocate(size)
    for name, values in old.items():
        new: NDArray[Any] = getattr(columns, name)
        new[: len(values)] = values


class Places:
    """Arrays by place. A run lies in order of product_id, `ranked` and `shown` in order of rank."""

    def __init__(self, capacity: int = 1024) -> None:
        self._end = 0
        self._free: dict[int, list[int]] = {}
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        #: of the product
        self.slots = np.zeros(capacity, np.int32)
        #: number of the set
        self.sets = np.zeros(capacity, np.int32)
        self.retrieval = np.zeros(capacity, np.float32)
        #: the model's logit, NaN before the first
        self.logits = np.full(capacity, np.nan, np.float32)
        #: price in minor units when the candidate was scored, for degraded rankings
        self.price_scored = np.full(capacity, -1, np.int64)
        #: whether what the model sees of the candidate has changed since
        self.touched = np.zeros(capacity, bool)
        #: position in the run by rank of what stands, -1 after the last
        self.ranked = np.full(capacity, -1, np.int16)
        #: published score by rank of what stands, 0 after the last
        self.shown = np.zeros(capacity, np.float32)

    def allocate(self, width: int) -> int:
        """The first place of a free run."""
        free = self._free.get(width)
        if free:
            return free.pop()
        first, self._end = self._end, self._end + width
        if self._end > len(self.slots):
            grow(self, self._allocate, max(self._end, len(self.slots) * 5 // 4))
        return first

    def release(self, first: int, width: int) -> None:
        """Give a run back, as it was before its first use."""
        run = slice(first, first + width)
        self.slots[run] = self.sets[run] = 0
        self.logits[run] = np.nan
        self.price_scored[run] = self.ranked[run] = -1
        self.touched[run] = False
        self.retrieval[run] = self.shown[run] = 0
        self._free.setdefault(width, []).append(first)


class Postings:
    """Product slot -> places of the candidates that are this product, in no order."""

    def __init__(self) -> None:
        self._places: dict[int, array[int]] = {}

    def add(self, slots: NDArray[np.int32], first: int) -> None:
        """A run whose candidates have these slots begins at `first`."""
        places = self._places
        for place, slot in enumerate(slots.tolist(), first):
            known = places.get(slot)
            if known is None:
                places[slot] = array("i", (place,))
            else:
                known.append(place)

    def remove(self, slots: NDArray[np.int32], first: int) -> None:
        """What was added is gone."""
        for place, slot in enumerate(slots.tolist(), first):
            known = self._places[slot]
            known[_index(known, place)] = known[-1]
            known.pop()
            if not known:
                del self._places[slot]

    def of(self, slot: int) -> Numbers:
        """Places i64[n]."""
        return np.array(self._places.get(slot, ()), np.int64)


def _index(known: "array[int]", place: int) -> int:
    if len(known) < _FEW:
        return known.index(place)
    return int(np.flatnonzero(np.frombuffer(known, np.int32) == place)[0])
