"""Scores -> orders -> what must be published, for all sets of one width at once. Pure NumPy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Bundle
from serving.ranking import Doubles, degraded_scores
from streams.candidate_rows import DELISTED, SOLD_OUT
from streams.ordering import UNIT, Flags, in_units, orders, previous_ranks
from streams.places import Numbers, runs
from streams.result_sets import LiveSet, LiveSets
from streams.standings import Standings, positions_of

#: lists whose matrices stay in the processor's cache
LISTS_AT_ONCE = 128
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Group:
    """Live sets of one width W to be ordered, each once: numbers [G], first places [G], why [G] and, as `Since`, since
    when i64[G, 2]."""

    width: int
    numbers: Numbers
    firsts: Numbers
    causes: NDArray[np.object_]
    cause_times: Numbers

    def of(self, rows: Flags | slice) -> "Group":
        """Some of the sets."""
        return Group(self.width, self.numbers[rows], self.firsts[rows], self.causes[rows], self.cause_times[rows])


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
        numbers, firsts, width = group.numbers, group.firsts, group.width
        slots = runs(places.slots, width)[firsts].astype(np.int64)
        ranks = np.arange(width)
        counts = sets.counts[numbers].astype(np.int64)
        padding = None if (counts == width).all() else ranks >= counts[:, None]
        # what is asked of every candidate is one gather: a row of it is half a line of the processor's cache
        facts = np.ascontiguousarray(np.take(self._rows.facts, slots, axis=0).transpose(2, 0, 1))
        times, flags = facts[:-1], facts[-1]
        units = self._units(group, slots, bundle)
        sold_out, left_out = None, padding
        if flags.any():
            sold_out, delisted = flags & SOLD_OUT > 0, flags & DELISTED > 0
            left_out = delisted if padding is None else delisted | padding
        if padding is not None:
            units[padding] = 0
        ranked = orders(units, sold_out, left_out)
        cells = ranked + np.arange(0, ranked.size, width)[:, None]
        shown = (np.take(units, cells) / UNIT).astype(np.float32)
        kept = ranked.astype(np.int16)
        if left_out is not None:
            counts = width - left_out.sum(axis=1)
            beyond = ranks >= counts[:, None]
            shown[beyond], kept[beyond] = 0, -1
        # 2. against what stands
        model, degraded = standings.model(model_version), sets.needs_model[numbers]
        ranked_before, shown_before = runs(places.ranked, width), runs(places.shown, width)
        before = ranked_before[firsts]
        moved = ((before != kept) | (shown_before[firsts] != shown)).any(axis=1)
        models = standings.models[numbers]
        moved |= (models != model) | (standings.degraded[numbers] != degraded) | standings.contested[numbers]
        earlier = previous_ranks(before, cells)
        for row in (models < 0).nonzero()[0].tolist():
            moved[row] = self._adopt(
                numbers[row], ranked[row, : counts[row]], shown[row], model_version, degraded[row], earlier[row]
            )
        # 3. what stands from now on
        standings.models[numbers], standings.degraded[numbers] = model, degraded
        standings.contested[numbers] = False
        ranked_before[firsts], shown_before[firsts] = kept, shown
        if not moved.any():
            return None
        some = slice(None) if moved.all() else moved
        youngest, oldest = self._ages(times, padding, log_clock)
        by_number = cast(list[LiveSet], sets.by_number)
        members = [by_number[number] for number in numbers[some].tolist()]
        explained = [row for row, live in enumerate(members) if live.contributions is not None]
        return Reordered(
            sets=tuple(members),
            partitions=sets.partitions[numbers[some]],
            counts=counts[some],
            slots=np.take(slots, cells[some]),
            scores=shown[some],
            previous_ranks=earlier[some],
            contributions=self._contributions(members, explained, ranked[some], counts[some]),
            model_version=model_version,
            degraded=degraded[some],
            causes=group.causes[some],
            cause_times=group.cause_times[some],
            scored_at=sets.scored_at[numbers[some]],
            youngest=youngest[:, some],
            oldest=oldest[:, some],
        )

    @staticmethod
    def _contributions(
        members: Sequence[LiveSet], explained: Sequence[int], ranked: Numbers, counts: Numbers
    ) -> dict[int, NDArray[np.float32]]:
        """Of those that have any, in order of rank."""
        found = {}
        for row in explained:
            contributions = members[row].contributions
            assert contributions is not None
            found[row] = contributions[ranked[row, : counts[row]]]
        return found

    def _member(self, number: int) -> LiveSet:
        live = self._sets.by_number[number]
        assert live is not None
        return live

    def _units(self, group: Group, slots: Numbers, bundle: Bundle) -> Doubles:
        """Scores to order by [G, W], in units of their last decimal: the model's, or a stopgap from the last ones, or
        the retrieval's."""
        places, width = self._sets.places, group.width
        units = in_units(runs(places.logits, width)[group.firsts])
        stopgap = self._sets.needs_model[group.numbers]
        if stopgap.any():
            firsts, last, price = group.firsts[stopgap], units[stopgap] / UNIT, self._rows.price[slots[stopgap]]
            price_scored = runs(places.price_scored, width)[firsts]
            corrected = degraded_scores(last, price, price_scored, bundle.price_weight)
            retrieval = runs(places.retrieval, width)[firsts]
            units[stopgap] = in_units(np.where(np.isnan(corrected), retrieval, corrected))
        return units

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

    def _ages(self, times: Numbers, padding: Flags | None, log_clock: int | None) -> tuple[Numbers, Numbers]:
        """Of the candidates' rows, i64[V, G] both. `times` [V, G, W], 0 where there is no row."""
        if log_clock is None:
            unknown = np.full(times.shape[:2], -1, np.int64)
            return unknown, unknown
        if padding is not None:
            times[:, padding] = 0
        newest, first = times.max(axis=2), times.min(axis=2)
        if not first.all():
            first = np.where(times > 0, times, _NEVER).min(axis=2)
        known = newest > 0
        return (
            np.where(known, np.maximum(log_clock - newest, 0), -1),
            np.where(known, np.maximum(log_clock - first, 0), -1),
        )
