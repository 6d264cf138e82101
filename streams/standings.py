"""What stands on `rankings` for each set: the newest published ranking. Pure.

A ranking that this worker made lies in the arrays of its set; one that was read from the topic, or whose set went, is
kept by the id of the set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streams.places import Numbers, grow
from streams.records import Ranking
from streams.result_sets import LiveSet, LiveSets


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest published ranking of a set: columns in order of rank."""

    product_ids: tuple[str, ...]
    scores: NDArray[np.float32]
    model_version: str
    degraded: bool
    #: another writer's record came after it: what should stand must be published whatever it is
    contested: bool = False


def standing_of(ranking: Ranking) -> Standing:
    """What a published ranking leaves standing."""
    return Standing(ranking.product_ids, ranking.scores, ranking.model_version, ranking.degraded)


class Standings:
    """What stands, by id or, for a set that was ranked since it was registered, by its number."""

    def __init__(self, sets: LiveSets, capacity: int = 64) -> None:
        self._sets = sets
        self._by_id: dict[str, Standing] = {}
        self._model_versions: list[str] = []
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        #: place of the model version in the list of all, -1 while nothing stands in the arrays
        self.models = np.full(capacity, -1, np.int16)
        self.degraded = np.zeros(capacity, bool)
        self.contested = np.zeros(capacity, bool)

    def fit(self) -> None:
        """Room for every number of a set."""
        if len(self._sets.serials) > len(self.models):
            grow(self, self._allocate, len(self._sets.serials))

    def __contains__(self, result_set_id: str) -> bool:
        live = self._sets.by_id.get(result_set_id)
        return result_set_id in self._by_id or (live is not None and self._is_own(live))

    def put(self, result_set_id: str, standing: Standing) -> None:
        """This was read from the topic."""
        self._by_id[result_set_id] = standing

    def forget(self, result_set_id: str) -> None:
        """A null stands, or nothing."""
        self._by_id.pop(result_set_id, None)

    def adopt(self, result_set_id: str) -> Standing | None:
        """What stands by id; from now on the arrays of the set say it."""
        return self._by_id.pop(result_set_id, None)

    def keep(self, live: LiveSet) -> None:
        """The set goes: what the arrays say is said by its id."""
        if not self._is_own(live):
            return
        number, places = live.number, self._sets.places
        run = slice(first := int(self._sets.firsts[number]), first + int(self._sets.widths[number]))
        ranked = places.ranked[run]
        ranked = ranked[ranked >= 0]
        ids = self._sets.rows.ids
        self._by_id[live.id] = Standing(
            tuple(ids[slot] for slot in places.slots[run][ranked].tolist()),
            places.shown[run][: len(ranked)].copy(),
            self._model_versions[self.models[number]],
            bool(self.degraded[number]),
            bool(self.contested[number]),
        )
        self.models[number] = -1
        self.contested[number] = False

    def contest(self, result_set_id: str, theirs: Standing | None) -> None:
        """Another writer wrote `theirs` (None: a null) after what stands: the next ranking is published in any case."""
        live = self._sets.by_id.get(result_set_id)
        if live is not None and self._is_own(live):
            self.contested[live.number] = True
            return
        before = self._by_id.get(result_set_id, theirs)
        if before is not None:
            self._by_id[result_set_id] = replace(before, contested=True)

    def model(self, version: str) -> int:
        """The place of a model version."""
        if version not in self._model_versions:
            self._model_versions.append(version)
        return self._model_versions.index(version)

    def _is_own(self, live: LiveSet) -> bool:
        return live.number < len(self.models) and bool(self.models[live.number] >= 0)


def positions_of(standing: Standing, products: Sequence[str]) -> Numbers:
    """Positions of what stands among these products, in order of rank; -1 for one that is none of them."""
    positions = {product_id: position for position, product_id in enumerate(products)}
    return np.array([positions.get(product_id, -1) for product_id in standing.product_ids], np.int64)
