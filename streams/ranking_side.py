"""The ranking side: result sets and changed rows -> rankings. What crosses Kafka and the store stands here; what a
ranking is stands in `streams.reranking`.

    result-sets ─► tables ─► register ─► rows from the store, then anything newer from the minute
    feature-changes ─► the minute ─► dirty sets ─► one request ─► Triton ─► rankings
    rankings ─► who else wrote here? then what should stand is published again
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from feature_repo.events import Bundle, ResultSet
from feature_repo.row import kafka_time_of
from feature_repo.row_store import RowStore, Space
from feature_repo.views import USER_BEHAVIOR, VIEW_BY_NAME
from serving.errors import ScorerUnavailable
from serving.requests import Scorer, Scores
from streams.candidate_rows import PRODUCT_VIEWS
from streams.dirty import Since
from streams.emitting import Sender
from streams.freshness import Freshness
from streams.loading import StoredRows
from streams.minute import Hashes, Minute
from streams.owning import Bounds
from streams.product_side import bury
from streams.publishing import Publishing
from streams.records import (
    COUNTER_MASK,
    EPOCH_BITS,
    RANKINGS,
    RESULT_SETS,
    Change,
    Place,
    decode_headers,
    entity_hash,
    partition_for,
)
from streams.repairing import RepairWalk
from streams.reranking import NO_SCORES, Reranker, Times, Work, version_name
from streams.result_sets import LiveSet
from streams.settings import Settings
from streams.tables import Published, Tables, standing_in
from streams.transport import Batch
from streams.validation import Decoded, decode

log = logging.getLogger(__name__)

PROBE_S = 0.5
#: sets that are registered at once: bounds how long a takeover keeps everything else waiting
LOAD_SETS = 500
#: rounds under way at once: one is scored while the one before is ordered, packed and handed over
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Doors:
    """What the ranking side needs of the world; clocks in ms."""

    store: RowStore
    scorer: Scorer
    sender: Sender
    now_ms: Callable[[], int]
    monotonic_ms: Callable[[], int]
    on_crash: Callable[[BaseException], None]
    on_reread: Callable[[str], None]


class RankingSide:
    """Owns the live sets of its partitions. `resume` begins anew; everything else is driven by what arrives."""

    def __init__(
        self,
        settings: Settings,
        doors: Doors,
        spaces: Mapping[str, Space],
        freshness: Freshness,
        partitions: Mapping[str, int],
    ) -> None:
        self._settings = settings
        self._doors = doors
        self._stored = StoredRows(doors.store, spaces, doors.monotonic_ms)
        self._freshness = freshness
        self._partitions = partitions
        self._publishing = Publishing(doors.sender, freshness, doors.now_ms, doors.monotonic_ms, doors.on_crash)
        #: the highest epoch this process has used: the next one is above it, whatever has arrived by then
        self._newest_epoch = 0
        self.minute = Minute()
        self._reranker = Reranker()
        self._bundle: Bundle | None = None
        self._tables: dict[int, Tables] = {}
        self._clocks: dict[int, int] = {}
        self._to_register: list[tuple[ResultSet, bytes, int]] = []
        self._model_is_away = False
        self._caught_up = False
        self._wake = asyncio.Event()
        self._to_load = asyncio.Event()

    # --- partitions ------------------------------------------------------------------------------------------------

    async def resume(self, bounds: Mapping[Place, Bounds], generation: int) -> dict[Place, int]:
        """Forget every set and read the tables of the assigned partitions from their start."""
        self.drop()
        self._publishing.begin()
        for (_, partition), bound in bounds.items():
            self._tables[partition] = Tables(
                partition, bound.end, bound.committed, generation, bound.start, highest_epoch=self._newest_epoch
            )
        return {place: bound.start for place, bound in bounds.items()}

    def drop(self) -> None:
        """Nothing is owned any more; what is in flight is not published."""
        self._tables = {}
        self._to_register = []
        self._publishing.drop()
        self._reranker = Reranker()
        self._reranker.bundle = self._bundle

    @property
    def owned(self) -> tuple[int, ...]:
        return tuple(self._tables)

    @property
    def writer(self) -> bytes:
        """What this process calls itself in the records of `rankings`."""
        return self._publishing.writer

    def committed(self) -> dict[Place, int]:
        return {(RESULT_SETS, tables.partition): tables.read_to for tables in self._tables.values() if tables.active}

    # --- result-sets -----------------------------------------------------------------------------------------------

    async def on_result_sets(self, batch: Batch) -> None:
        """Registrations, in order. Until the tables are read, only the last record of a key counts."""
        tables = self._tables.get(batch.partition)
        if tables is None:
            return
        for message in batch.messages:
            decoded = decode(
                batch.topic,
                message.key,
                message.value,
                kafka_time=message.kafka_time,
                partition=batch.partition,
                partitions=self._partitions[RESULT_SETS],
                limits=self._settings.limits,
            )
            if message.offset >= tables.committed:
                self._freshness.count_in(batch.topic, decoded)
                for ack in await bury(self._doors.sender, batch, message, decoded):
                    await ack
                if self._tables.get(batch.partition) is not tables:
                    return  # the partition went, or began anew, meanwhile
            if message.value is None and message.key is not None:
                key = message.key.decode(errors="replace")
                # a null in another partition than the set's closes nothing: two owners would disagree
                if partition_for(key, self._partitions[RESULT_SETS]) == batch.partition:
                    self._close(tables, key)
            for _, record in decoded.records:
                if isinstance(record, ResultSet):
                    self._open(tables, record, message.value or b"")
        tables.read_to = batch.next_offset
        self._activate(tables)

    def _open(self, tables: Tables, registration: ResultSet, raw: bytes) -> None:
        if tables.active:
            self._to_register.append((registration, raw, tables.partition))
            self._to_load.set()
        else:
            tables.registrations[registration.result_set_id] = (registration, raw)

    def _close(self, tables: Tables, result_set_id: str) -> None:
        if not tables.active:
            tables.registrations[result_set_id] = None
            return
        self._to_register = [entry for entry in self._to_register if entry[0].result_set_id != result_set_id]
        self._reranker.remove(result_set_id)
        self._withdraw(tables, result_set_id)

    # --- rankings read back ----------------------------------------------------------------------------------------

    def on_published(self, record: Published) -> None:
        """Someone's record: part of the table at first; later, another writer's calls for what should stand."""
        tables = self._tables.get(record.partition)
        if tables is None:
            return
        writer, version = decode_headers(record.headers)
        epoch = version >> EPOCH_BITS
        tables.highest_epoch = max(tables.highest_epoch, epoch)
        if not tables.active:
            tables.rankings[record.result_set_id] = record.value
        elif writer != self.writer:
            if epoch > tables.epoch:
                self._doors.on_reread(f"{RANKINGS}[{record.partition}] has epoch {epoch}, this owner {tables.epoch}")
            else:
                if epoch == tables.epoch:
                    # neither saw the other when it chose: the version goes on above both
                    tables.counter = max(tables.counter, version & COUNTER_MASK)
                self._overwrite(tables, record)

    def _overwrite(self, tables: Tables, record: Published) -> None:
        theirs = None if record.value is None else standing_in(record.result_set_id, record.value)
        if record.result_set_id in self._reranker.sets.by_id or self._is_awaited(record.result_set_id):
            self._reranker.contest(record.result_set_id, theirs)
            self._wake.set()
        elif theirs is not None:
            self._reranker.standings.put(record.result_set_id, theirs)
            self._withdraw(tables, record.result_set_id)

    def _is_awaited(self, result_set_id: str) -> bool:
        return any(registration.result_set_id == result_set_id for registration, _, _ in self._to_register)

    def passed(self, partition: int, offset: int) -> int:
        """The first offset from this one on of a record of `rankings` that may be another writer's."""
        return self._publishing.passed(partition, offset)

    def on_rankings_read(self, partition: int) -> None:
        """`rankings` of the partition was read to its end."""
        tables = self._tables.get(partition)
        if tables is not None and not tables.rankings_read:
            tables.rankings_read = True
            self._activate(tables)

    def _activate(self, tables: Tables) -> None:
        """Both tables are read: this worker now speaks for the partition."""
        if tables.active or not tables.are_read:
            return
        tables.active = True
        tables.epoch = max(tables.generation, tables.highest_epoch + 1)
        self._newest_epoch = max(self._newest_epoch, tables.epoch)
        for result_set_id, value in tables.rankings.items():
            if value is not None:
                self._reranker.standings.put(result_set_id, standing_in(result_set_id, value))
        for result_set_id in tables.rankings:
            if tables.registrations.get(result_set_id) is None:
                self._withdraw(tables, result_set_id)
        for entry in tables.registrations.values():
            if entry is not None:
                self._to_register.append((*entry, tables.partition))
        log.info("rankings[%d]: %d registrations, epoch %d", tables.partition, len(tables.registrations), tables.epoch)
        tables.registrations, tables.rankings = {}, {}
        self._to_load.set()

    # --- feature-changes -------------------------------------------------------------------------------------------

    def on_clock(self, times: Mapping[int, int]) -> None:
        """Heartbeats of `behavior` by partition; sets expire by the least of them."""
        for partition, time in times.items():
            self._clocks[partition] = max(time, self._clocks.get(partition, 0))
        self._expire()
        self._wake.set()

    def on_rows(self, hashes: Hashes, rows: Sequence[bytes], heard: int = 0) -> None:
        """Rows that changed, of one message or of some: remembered for a minute, decoded only if a live set depends on
        them. `heard`: when they came to this process (monotonic ms), for what re-ranking takes."""
        for change in self.minute.add(self._doors.monotonic_ms(), hashes, rows):
            self._apply(change, heard)

    def on_caught_up(self) -> None:
        """The last minutes of `feature-changes` were read: from now on the minute covers what a read cannot see."""
        self._caught_up = True
        self._to_load.set()

    def _apply(self, change: Change, heard: int = 0) -> None:
        if not self._reranker.depends_on(change):
            self.minute.unwatch([_hash(VIEW_BY_NAME[change.view].entity, change.entity)])
            return
        self._reranker.apply_change(change, Since(kafka_time_of(change.blob), heard))
        if self._reranker.users.unread:
            self._to_load.set()
        if self._reranker.is_dirty:
            self._wake.set()

    @property
    def clock(self) -> int | None:
        """The log's clock (ms): the least of all partitions' heartbeats; None before each was heard."""
        everyone = len(self._clocks) == self._partitions["behavior"]
        return min(self._clocks.values()) if everyone else None

    def _expire(self) -> None:
        clock = self.clock
        if clock is None:
            return
        for result_set_id in self._reranker.sets.expired(clock):
            partition = self._reranker.sets.by_id[result_set_id].partition
            self._reranker.remove(result_set_id)
            self._withdraw(self._tables[partition], result_set_id)

    # --- models ----------------------------------------------------------------------------------------------------

    def on_bundle(self, bundle: Bundle) -> None:
        """Another bundle is in force: every set is scored whole by it."""
        name = version_name(bundle)
        if self._bundle is not None and any(
            bundle.models[model] != self._bundle.models[model] for model in ("product_encoder", "query_encoder")
        ):
            raise ValueError(f"bundle {name}: another encoder, rows must be read anew")
        self._bundle = self._reranker.bundle = bundle
        self._reranker.touch_all()
        self._wake.set()
        self._to_load.set()

    async def on_rejected_bundle(self, batch: Batch, decoded: Decoded) -> None:
        """A record of `models` that is not valid; every ranking worker reads it, one of them buries it."""
        if 0 in self._tables:
            self._freshness.count_in(batch.topic, decoded)
            for ack in await bury(self._doors.sender, batch, batch.messages[0], decoded):
                await ack

    # --- load ------------------------------------------------------------------------------------------------------

    async def run_loading(self) -> None:
        """Read the rows of new sets and of users' histories, for ever, one bulk at a time."""
        while True:
            await self._to_load.wait()
            self._to_load.clear()
            # the bundle says which rows of product_content are in force
            while self._caught_up and self._bundle is not None and (self._to_register or self._reranker.users.unread):
                await self._load_some()

    async def _load_some(self) -> None:
        reranker, pending = self._reranker, self._to_register[:LOAD_SETS]
        self._to_register = self._to_register[LOAD_SETS:]
        fresh: list[LiveSet] = []
        products: set[str] = set()
        users: set[str] = set()
        for registration, raw, partition in pending:
            needs = reranker.register(registration, raw, partition)
            if needs is not None:
                fresh.append(needs.live)
                products.update(needs.products)
                users.update(() if needs.user_id is None else (needs.user_id,))
        self._watch(users, products)
        await self._read(reranker, ((USER_BEHAVIOR.name, users),))
        while products or reranker.users.unread:
            products |= reranker.users.unread
            reranker.users.unread = set()
            self._watch((), products)
            await self._read(reranker, [(view.name, products) for view in PRODUCT_VIEWS])
            products = set()
        for live in fresh:
            if reranker.sets.by_id.get(live.id) is live:
                reranker.begin(live)
        self._expire()
        self._wake.set()

    def _watch(self, users: Iterable[str], products: Iterable[str]) -> None:
        """From now on changes of these entities are applied; those of the last minute are applied at once."""
        hashes = {_hash("user", user) for user in users} | {_hash("product", product) for product in products}
        for change in self.minute.watch(hashes):
            self._apply(change)

    async def _read(self, reranker: Reranker, wanted: Iterable[tuple[str, Iterable[str]]]) -> None:
        for view, entities in wanted:
            for entity, blob in await self._stored.read(view, entities):
                reranker.apply_change(Change(view, entity, blob), Since())

    def repair_walk(self) -> RepairWalk:
        """The walk that compares the live sets with the store."""
        return RepairWalk(
            lambda: self._reranker,
            self._stored.read_now,
            self._apply,
            self._freshness.count_repairs,
            self._doors.monotonic_ms,
        )

    # --- rank ------------------------------------------------------------------------------------------------------

    async def run_ranking(self) -> None:
        """Score what is dirty and publish what moved, for ever: while the model scores one round, the one before is
        published. What gets dirty meanwhile waits for the next round."""
        slots = asyncio.Semaphore(ROUNDS)
        before: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as rounds:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._may_publish() and self._reranker.is_dirty:
                    await slots.acquire()
                    await self._publishing.handed_over()
                    work = await self._take()
                    if work is None:
                        slots.release()
                        break
                    before = rounds.create_task(self._rank(self._reranker, work, before))
                    before.add_done_callback(lambda _: slots.release())

    def _may_publish(self) -> bool:
        return self.clock is not None and self._bundle is not None and self._caught_up

    async def _take(self) -> Work | None:
        if not self._model_is_away:
            await self._encode_queries(self._reranker)
        return self._reranker.take(encoded_only=not self._model_is_away)

    async def _rank(self, reranker: Reranker, work: Work, before: "asyncio.Task[None] | None") -> None:
        """One round: its scores may come early, its rankings are made once those of the round before were sent."""
        scores = await self._scores(work)
        if before is not None:
            await before
        if scores is None:
            # said again when the model is back by now: whatever is a stopgap is redone once it was seen to be there
            self._model_is_away = True
        if reranker is not self._reranker:
            return  # the partitions went while the call was in flight: this is not ours to publish any more
        for reordered in reranker.apply(work, scores, Times(self._doors.now_ms(), self.clock)):
            self._publishing.publish(reordered, reranker.rows.packed_ids, self._tables)
        await self._publishing.handed_over()

    async def _scores(self, work: Work) -> Scores | None:
        """The scores of a round; None when the model is away."""
        if work.request is None:
            return NO_SCORES
        if self._model_is_away:
            return None
        try:
            scores = await self._doors.scorer.score(work.request, work.bundle.models["ranker"], explain=work.explain)
        except ScorerUnavailable as error:
            log.warning("degraded: the model is away: %s", error)
            return None
        self._freshness.count_scored(work.request.rows, work.whole_rows)
        return scores

    async def _encode_queries(self, reranker: Reranker) -> None:
        waiting = reranker.without_query()
        if not waiting or self._bundle is None:
            return
        texts = [live.query or "" for live in waiting]
        try:
            vectors = await self._doors.scorer.encode_queries(texts, self._bundle.models["query_encoder"])
        except ScorerUnavailable as error:
            log.warning("degraded: the model is away: %s", error)
            self._model_is_away = True
            return
        for live, vector in zip(waiting, vectors, strict=True):
            if reranker.sets.by_id.get(live.id) is live:
                reranker.sets.take_query_vector(live, vector)

    async def run_probing(self) -> None:
        """While the model is away, ask for it; when it is back, redo what it missed."""
        while True:
            await asyncio.sleep(PROBE_S)
            if self._model_is_away and await self._doors.scorer.ready():
                log.warning("the model is back")
                self._model_is_away = False
                self._reranker.touch_stopgaps()
                self._wake.set()

    # --- publish ---------------------------------------------------------------------------------------------------

    async def run_publishing(self) -> None:
        """Send what is to be published, for ever."""
        await self._publishing.run()

    def _withdraw(self, tables: Tables, result_set_id: str) -> None:
        """Publish a null if something stands there."""
        if result_set_id in self._reranker.standings:
            self._reranker.standings.forget(result_set_id)
            self._publishing.withdraw(tables, result_set_id)


def _hash(kind: str, entity: str) -> int:
    """The hash of an entity as it is read from `feature-changes`."""
    return int.from_bytes(entity_hash(kind, entity), "little")
