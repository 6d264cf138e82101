"""Changed rows -> dirty sets -> score request -> rankings. Pure but for the scorer, which is passed in.

touch     a row that changed makes the sets that hold it dirty, at its position
take      all dirty sets become one request of their changed rows; what gets dirty meanwhile goes into the next
apply     scores come back, orders are made, and a ranking is published where the order or a rounded score changed
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Bundle, ResultSet
from feature_repo.views import EMBEDDING_DIM, PRODUCT_CONTENT, USER_BEHAVIOR, USER_DIM
from serving.ranking import degraded_scores, order, rounded
from serving.requests import ScoreRequest, Scores
from streams.candidate_rows import PRODUCT_VIEWS, CandidateRows, Effect
from streams.records import Cause, Change, Ranking
from streams.result_sets import Dirty, LiveSet, LiveSets, Standing
from streams.users import Users

#: context field of a registration that asks for contributions
EXPLAIN = "explain"
#: rows of one request: bounds the time until a fresh change gets its turn
REQUEST_ROWS = 20_000

Positions = NDArray[np.int64]
_NEVER = np.iinfo(np.int64).max
#: the scores of a request without rows
NO_SCORES = Scores(np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Work:
    """Dirty sets with the positions to score, and the request that holds those rows in this order."""

    items: tuple[tuple[LiveSet, Positions, Dirty], ...]
    request: ScoreRequest | None
    prices: NDArray[np.int64]
    bundle: Bundle

    @property
    def explain(self) -> bool:
        """Whether some set asks what its scores are made of."""
        return any(is_explained(live) for live, positions, _ in self.items if len(positions))

    @property
    def whole_rows(self) -> int:
        """What scoring these sets whole would have cost."""
        return sum(len(live.slots) for live, _, _ in self.items)


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
        self.bundle: Bundle | None = None
        #: newest published ranking by set id; None stands for a null, a missing key for no record
        self.standing: dict[str, Standing | None] = {}
        self._dirty: dict[str, Dirty] = {}

    # --- register --------------------------------------------------------------------------------------------------

    def register(self, registration: ResultSet, raw: bytes, partition: int) -> Needs | None:
        """Put a set in the place of the one of its id. None for the bytes that are registered already."""
        known = self.sets.by_id.get(registration.result_set_id)
        if known is not None and known.raw == raw:
            return None
        user_id = registration.user_id
        unread_user = user_id is not None and self.users.acquire(user_id)
        live, products = self.sets.register(registration, raw, partition)
        if known is not None and known.registration.user_id is not None:
            self.users.release(known.registration.user_id)
        return Needs(live, products, user_id if unread_user else None)

    def begin(self, live: LiveSet) -> None:
        """The rows of all candidates were read: the set is ranked for the first time, which no change caused."""
        live.loaded = True
        self._dirty[live.id] = Dirty(positions=None)

    def remove(self, result_set_id: str) -> bool:
        """Forget a set; False when there was none."""
        live = self.sets.remove(result_set_id)
        if live is not None and live.registration.user_id is not None:
            self.users.release(live.registration.user_id)
        self._dirty.pop(result_set_id, None)
        return live is not None

    def depends_on(self, change: Change) -> bool:
        """Whether some live set has the product as a candidate or in its user's history, or has the user."""
        return change.entity in (self.users if change.view == USER_BEHAVIOR.name else self.rows.slots)

    # --- touch -----------------------------------------------------------------------------------------------------

    def apply_change(self, change: Change, kafka_time: int) -> None:
        """A row of a product or a user that some set depends on."""
        if change.view == USER_BEHAVIOR.name:
            self._apply_user(change, kafka_time)
            return
        slot = self.rows.slots.get(change.entity)
        if slot is None:
            return
        effect = self.rows.put(change.view, slot, change.blob)
        if effect is Effect.NONE:
            return
        cause = self._cause(change, slot)
        for result_set_id, position in self.sets.holding(slot).items():
            self._touch(result_set_id, (position,) if effect is Effect.SCORE else (), cause, kafka_time)
        if change.view == PRODUCT_CONTENT.name and effect is Effect.SCORE:
            for user_id in self.users.watching(slot):
                self._touch_user(user_id, cause, kafka_time)

    def _apply_user(self, change: Change, kafka_time: int) -> None:
        if self.users.put(change.entity, change.blob):
            row = self.users.row(change.entity)
            cause = Cause(change.view, change.entity, row.version, row.event_time)
            self._touch_user(change.entity, cause, kafka_time)

    def _touch_user(self, user_id: str, cause: Cause, kafka_time: int) -> None:
        self.users.forget_vector(user_id)
        for result_set_id in self.sets.of_user(user_id):
            self.touch_whole(result_set_id, cause, kafka_time)

    def _cause(self, change: Change, slot: int) -> Cause:
        place = [view.name for view in PRODUCT_VIEWS].index(change.view)
        version, event_time = self.rows.versions[place, slot], self.rows.event_times[place, slot]
        return Cause(change.view, change.entity, int(version), int(event_time))

    def _touch(self, result_set_id: str, positions: Iterable[int], cause: Cause | None, kafka_time: int) -> None:
        dirty = self._dirty.get(result_set_id)
        if dirty is None:
            dirty = self._dirty[result_set_id] = Dirty(cause=cause, cause_kafka_time=kafka_time)
        dirty.add(positions)

    def contest(self, result_set_id: str, theirs: Standing | None) -> None:
        """Another writer wrote `theirs` (None: a null) after what stands: the next ranking is published in any case.

        Kept with what stands, not with what is dirty, so that it outlives a set that is loaded or replaced meanwhile.
        """
        before = self.standing.get(result_set_id) or theirs
        if before is not None:
            self.standing[result_set_id] = replace(before, contested=True)
        if result_set_id in self.sets.by_id:
            self._touch(result_set_id, (), None, 0)

    def touch_whole(self, result_set_id: str, cause: Cause | None = None, kafka_time: int = 0) -> None:
        """Score every row of the set anew."""
        self._touch(result_set_id, (), cause, kafka_time)
        self._dirty[result_set_id].positions = None

    def touch_all(self) -> None:
        """Score every set whole: another model is in force, or the model is back."""
        for live in self.sets:
            live.needs_model = True
            self.touch_whole(live.id)

    def touch_stopgaps(self) -> None:
        """Score the sets whose newest scores are missing or a stopgap."""
        for live in self.sets:
            if live.needs_model:
                self.touch_whole(live.id)

    # --- take ------------------------------------------------------------------------------------------------------

    @property
    def is_dirty(self) -> bool:
        return bool(self._dirty)

    def without_query(self) -> list[LiveSet]:
        """Dirty sets whose query was not encoded yet."""
        found = (self.sets.by_id.get(result_set_id) for result_set_id in self._dirty)
        return [live for live in found if live is not None and live.loaded and live.query_vector is None]

    def take(self, *, encoded_only: bool = True) -> Work | None:
        """Dirty sets that can be ranked, up to REQUEST_ROWS rows; the rest stays dirty.

        A set whose query was not encoded yet waits, unless there is no model to wait for (`encoded_only` False).
        """
        if self.bundle is None:
            return None
        items: list[tuple[LiveSet, Positions, Dirty]] = []
        rows = 0
        for result_set_id, dirty in list(self._dirty.items()):
            live = self.sets.by_id.get(result_set_id)
            if live is None:
                del self._dirty[result_set_id]
            elif live.loaded and rows < REQUEST_ROWS and not (encoded_only and live.query_vector is None):
                positions = _positions(live, dirty)
                items.append((live, positions, dirty))
                rows += len(positions)
                del self._dirty[result_set_id]
        if not items:
            return None
        scored = [(live, positions) for live, positions, _ in items if len(positions)]
        slots = _slots(items)
        return Work(tuple(items), self._request(scored, slots), self.rows.price[slots], self.bundle)

    def _request(self, scored: Sequence[tuple[LiveSet, Positions]], slots: Positions) -> ScoreRequest | None:
        if not scored:
            return None
        nobody = np.zeros(USER_DIM, np.float32)
        unasked = np.zeros(EMBEDDING_DIM, np.float32)
        query = [unasked if live.query_vector is None else live.query_vector for live, _ in scored]
        user = [
            nobody if live.registration.user_id is None else self.users.vector(live.registration.user_id)
            for live, _ in scored
        ]
        counts = [len(positions) for _, positions in scored]
        return ScoreRequest(
            query=np.stack(query),
            user=np.stack(user),
            content=self.rows.content[slots],
            mask=self.rows.mask[slots],
            numeric=self.rows.numeric[slots],
            retrieval=np.concatenate([live.retrieval[positions] for live, positions in scored]),
            set_index=np.repeat(np.arange(len(scored), dtype=np.int32), counts),
        )

    # --- apply -----------------------------------------------------------------------------------------------------

    def apply(self, work: Work, scores: Scores | None, times: Times) -> list[tuple[LiveSet, Ranking]]:
        """Take the scores of a request in; the rankings that must be published. `scores` None: the model is away."""
        start = 0
        rankings = []
        new = None if scores is None else rounded(scores.logit)
        for live, positions, dirty in work.items:
            end = start + len(positions)
            if self.sets.by_id.get(live.id) is live:
                if scores is not None and new is not None:
                    _take_scores(live, positions, new[start:end], work.prices[start:end], times)
                    if scores.contributions is not None and is_explained(live):
                        _take_contributions(live, positions, scores.contributions[start:end])
                elif len(positions):
                    live.needs_model = True
                ranking = self._ranking(live, dirty, work.bundle, times)
                if ranking is not None:
                    rankings.append((live, ranking))
            start = end
        return rankings

    def _ranking(self, live: LiveSet, dirty: Dirty, bundle: Bundle, times: Times) -> Ranking | None:
        rows = self.rows
        scores = self._scores(live, bundle)
        ranked = order(scores, rows.stock[live.slots])
        ranked = ranked[~rows.delisted[live.slots[ranked]]]
        published = scores[ranked].astype(np.float32)
        model_version = version_name(bundle)
        before = self.standing.get(live.id)
        earlier, live.ranked = _earlier(live, before), ranked
        if (
            before is not None
            and not before.contested
            and earlier is not None
            and np.array_equal(earlier, ranked)
            and np.array_equal(before.scores, published)
            and before.model_version == model_version
            and before.degraded == live.needs_model
        ):
            return None
        ids = tuple(live.ids[ranked].tolist())
        self.standing[live.id] = Standing(ids, published, model_version, live.needs_model)
        return Ranking(
            result_set_id=live.id,
            version=0,
            product_ids=ids,
            scores=published,
            previous_ranks=_previous_ranks(earlier, len(live.slots))[ranked],
            contributions=live.contributions[ranked] if live.contributions is not None else None,
            model_version=model_version,
            caused_by=dirty.cause,
            feature_age_ms=self._ages(live, times),
            scored_at=live.scored_at,
            published_at=times.now,
            degraded=live.needs_model,
            cause_kafka_time=dirty.cause_kafka_time,
        )

    def _scores(self, live: LiveSet, bundle: Bundle) -> NDArray[np.float64]:
        """Scores to order by: the model's, or a stopgap from the last ones, or the retrieval's."""
        if not live.needs_model:
            return live.scores
        stopgap = degraded_scores(live.scores, self.rows.price[live.slots], live.price_scored, bundle.price_weight)
        return np.where(np.isnan(stopgap), rounded(live.retrieval), stopgap)

    def _ages(self, live: LiveSet, times: Times) -> dict[str, tuple[int, int]]:
        """Youngest and oldest age of the candidates' rows by view, by the log's clock; missing rows have none."""
        if times.log is None:
            return {}
        found = self.rows.event_times[:, live.slots]
        newest = found.max(axis=1).tolist()
        oldest = np.where(found > 0, found, _NEVER).min(axis=1).tolist()
        return {
            view.name: (max(0, times.log - newest[place]), max(0, times.log - oldest[place]))
            for place, view in enumerate(PRODUCT_VIEWS)
            if newest[place] > 0
        }


