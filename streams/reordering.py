"""Scores -> orders -> what must be published, for all sets of one width at once. Pure NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Bundle
from serving.ranking import Doubles, degraded_scores, rounded
from streams.candidate_rows import DELISTED, PRODUCT_VIEWS, SOLD_OUT
from streams.ordering import Flags, orders, previous_ranks
from streams.places import Numbers
from streams.result_sets import LiveSet, LiveSets
from streams.standings import Standings, positions_of

#: lists whose matrices stay in the processor's cache
LISTS_AT_ONCE = 128
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Group:
    """Live sets of one width W to be ordered, each once: numbers [G], places [G, W], why and since when [G]."""

    numbers: Numbers
    places: Numbers
    causes: NDArray[np.object_]
    cause_times: Numbers

    def of(self, rows: Flags | slice) -> "Group":
        """Some of the sets."""
        return Group(self.numbers[rows], self.places[rows], self.causes[rows], self.cause_times[rows])


@dataclass(frozen=True, slots=True)
class Reordered:
    """Rankings that must be published, of G sets of one width W. Columns [G, W] are by rank; a list has `counts` ranks.

    `youngest` and `oldest` are the ages (ms by the log's clock) of the candidates' rows by view, i64[V, G]; -1 without
    any row. `contributions` [counts, K] by place among the sets, where they were asked for.
    """

    sets: tuple[LiveSet, ...]
    partitions: NDArray[np.int32]
    counts: Numbers
    slots: Numbers
    scores: NDArray[np.float32]
    previous_ranks: NDArray[np.int16]
    contributions: Mapping[int, NDArray[np.float32]]
    model_version: str
    degraded: Flags
    causes: NDArray[np.object_]
    cause_times: Numbers
    scored_at: Numbers
    youngest: Numbers
    oldest: Numbers

    def __len__(self) -> int:
        return len(self.sets)


class Reordering:
    """Orders sets by their newest scores; what differs from what stands must be published, and stands from then on."""

    def __init__(self, sets: LiveSets, standings: Standings) -> None:
        self._sets = sets
        self._rows = sets.rows
        self._standings = standings

    def reorder(self, group: Group, bundle: Bundle, model_version: str, log_clock: int | None) -> Reordered | None:
        """Order at most LISTS_AT_ONCE sets; None when everything stands already."""
        # 1. the order
        sets, places, standings = self._sets, self._sets.places, self._standings
        numbers, slots = group.numbers, places.slots[group.places].astype(np.intp)
        ranks = np.arange(slots.shape[1])
        padding = None
        if (sets.counts[numbers] < len(ranks)).any():
            padding = ranks >= sets.counts[numbers][:, None]
        facts = np.take(self._rows.facts, slots, axis=0)
        flags = facts[:, :, -1]
        left_out = flags & DELISTED > 0
        scores = self._scores(group, slots, bundle)
        if padding is not None:
            left_out |= padding
            scores[padding] = 0
        ranked = orders(scores, flags & SOLD_OUT > 0, left_out)
        counts = np.full(len(numbers), len(ranks))
        cells = ranked + np.arange(0, scores.size, len(ranks))[:, None]
        shown = np.take(scores, cells).astype(np.float32)
        kept = ranked.astype(np.int16)
        if left_out.any():
            counts -= left_out.sum(axis=1)
            beyond = ranks >= counts[:, None]
            shown[beyond], kept[beyond] = 0, -1
        # 2. against what stands
        model, degraded = standings.model(model_version), sets.needs_model[numbers]
        before = places.ranked[group.places]
        moved = ((before != kept) | (places.shown[group.places] != shown)).any(axis=1)
        moved |= (standings.models[numbers] != model) | (standings.degraded[numbers] != degraded)
        moved |= standings.contested[numbers]
        earlier = previous_ranks(before, cells)
        for row in np.flatnonzero(standings.models[numbers] < 0).tolist():
            moved[row] = self._adopt(
                numbers[row], ranked[row, : counts[row]], shown[row], model_version, degraded[row], earlier[row]
            )
        # 3. what stands from now on
        standings.models[numbers], standings.degraded[numbers] = model, degraded
        standings.contested[numbers] = False
        places.ranked[group.places], places.shown[group.places] = kept, shown
        if not moved.any():
            return None
        youngest, oldest = self._ages(facts, padding, log_clock)
        members = [self._member(number) for number in numbers[moved].tolist()]
        return Reordered(
            sets=tuple(members),
            partitions=sets.partitions[numbers[moved]],
            counts=counts[moved],
            slots=np.take(slots, cells[moved]),
            scores=shown[moved],
            previous_ranks=earlier[moved],
            contributions={
                row: live.contributions[ranked[at, : counts[at]]]
                for row, (live, at) in enumerate(zip(members, np.flatnonzero(moved).tolist(), strict=True))
                if live.contributions is not None
            },
            model_version=model_version,
            degraded=degraded[moved],
            causes=group.causes[moved],
            cause_times=group.cause_times[moved],
            scored_at=sets.scored_at[numbers[moved]],
            youngest=youngest[:, moved],
            oldest=oldest[:, moved],
        )

    def _member(self, number: int) -> LiveSet:
        live = self._sets.by_number[number]
        assert live is not None
        return live

    def _scores(self, group: Group, slots: Numbers, bundle: Bundle) -> Doubles:
        """Scores to order by [G, W]: the model's, or a stopgap from the last ones, or the retrieval's."""
        places = self._sets.places
        scores = rounded(places.logits[group.places])
        stopgap = self._sets.needs_model[group.numbers]
        if stopgap.any():
            there = group.places[stopgap]
            last, price = scores[stopgap], self._rows.price[slots[stopgap]]
            corrected = degraded_scores(last, price, places.price_scored[there], bundle.price_weight)
            scores[stopgap] = np.where(np.isnan(corrected), rounded(places.retrieval[there]), corrected)
        return scores

    def _adopt(
        self,
        number: int,
        ranked: Numbers,
        shown: NDArray[np.float32],
        model_version: str,
        degraded: bool,
        earlier: NDArray[np.int16],
    ) -> bool:
        """Compare with what stands by id, if anything does; fills `earlier` and says whether to publish."""
        live = self._member(number)
        standing = self._standings.adopt(live.id)
        if standing is None:
            return True
        before = positions_of(standing, self._sets.products(live))
        ranks = np.full(int(self._sets.counts[number]) + 1, -1, np.int16)
        ranks[before] = np.arange(len(before))  # the last place takes products that are no candidates any more
        earlier[: len(ranked)] = ranks[ranked]
        return not (
            np.array_equal(before, ranked)
            and np.array_equal(standing.scores, shown[: len(ranked)])
            and standing.model_version == model_version
            and standing.degraded == degraded
            and not standing.contested
        )

    def _ages(self, facts: Numbers, padding: Flags | None, log_clock: int | None) -> tuple[Numbers, Numbers]:
        youngest, oldest = np.full((2, len(PRODUCT_VIEWS), len(facts)), -1, np.int64)
        if log_clock is None:
            return youngest, oldest
        for place in range(len(PRODUCT_VIEWS)):
            times = np.ascontiguousarray(facts[:, :, place])
            if padding is not None:
                times[padding] = 0
            newest, first = times.max(axis=1), times.min(axis=1)
            if not first.all():
                first = np.where(times > 0, times, _NEVER).min(axis=1)
            known = newest > 0
            youngest[place, known] = np.maximum(log_clock - newest[known], 0)
            oldest[place, known] = np.maximum(log_clock - first[known], 0)
        return youngest, oldest
