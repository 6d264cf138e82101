"""Changed rows -> dirty sets -> score request -> rankings. Pure but for the scorer, which is passed in.

touch     a row that changed makes the sets that hold it dirty, at its position
take      dirty sets become one request of their changed rows; what gets dirty meanwhile goes into the next
apply     scores come back, orders are made, and a ranking is published where the order or a rounded score changed
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Bundle, ResultSet
from feature_repo.views import FAMILIARITY, PRODUCT_CONTENT, USER_BEHAVIOR, USER_DIM
from serving.requests import ScoreRequest, Scores
from streams.candidate_rows import CandidateRows, Effect
from streams.dirty import Dirty, Since
from streams.ordering import Flags
from streams.places import Numbers, runs
from streams.records import Cause, Change
from streams.reordering import LISTS_AT_ONCE, Group, Reordered, Reordering
from streams.result_sets import LiveSet, LiveSets, digest_of
from streams.standings import Standing, Standings
from streams.users import Users

#: rows of one request: bounds the time until a fresh change gets its turn
REQUEST_ROWS = 20_000
#: candidates of the sets of one request, scored or not: bounds the time that ordering and packing take
ORDERED_ROWS = 50_000

#: the scores of a request without rows
NO_SCORES = Scores(np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Part:
    """Sets of one width W that were taken: numbers [G], their registrations, first places, what is scored [G, W]."""

    numbers: Numbers
    serials: Numbers
    firsts: Numbers
    scored: Flags


@dataclass(frozen=True, slots=True)
class Work:
    """Dirty sets with the rows to score, and the request that holds those rows in this order.

    Places and prices are by row of the request, causes and their times i64[G, 2] (`Since`) by set.
    """

    parts: tuple[Part, ...]
    request: ScoreRequest | None
    places: Numbers
    prices: Numbers
    causes: NDArray[np.object_]
    cause_times: Numbers
    bundle: Bundle
    #: whether some set asks what its scores are made of
    explain: bool
    #: what scoring these sets whole would have cost
    whole_rows: int


@dataclass(frozen=True, slots=True)
class Times:
    """Wall clock (ms UTC) and the log's clock (ms; None while a partition was not heard)."""

    now: int
    log: int | None


@dataclass(frozen=True, slots=True)
class Needs:
    """A set that was registered, and the rows that must be read before it can be ranked."""

    live: LiveSet
    products: list[str]
    user_id: str | None