def version_name(bundle: Bundle) -> str:
    """How a ranking names its model: bundle, its version, the ranker's."""
    return f"{bundle.bundle}/{bundle.version}"


def standing_of(ranking: Ranking) -> Standing:
    """What a published ranking leaves standing."""
    return Standing(ranking.product_ids, ranking.scores, ranking.model_version, ranking.degraded)


def is_explained(live: LiveSet) -> bool:
    """Whether the registration asked for contributions."""
    return bool((live.registration.context or {}).get(EXPLAIN))


def _take_scores(
    live: LiveSet, positions: Positions, scores: NDArray[np.float64], prices: NDArray[np.int64], times: Times
) -> None:
    if not len(positions):
        return
    live.scores[positions] = scores
    live.price_scored[positions] = prices
    if live.needs_model:
        live.needs_model = len(positions) < len(live.slots)
    live.scored_at = times.now


def _take_contributions(live: LiveSet, positions: Positions, contributions: NDArray[np.float32]) -> None:
    if live.contributions is None:
        live.contributions = np.zeros((len(live.slots), contributions.shape[1]), np.float32)
    live.contributions[positions] = contributions


def _earlier(live: LiveSet, before: Standing | None) -> Positions | None:
    """Positions in order of rank of what stands, -1 for products that are no candidates; None without one."""
    if before is None or live.ranked is not None:
        return None if before is None else live.ranked
    positions = {product_id: position for position, product_id in enumerate(live.ids.tolist())}
    return np.array([positions.get(product_id, -1) for product_id in before.product_ids], np.int64)


def _previous_ranks(earlier: Positions | None, candidates: int) -> NDArray[np.int16]:
    """Rank by position in the ranking before, -1 for what was not in it: i16[candidates]."""
    ranks = np.full(candidates + 1, -1, np.int16)  # the last place takes products that are no candidates any more
    if earlier is not None:
        ranks[earlier] = np.arange(len(earlier))
    return ranks[:candidates]


def _positions(live: LiveSet, dirty: Dirty) -> Positions:
    if dirty.positions is None or live.needs_model:
        return np.arange(len(live.slots))
    return np.array(sorted(dirty.positions), np.int64)


def _slots(items: Iterable[tuple[LiveSet, Positions, Dirty]]) -> Positions:
    parts = [live.slots[positions] for live, positions, _ in items]
    return np.concatenate(parts).astype(np.int64)
