"""Live result sets, the index product -> sets, and expiry by the log's clock. Pure."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import ResultSet
from streams.candidate_rows import CandidateRows
from streams.records import Cause


@dataclass(slots=True)
class Standing:
    """The newest published ranking of a set: columns in order of rank."""

    product_ids: tuple[str, ...]
    scores: NDArray[np.float32]
    model_version: str
    degraded: bool
    #: another writer's record came after it: what should stand must be published whatever it is
    contested: bool = False


@dataclass(slots=True)
class LiveSet:
    """A registered set. Arrays are by candidate in order of product_id."""

    registration: ResultSet
    raw: bytes
    partition: int
    ids: NDArray[np.object_]
    slots: NDArray[np.int32]
    retrieval: NDArray[np.float32]
    #: rounded scores, NaN before the first
    scores: NDArray[np.float64]
    #: price in minor units when the candidate was scored, for degraded rankings
    price_scored: NDArray[np.int64]
    contributions: NDArray[np.float32] | None = None
    query_vector: NDArray[np.float32] | None = None
    #: whether the rows of all candidates were read
    loaded: bool = False
    #: whether the newest scores are missing or a stopgap
    needs_model: bool = True
    scored_at: int = 0
    #: positions in order of rank of the newest ranking that was made; None before the first
    ranked: NDArray[np.int64] | None = None

    @property
    def id(self) -> str:
        return self.registration.result_set_id


@dataclass(slots=True)
class Dirty:
    """What of a set must be looked at: positions to score (None = all), and the first cause that is not published."""

    positions: set[int] | None = field(default_factory=set)
    cause: Cause | None = None
    cause_kafka_time: int = 0

    def add(self, positions: Iterable[int]) -> None:
        if self.positions is not None:
            self.positions.update(positions)


class LiveSets:
    """All live sets of this worker, found by id, by product slot and by user."""

    def __init__(self, rows: CandidateRows) -> None:
        self.rows = rows
        self.by_id: dict[str, LiveSet] = {}
        self._holders: dict[int, dict[str, int]] = {}
        self._of_user: dict[str, set[str]] = {}
        self._expiries: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[LiveSet]:
        return iter(self.by_id.values())

    def __len__(self) -> int:
        return len(self.by_id)

    def register(self, registration: ResultSet, raw: bytes, partition: int) -> tuple[LiveSet, list[str]]:
        """Put a set in the place of the one of its id; returns it and the products whose rows must be read."""
        candidates = sorted(registration.candidates)
        new: list[str] = []
        slots = np.empty(len(candidates), np.int32)
        for position, (product_id, _) in enumerate(candidates):
            slots[position], is_new = self.rows.acquire(product_id)
            if is_new:
                new.append(product_id)
        self.remove(registration.result_set_id)
        live = LiveSet(
            registration,
            raw,
            partition,
            np.array([product_id for product_id, _ in candidates], object),
            slots,
            np.array([score for _, score in candidates], np.float32),
            np.full(len(candidates), np.nan),
            np.full(len(candidates), -1, np.int64),
        )
        self.by_id[live.id] = live
        for position, slot in enumerate(slots.tolist()):
            self._holders.setdefault(slot, {})[live.id] = position
        if registration.user_id is not None:
            self._of_user.setdefault(registration.user_id, set()).add(live.id)
        if registration.expires_at is not None:
            heapq.heappush(self._expiries, (registration.expires_at, live.id))
        return live, new

    def remove(self, result_set_id: str) -> LiveSet | None:
        """Forget a set and give its rows back."""
        live = self.by_id.pop(result_set_id, None)
        if live is None:
            return None
        for slot in live.slots.tolist():
            holders = self._holders[slot]
            del holders[result_set_id]
            if not holders:
                del self._holders[slot]
            self.rows.release(slot)
        user_id = live.registration.user_id
        if user_id is not None:
            theirs = self._of_user[user_id]
            theirs.discard(result_set_id)
            if not theirs:
                del self._of_user[user_id]
        return live

    def holding(self, slot: int) -> dict[str, int]:
        """Sets that hold the product of a slot: id -> position."""
        return self._holders.get(slot, {})

    def of_user(self, user_id: str) -> set[str]:
        return self._of_user.get(user_id, set())

    def expired(self, clock: int) -> list[str]:
        """Ids of sets that the log's clock (ms) has reached, each once."""
        found: dict[str, None] = {}
        while self._expiries and self._expiries[0][0] <= clock:
            _, result_set_id = heapq.heappop(self._expiries)
            live = self.by_id.get(result_set_id)
            if live is not None and is_expired(live.registration, clock):
                found[result_set_id] = None  # once, though every registration left an entry
        return list(found)


def is_expired(registration: ResultSet, clock: int) -> bool:
    """Whether the log's clock (ms) has reached the end of the registration."""
    return registration.expires_at is not None and registration.expires_at <= clock
