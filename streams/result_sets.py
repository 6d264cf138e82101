"""Live result sets, the index product -> sets, and expiry by the log's clock. Pure.

What is asked of a set often lies in arrays by its number, what is asked once in `LiveSet`, and its candidates in
`streams.places`.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import ResultSet
from feature_repo.views import EMBEDDING_DIM
from streams.candidate_rows import CandidateRows
from streams.places import Numbers, Places, Postings, grow, width_of

#: context field of a registration that asks for contributions
EXPLAIN = "explain"


@dataclass(slots=True)
class LiveSet:
    """A registered set: what is not asked for each ranking. `digest` stands for the bytes that were registered."""

    number: int
    id: str
    partition: int
    digest: bytes
    query: str | None
    user_id: str | None
    expires_at: int | None
    #: f32[candidates, K] in order of product_id, where they were asked for and scored
    contributions: NDArray[np.float32] | None = None


class LiveSets:
    """All live sets of this worker, found by id, by product slot and by user; arrays are by number of the set."""

    def __init__(self, rows: CandidateRows, capacity: int = 64) -> None:
        self.rows = rows
        self.places = Places()
        self.by_id: dict[str, LiveSet] = {}
        self.by_number: list[LiveSet | None] = []
        self._postings = Postings()
        self._of_user: dict[str, set[int]] = {}
        self._expiries: list[tuple[int, str]] = []
        self._free: list[int] = []
        self._registrations = 0
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        #: which registration has the number now, 0 for none: what was begun for another is not finished for this one
        self.serials = np.zeros(capacity, np.int64)
        self.partitions = np.zeros(capacity, np.int32)
        #: the set's run of places, and how many of them are candidates
        self.firsts = np.zeros(capacity, np.int64)
        self.widths = np.zeros(capacity, np.int32)
        self.counts = np.zeros(capacity, np.int32)
        #: whether the rows of all candidates were read
        self.loaded = np.zeros(capacity, bool)
        self.explained = np.zeros(capacity, bool)
        self.has_user = np.zeros(capacity, bool)
        self.has_query_vector = np.zeros(capacity, bool)
        self.query_vectors = np.zeros((capacity, EMBEDDING_DIM), np.float32)
        #: whether the newest scores are missing or a stopgap
        self.needs_model = np.zeros(capacity, bool)
        self.scored_at = np.zeros(capacity, np.int64)

    def __iter__(self) -> Iterator[LiveSet]:
        return iter(self.by_id.values())

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def numbers(self) -> Numbers:
        """Of all live sets."""
        return np.flatnonzero(self.serials)

    def register(self, registration: ResultSet, raw: bytes, partition: int) -> tuple[LiveSet, list[str]]:
        """Put a set in the place of the one of its id; returns it and the products whose rows must be read."""
        candidates = sorted(registration.candidates)
        slots, new = self.rows.acquire_all([product_id for product_id, _ in candidates])
        self.remove(registration.result_set_id)
        live = self._number(registration, raw, partition)
        number, count = live.number, len(candidates)
        width = width_of(count)
        first = self.places.allocate(width)
        run = slice(first, first + count)
        self.places.slots[run], self.places.sets[run] = slots, number
        self.places.retrieval[run] = [score for _, score in candidates]
        self._postings.add(slots, first)
        self.firsts[number], self.widths[number], self.counts[number] = first, width, count
        return live, new

    def _number(self, registration: ResultSet, raw: bytes, partition: int) -> LiveSet:
        number = self._free.pop() if self._free else len(self.by_number)
        live = LiveSet(
            number,
            registration.result_set_id,
            partition,
            digest_of(raw),
            registration.query,
            registration.user_id,
            registration.expires_at,
        )
        if number == len(self.by_number):
            self.by_number.append(live)
            if number >= len(self.serials):
                grow(self, self._allocate, len(self.serials) * 3 // 2)
        self._registrations += 1
        self.by_id[live.id] = self.by_number[number] = live
        self.serials[number], self.partitions[number] = self._registrations, partition
        self.loaded[number] = self.has_query_vector[number] = False
        self.explained[number] = bool((registration.context or {}).get(EXPLAIN))
        self.needs_model[number], self.scored_at[number] = True, 0
        self.query_vectors[number] = 0
        self.has_user[number] = live.user_id is not None
        if live.user_id is not None:
            self._of_user.setdefault(live.user_id, set()).add(number)
        if live.expires_at is not None:
            heapq.heappush(self._expiries, (live.expires_at, live.id))
        return live

    def remove(self, result_set_id: str) -> LiveSet | None:
        """Forget a set and give its rows back."""
        live = self.by_id.pop(result_set_id, None)
        if live is None:
            return None
        number = live.number
        slots = self.slots(live)
        self._postings.remove(slots, int(self.firsts[number]))
        self.rows.release_all(slots)
        self.places.release(int(self.firsts[number]), int(self.widths[number]))
        self.by_number[number] = None
        self.serials[number] = 0
        self._free.append(number)
        if live.user_id is not None:
            theirs = self._of_user[live.user_id]
            theirs.discard(number)
            if not theirs:
                del self._of_user[live.user_id]
        return live

    def slots(self, live: LiveSet) -> NDArray[np.int32]:
        """Product slots of the candidates i32[n], in order of product_id."""
        first = self.firsts[live.number]
        return self.places.slots[first : first + self.counts[live.number]].copy()

    def products(self, live: LiveSet) -> list[str]:
        """Ids of the candidates, in order."""
        return [self.rows.ids[slot] for slot in self.slots(live).tolist()]

    def take_query_vector(self, live: LiveSet, vector: NDArray[np.float32]) -> None:
        """The query was encoded: f32[D]."""
        self.query_vectors[live.number] = vector
        self.has_query_vector[live.number] = True

    def holding(self, slot: int) -> Numbers:
        """Places of the candidates that are the product of a slot."""
        return self._postings.of(slot)

    def of_user(self, user_id: str) -> Numbers:
        """Numbers of the user's sets."""
        return np.array(sorted(self._of_user.get(user_id, ())), np.int64)

    def expired(self, clock: int) -> list[str]:
        """Ids of sets that the log's clock (ms) has reached, each once."""
        found: dict[str, None] = {}
        while self._expiries and self._expiries[0][0] <= clock:
            _, result_set_id = heapq.heappop(self._expiries)
            live = self.by_id.get(result_set_id)
            if live is not None and live.expires_at is not None and live.expires_at <= clock:
                found[result_set_id] = None  # once, though every registration left an entry
        return list(found)


def digest_of(raw: bytes) -> bytes:
    """16 bytes that tell one registration from another."""
    return blake2b(raw, digest_size=16).digest()
