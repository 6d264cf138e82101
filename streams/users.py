"""User rows that live sets depend on, and the vectors made of them. Pure.

The products of a user's history are dependencies like candidates: their slots are held, their content changes the
vector. Only `serving.users.user_vector` says how.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgpack
import numpy as np
from numpy.typing import NDArray

from feature_repo.row import unpack_row
from feature_repo.views import USER_BEHAVIOR
from serving.users import residuals, user_vector
from streams.candidate_rows import CandidateRows

_HISTORY = [field.name for field in USER_BEHAVIOR.strings].index("history")


@dataclass(slots=True)
class UserRow:
    """A user's row as the ranking side needs it; times in ms."""

    version: int = 0
    as_of: int = 0
    event_time: int = 0
    history: list[tuple[str, str, int, int]] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None
    #: slots i32[n] of the products that the user has met, in order, and what was done with them less expected f32[n]
    met: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None
    sets: int = 0


class Users:
    """Rows of the users of live sets, held as long as one of their sets lives."""

    def __init__(self, rows: CandidateRows) -> None:
        self._rows = rows
        self._users: dict[str, UserRow] = {}
        self._watching: dict[int, set[str]] = {}
        self._click_rates: Sequence[float] = ()
        #: products of histories whose rows must still be read
        self.unread: set[str] = set()

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._users

    def acquire(self, user_id: str) -> bool:
        """One live set more; True when the user's row must be read."""
        row = self._users.setdefault(user_id, UserRow())
        row.sets += 1
        return row.sets == 1

    def release(self, user_id: str) -> list[str]:
        """One live set less; products whose slots were given back."""
        row = self._users[user_id]
        row.sets -= 1
        if row.sets:
            return []
        del self._users[user_id]
        return self._let_go(user_id, row.slots)

    def row(self, user_id: str) -> UserRow:
        return self._users[user_id]

    def put(self, user_id: str, blob: bytes) -> bool:
        """Take a row that is equal or newer; True when the history changed."""
        known = self._users.get(user_id)
        if known is None:
            return False
        row = unpack_row(USER_BEHAVIOR, blob)
        if (row.version, row.as_of) < (known.version, known.as_of):
            return False
        known.version, known.as_of, known.event_time = row.version, row.as_of, row.event_time
        packed = row.strings[_HISTORY]
        assert isinstance(packed, bytes)
        history = [(kind, product, position, time) for kind, product, position, time in msgpack.unpackb(packed)]
        if history == known.history:
            return False
        known.history, known.vector, known.met = history, None, None
        self._hold(user_id, known, {product for _, product, _, _ in history})
        return True

    def watching(self, slot: int) -> Iterable[str]:
        """Users in whose history the product of the slot stands."""
        return tuple(self._watching.get(slot, ()))

    def forget_vector(self, user_id: str) -> None:
        self._users[user_id].vector = None

    def vector(self, user_id: str, click_rates: Sequence[float]) -> NDArray[np.float32]:
        """f32[U]: zeros for a user without history. `click_rates` are those of the bundle in force."""
        self._expect(click_rates)
        row = self._users[user_id]
        if row.vector is None:
            there = {product: slot for product, slot in row.slots.items() if self._rows.mask[slot].any()}
            contents = {product: self._rows.content[slot] for product, slot in there.items()}
            row.vector = user_vector(row.history, contents, click_rates)
        return row.vector

    def familiarity(self, user_id: str, slots: NDArray[np.int32], click_rates: Sequence[float]) -> NDArray[np.float32]:
        """f32[n] what the user did with the products in some slots less what was expected; 0 for those not met."""
        self._expect(click_rates)
        row = self._users[user_id]
        if row.met is None:
            row.met = _by_slot(row.slots, residuals(row.history, click_rates))
        known, values = row.met
        if not len(known):
            return np.zeros(len(slots), np.float32)
        places = np.minimum(np.searchsorted(known, slots), len(known) - 1)
        return np.where(known[places] == slots, values[places], np.float32(0))

    def _expect(self, click_rates: Sequence[float]) -> None:
        """What was made with other rates is made again."""
        if click_rates is not self._click_rates:
            self._click_rates = click_rates
            for known in self._users.values():
                known.vector = known.met = None

    def _hold(self, user_id: str, row: UserRow, products: set[str]) -> None:
        gone = {product: slot for product, slot in row.slots.items() if product not in products}
        for product in products - row.slots.keys():
            slot, is_new = self._rows.acquire(product)
            row.slots[product] = slot
            self._watching.setdefault(slot, set()).add(user_id)
            if is_new:
                self.unread.add(product)
        for product in gone:
            del row.slots[product]
        self._let_go(user_id, gone)

    def _let_go(self, user_id: str, slots: dict[str, int]) -> list[str]:
        given_back = []
        for product, slot in slots.items():
            watchers = self._watching[slot]
            watchers.discard(user_id)
            if not watchers:
                del self._watching[slot]
            if self._rows.release(slot):
                given_back.append(product)
        return given_back


def _by_slot(slots: Mapping[str, int], values: Mapping[str, float]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Slots in order, and the values of their products."""
    order = sorted((slots[product], value) for product, value in values.items())
    return np.array([slot for slot, _ in order], np.int32), np.array([value for _, value in order], np.float32)
