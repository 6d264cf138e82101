"""The rows of all candidates of this worker's live sets: one slot a product, shared by every set that holds it. Pure.

Numbers lie in arrays by slot, so that the rows of a score request are one gather each.
"""

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.row import HEADER, unpack_fixed
from feature_repo.views import (
    BEHAVIOR_COLUMNS,
    EMBEDDING_DIM,
    MODALITIES,
    NUMERIC_FIELDS,
    PRICE_COLUMNS,
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    PRODUCT_CONTENT,
    SLOTS,
    UNKNOWN,
    VIEW_BY_NAME,
)
from streams.packed_ids import PackedIds

PRODUCT_VIEWS = (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT)
_PLACE = {view.name: place for place, view in enumerate(PRODUCT_VIEWS)}
_PRICE, _USUAL, _STOCK, _DELISTED = (
    PRODUCT_CATALOG.offsets[name] for name in ("price", "price_usual", "stock", "delisted")
)
_INTS = Struct(f"<{len(PRODUCT_CATALOG.ints)}q")
_VECTORS = len(SLOTS) * EMBEDDING_DIM
#: arrays whose first axis is the view, not the slot
_BY_VIEW = ("versions", "as_ofs")
#: columns of `CandidateRows.facts`: the event time of each view's row, then flags
_FLAGS = len(PRODUCT_VIEWS)
SOLD_OUT, DELISTED = 1, 2


class Effect(IntEnum):
    """What a row that was put changes: nothing, the order alone (stock, delisted), or what the model sees."""

    NONE = 0
    ORDER = 1
    SCORE = 2