class Reranker:
    """Live sets and what is dirty in them. Says which rankings to publish; never publishes."""

    def __init__(self) -> None:
        self.rows = CandidateRows()
        self.sets = LiveSets(self.rows)
        self.users = Users(self.rows)
        self.standings = Standings(self.sets)
        self.bundle: Bundle | None = None
        self._dirty = Dirty(self.sets)
        self._reordering = Reordering(self.sets, self.standings)

    # --- register --------------------------------------------------------------------------------------------------

    def register(self, registration: ResultSet, raw: bytes, partition: int) -> Needs | None:
        """Put a set in the place of the one of its id. None for the bytes that are registered already."""
        known = self.sets.by_id.get(registration.result_set_id)
        if known is not None:
            if known.digest == digest_of(raw):
                return None
            self._let_go(known)
        user_id = registration.user_id
        unread_user = user_id is not None and self.users.acquire(user_id)
        live, products = self.sets.register(registration, raw, partition)
        self.standings.fit()
        if known is not None and known.user_id is not None:
            self.users.release(known.user_id)
        return Needs(live, products, user_id if unread_user else None)

    def begin(self, live: LiveSet) -> None:
        """The rows of all candidates were read: the set is ranked for the first time, which no change caused."""
        self.sets.loaded[live.number] = True
        self._dirty.forget(live.number)
        self.touch_whole(live)

    def remove(self, result_set_id: str) -> bool:
        """Forget a set; False when there was none."""
        live = self.sets.by_id.get(result_set_id)
        if live is None:
            return False
        self._let_go(live)
        self.sets.remove(result_set_id)
        if live.user_id is not None:
            self.users.release(live.user_id)
        return True

    def _let_go(self, live: LiveSet) -> None:
        self.standings.keep(live)
        self._dirty.forget(live.number)

    def depends_on(self, change: Change) -> bool:
        """Whether some live set has the product as a candidate or in its user's history, or has the user."""
        return change.entity in (self.users if change.view == USER_BEHAVIOR.name else self.rows.slots)

    # --- touch -----------------------------------------------------------------------------------------------------

    def apply_change(self, change: Change, since: Since) -> None:
        """A row of a product or a user that some set depends on."""
        if change.view == USER_BEHAVIOR.name:
            self._apply_user(change, since)
            return
        slot = self.rows.slots.get(change.entity)
        if slot is None:
            return
        effect = self.rows.put(change.view, slot, change.blob)
        if effect is Effect.NONE:
            return
        cause = self._cause(change, slot)
        places = self.sets.holding(slot)
        if effect is Effect.SCORE:
            self._dirty.touch_rows(places, cause, since)
        else:
            self._dirty.touch(self.sets.places.sets[places].astype(np.int64), cause, since)
        if change.view == PRODUCT_CONTENT.name and effect is Effect.SCORE:
            for user_id in self.users.watching(slot):
                self._touch_user(user_id, cause, since)

    def _apply_user(self, change: Change, since: Since) -> None:
        if self.users.put(change.entity, change.blob):
            row = self.users.row(change.entity)
            cause = Cause(change.view, change.entity, row.version, row.event_time)
            self._touch_user(change.entity, cause, since)

    def _touch_user(self, user_id: str, cause: Cause, since: Since) -> None:
        self.users.forget_vector(user_id)
        self._dirty.touch_whole(self.sets.of_user(user_id), cause, since)

    def _cause(self, change: Change, slot: int) -> Cause:
        rows = self.rows
        return Cause(change.view, change.entity, rows.version(change.view, slot), rows.event_time(change.view, slot))

    def contest(self, result_set_id: str, theirs: Standing | None) -> None:
        """Another writer wrote `theirs` (None: a null) after what stands: the next ranking is published in any case.

        Kept with what stands, not with what is dirty, so that it outlives a set that is loaded or replaced meanwhile.
        """
        self.standings.contest(result_set_id, theirs)
        live = self.sets.by_id.get(result_set_id)
        if live is not None:
            self._dirty.touch(np.array([live.number]), None, Since())

    def touch_whole(self, live: LiveSet) -> None:
        """Score every row of the set anew."""
        self._dirty.touch_whole(np.array([live.number]), None, Since())

    def touch_all(self) -> None:
        """Score every set whole: another model is in force, or the model is back."""
        numbers = self.sets.numbers
        self.sets.needs_model[numbers] = True
        self._dirty.touch_whole(numbers, None, Since())

    def touch_stopgaps(self) -> None:
        """Score the sets whose newest scores are missing or a stopgap."""
        numbers = self.sets.numbers
        self._dirty.touch_whole(numbers[self.sets.needs_model[numbers]], None, Since())

    # --- take ------------------------------------------------------------------------------------------------------

    @property
    def is_dirty(self) -> bool:
        return bool(self._dirty)

    def without_query(self) -> list[LiveSet]:
        """Dirty sets whose query was not encoded yet."""
        numbers = self._dirty.waiting()
        found = numbers[self.sets.loaded[numbers] & ~self.sets.has_query_vector[numbers]]
        members = (self.sets.by_number[number] for number in found.tolist())
        return [live for live in members if live is not None]

    def take(self, *, encoded_only: bool = True) -> Work | None:
        """Dirty sets that can be ranked, up to REQUEST_ROWS rows to score and ORDERED_ROWS in all; the rest stays.

        A set whose query was not encoded yet waits, unless there is no model to wait for (`encoded_only` False).
        """
        bundle, sets = self.bundle, self.sets
        if bundle is None:
            return None
        numbers = self._dirty.waiting()
        can = sets.loaded[numbers]
        if encoded_only:
            can &= sets.has_query_vector[numbers]
        numbers = _until(numbers[can], sets.widths, ORDERED_ROWS)
        if not len(numbers):
            return None
        parts = tuple(self._parts(numbers, bundle))
        if sum(np.count_nonzero(part.scored) for part in parts) > REQUEST_ROWS:
            by_number = np.zeros(len(sets.serials), np.int64)
            for part in parts:
                by_number[part.numbers] = part.scored.sum(axis=1)
            parts = tuple(self._parts(_until(numbers, by_number, REQUEST_ROWS), bundle))
        return self._take(parts, bundle)

    def _parts(self, numbers: Numbers, bundle: Bundle) -> Iterator[Part]:
        """The sets by width, their order kept, LISTS_AT_ONCE at a time."""
        sets = self.sets
        widths = sets.widths[numbers]
        of_one = bool((widths == widths[0]).all())
        for width in (widths[:1] if of_one else np.unique(widths)).tolist():
            of_width = numbers if of_one else numbers[widths == width]
            for first in range(0, len(of_width), LISTS_AT_ONCE):
                some = of_width[first : first + LISTS_AT_ONCE]
                yield Part(some, sets.serials[some], sets.firsts[some], self._to_score(some, width, bundle))

    def _to_score(self, numbers: Numbers, width: int, bundle: Bundle) -> Flags:
        """Which candidates of sets of one width must be scored [G, W]."""
        sets = self.sets
        touched = runs(sets.places.touched, width)[sets.firsts[numbers]]
        whole = self._dirty.whole[numbers] | sets.needs_model[numbers]
        if bundle.scope == "list":
            whole |= touched.any(axis=1)
        if whole.any():
            touched[whole] = np.arange(width) < sets.counts[numbers[whole]][:, None]
        return touched

    def _take(self, parts: tuple[Part, ...], bundle: Bundle) -> Work:
        sets = self.sets
        numbers = np.concatenate([part.numbers for part in parts])
        scored = np.concatenate([_places(part) for part in parts])
        slots, owners = sets.places.slots[scored], sets.places.sets[scored]
        sets.places.touched[scored] = False
        causes, cause_times = self._dirty.take(numbers)
        return Work(
            parts,
            self._request(owners, scored, slots, bundle.click_rates) if len(scored) else None,
            scored,
            self.rows.price[slots],
            causes,
            cause_times,
            bundle,
            explain=bool(sets.explained[owners].any()),
            whole_rows=int(sets.counts[numbers].sum()),
        )

    def _request(
        self, owners: NDArray[np.int32], places: Numbers, slots: NDArray[np.int32], click_rates: Sequence[float]
    ) -> ScoreRequest:
        """Rows in the order of `places`; those of a set lie together."""
        is_first = np.ones(len(owners), bool)
        np.not_equal(owners[1:], owners[:-1], out=is_first[1:])
        set_index = is_first.cumsum(dtype=np.int32) - 1
        numbers = owners[is_first]
        user = np.zeros((len(numbers), USER_DIM), np.float32)
        numeric = self.rows.numeric[slots]
        for row in self.sets.has_user[numbers].nonzero()[0].tolist():
            live = self.sets.by_number[numbers[row]]
            assert live is not None
            assert live.user_id is not None
            user[row] = self.users.vector(live.user_id, click_rates)
            of_set = slice(*np.searchsorted(set_index, (row, row + 1)))
            numeric[of_set, FAMILIARITY] = self.users.familiarity(live.user_id, slots[of_set], click_rates)
        return ScoreRequest(
            query=self.sets.query_vectors[numbers],
            user=user,
            content=self.rows.content[slots],
            mask=self.rows.mask[slots],
            numeric=numeric,
            retrieval=self.sets.places.retrieval[places],
            set_index=set_index,
        )

    # --- apply -----------------------------------------------------------------------------------------------------

    def apply(self, work: Work, scores: Scores | None, times: Times) -> list[Reordered]:
        """Take the scores of a request in; the rankings that must be published. `scores` None: the model is away."""
        model_version = version_name(work.bundle)
        found = []
        row = member = 0
        for part in work.parts:
            rows = slice(row, row := row + int(np.count_nonzero(part.scored)))
            members = slice(member, member := member + len(part.numbers))
            alive = self.sets.serials[part.numbers] == part.serials
            if scores is not None:
                self._take_scores(part, alive, scores, rows, work, times.now)
            else:
                self.sets.needs_model[part.numbers[alive & part.scored.any(axis=1)]] = True
            causes, cause_times = work.causes[members], work.cause_times[members]
            group = Group(part.scored.shape[1], part.numbers, part.firsts, causes, cause_times)
            if not alive.all():
                group = group.of(alive)
            if len(group.numbers):
                reordered = self._reordering.reorder(group, work.bundle, model_version, times.log)
                if reordered is not None:
                    found.append(reordered)
        return found

    def _take_scores(self, part: Part, alive: Flags, scores: Scores, rows: slice, work: Work, now: int) -> None:
        """Scores of the sets that still are what they were when they were taken; `rows` are the part's."""
        sets, numbers = self.sets, part.numbers
        taken = part.scored & alive[:, None]
        kept = taken[part.scored]
        places = work.places[rows][kept]
        sets.places.logits[places] = scores.logit[rows][kept]
        sets.places.price_scored[places] = work.prices[rows][kept]
        counts = taken.sum(axis=1)
        some = numbers[counts > 0]
        sets.needs_model[some] &= counts[counts > 0] < sets.counts[some]
        sets.scored_at[some] = now
        if scores.contributions is None:
            return
        begins = rows.start + np.cumsum(part.scored.sum(axis=1)) - part.scored.sum(axis=1)
        for row in np.flatnonzero(alive & (counts > 0) & sets.explained[numbers]).tolist():
            live = sets.by_number[numbers[row]]
            assert live is not None
            news = scores.contributions[begins[row] : begins[row] + counts[row]]
            if live.contributions is None:
                live.contributions = np.zeros((int(sets.counts[live.number]), news.shape[1]), np.float32)
            live.contributions[np.flatnonzero(taken[row])] = news


def _places(part: Part) -> Numbers:
    """Of the candidates that are scored, set by set."""
    rows, positions = part.scored.nonzero()
    found: Numbers = part.firsts[rows] + positions
    return found


def version_name(bundle: Bundle) -> str:
    """How a ranking names its model: bundle, its version, the ranker's."""
    return f"{bundle.bundle}/{bundle.version}"


def _until(numbers: Numbers, sizes: NDArray[np.integer], limit: int) -> Numbers:
    """The first of the sets, at least one, until those before have reached the limit. `sizes` are by number."""
    own = sizes[numbers].astype(np.int64)
    return numbers[np.cumsum(own) - own < limit]