class CandidateRows:
    """Slots of products. A product that nobody knows is price -1, zeros and masked content."""

    def __init__(self, capacity: int = 1024) -> None:
        self.slots: dict[str, int] = {}
        self.ids: list[str] = []
        self.packed_ids = PackedIds(capacity)
        self._free: list[int] = []
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.numeric = _unknown(capacity)
        self.content = np.zeros((capacity, len(SLOTS), EMBEDDING_DIM), np.float32)
        self.mask = np.zeros((capacity, len(MODALITIES)), np.float32)
        self.price = np.full(capacity, UNKNOWN, np.int64)
        self.price_usual = np.full(capacity, UNKNOWN, np.int64)
        self.stock = np.full(capacity, UNKNOWN, np.int64)
        #: what ordering asks of every candidate, side by side: a row is half a line of the processor's cache
        self.facts = np.zeros((capacity, len(PRODUCT_VIEWS) + 1), np.int64)
        #: version and as_of (ms) of each view's row; 0 without one
        self.versions = np.zeros((len(PRODUCT_VIEWS), capacity), np.int64)
        self.as_ofs = np.zeros((len(PRODUCT_VIEWS), capacity), np.int64)
        self.users = np.zeros(capacity, np.int32)

    def _grow(self) -> None:
        """Twice the slots; what is there keeps its place."""
        size = len(self.price)
        old = {name: array for name, array in vars(self).items() if isinstance(array, np.ndarray)}
        self._allocate(2 * size)
        for name, array in old.items():
            new: NDArray[Any] = getattr(self, name)
            if name in _BY_VIEW:
                new[:, :size] = array
            else:
                new[:size] = array

    def acquire(self, product_id: str) -> tuple[int, bool]:
        """The slot of a product, one user more; True when it is new and must be read."""
        slot = self.slots.get(product_id)
        if slot is not None:
            self.users[slot] += 1
            return slot, False
        if self._free:
            slot = self._free.pop()
            self.ids[slot] = product_id
        else:
            slot = len(self.ids)
            self.ids.append(product_id)
            if slot >= len(self.price):
                self._grow()
        self.slots[product_id] = slot
        self.users[slot] = 1
        self.packed_ids.put(slot, product_id)
        return slot, True

    def acquire_all(self, products: Sequence[str]) -> tuple[NDArray[np.int32], list[str]]:
        """The slots of different products i32[n], one user more each; and those that are new and must be read."""
        found = [self.slots.get(product_id, -1) for product_id in products]
        slots = np.array(found, np.int32)
        self.users[slots[slots >= 0]] += 1
        new = []
        for place in np.flatnonzero(slots < 0).tolist():
            slots[place], _ = self.acquire(products[place])
            new.append(products[place])
        return slots, new

    def release(self, slot: int) -> bool:
        """One user less; True when nobody is left and the slot was given back."""
        self.users[slot] -= 1
        if self.users[slot] > 0:
            return False
        del self.slots[self.ids[slot]]
        self.numeric[slot] = _unknown(1)[0]
        self.content[slot], self.mask[slot] = 0, 0
        self.price[slot] = self.price_usual[slot] = self.stock[slot] = UNKNOWN
        self.facts[slot] = 0
        self.versions[:, slot] = self.as_ofs[:, slot] = 0
        self._free.append(slot)
        return True

    def release_all(self, slots: NDArray[np.int32]) -> None:
        """One user less of each of different slots."""
        shared = self.users[slots] > 1
        self.users[slots[shared]] -= 1
        for slot in slots[~shared].tolist():
            self.release(slot)

    def version(self, view: str, slot: int) -> int:
        """Version of the row that is here, 0 without one."""
        return int(self.versions[_PLACE[view], slot])

    def event_time(self, view: str, slot: int) -> int:
        """Event time (ms) of the row that is here, 0 without one."""
        return int(self.facts[slot, _PLACE[view]])

    def is_delisted(self, slot: int) -> bool:
        """Whether the product is no longer sold."""
        return bool(self.facts[slot, _FLAGS] & DELISTED)

    def is_behind(self, view: str, slot: int, blob: bytes) -> bool:
        """Whether a row of the store is newer than what is here, and its values are other ones.

        A newer row with the same values is none of a reader's business: nobody is told of it.
        """
        place = _PLACE[view]
        row = unpack_fixed(VIEW_BY_NAME[view], [blob])[0]
        if (row["version"], row["as_of"]) <= (self.versions[place, slot], self.as_ofs[place, slot]):
            return False
        if view == PRODUCT_CATALOG.name:
            known = [self.price[slot], self.price_usual[slot], self.stock[slot], self.is_delisted(slot)]
            return bool((row["ints"] != known).any())
        if view == PRODUCT_BEHAVIOR.name:
            return bool((row["floats"] != self.numeric[slot, BEHAVIOR_COLUMNS]).any())
        known_numbers = np.concatenate([self.content[slot].ravel(), self.mask[slot]])
        return bool((row["floats"] != known_numbers).any())

    def put(self, view: str, slot: int, blob: bytes) -> Effect:
        """Take a row that is equal or newer than what is there, by (version, as_of)."""
        place, there = _PLACE[view], VIEW_BY_NAME[view]
        _, _, _, version, as_of, event_time, _ = HEADER.unpack_from(blob)
        if (version, as_of) < (self.versions[place, slot], self.as_ofs[place, slot]):
            return Effect.NONE
        self.versions[place, slot], self.as_ofs[place, slot] = version, as_of
        self.facts[slot, place] = event_time
        if there is PRODUCT_CATALOG:
            return self._put_catalog(slot, _INTS.unpack_from(blob, HEADER.size))
        floats = np.frombuffer(blob, "<f4", there.float_width, HEADER.size)
        if there is PRODUCT_BEHAVIOR:
            return self._changed(self.numeric[slot, BEHAVIOR_COLUMNS], floats)
        vectors = floats[:_VECTORS].reshape(len(SLOTS), EMBEDDING_DIM)
        return max(self._changed(self.content[slot], vectors), self._changed(self.mask[slot], floats[_VECTORS:]))

    def _put_catalog(self, slot: int, ints: Sequence[int]) -> Effect:
        price, usual, stock, delisted = ints[_PRICE], ints[_USUAL], ints[_STOCK], bool(ints[_DELISTED])
        effect = Effect.NONE
        flags = SOLD_OUT * (stock == 0) | DELISTED * delisted
        if flags != self.facts[slot, _FLAGS]:
            effect = Effect.ORDER
        if price != self.price[slot] or usual != self.price_usual[slot]:
            effect = Effect.SCORE
        self.price[slot], self.price_usual[slot] = price, usual
        self.stock[slot], self.facts[slot, _FLAGS] = stock, flags
        self.numeric[slot, PRICE_COLUMNS] = price, usual
        return effect

    @staticmethod
    def _changed(place: NDArray[np.float32], values: NDArray[np.float32]) -> Effect:
        if place.tobytes() == values.tobytes():
            return Effect.NONE
        place[...] = values
        return Effect.SCORE


def _unknown(rows: int) -> NDArray[np.float32]:
    numeric = np.zeros((rows, len(NUMERIC_FIELDS)), np.float32)
    numeric[:, PRICE_COLUMNS] = UNKNOWN
    return numeric
