"""A whole engine without its parts: the real sides on a log in a list, a fake Redis and a fake scorer.

Only Faust and Kafka's group protocol are missing: each process drains its partitions as `streams.transport` does, and
the simulation says who owns them, when a process dies, and when its successor comes before it is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from feature_repo.events import Bundle, Heartbeat
from feature_repo.row_store import Space
from feature_repo.views import (
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    PRODUCT_CONTENT,
    USER_BEHAVIOR,
    View,
)
from serving.preprocess import MediaLimits
from streams import records
from streams.content_side import ContentSide
from streams.emitting import Emitter, OnWritten, Outbound
from streams.fetching import Message
from streams.folding import BehaviorFolding, CatalogFolding, ContentFolding, UserFolding
from streams.freshness import Freshness
from streams.media import MediaStore
from streams.oracle.replaying import INPUTS, Replay
from streams.oracle.replaying import Message as OracleMessage
from streams.owning import Bounds, Ownership
from streams.product_side import ProductSide
from streams.ranking_side import Doors as RankingDoors
from streams.ranking_side import RankingSide
from streams.records import BEHAVIOR, CATALOG, CONTENT, FEATURE_CHANGES, MODELS, RANKINGS, RESULT_SETS, Headers, Place
from streams.settings import Settings
from streams.tables import Published
from streams.transport import Batch
from streams.writing import Doors
from tests.streams.bench import HOUR
from tests.streams.fakes import REDIS_EPOCH_MS, FakeRedis, FakeRowStore, FakeScorer, Scope, loop_ms
from tests.streams.lists import BUNDLE

PARTITIONS = {
    CATALOG: 2,
    BEHAVIOR: 2,
    RESULT_SETS: 1,
    MODELS: 1,
    CONTENT: 1,
    records.USER_BEHAVIOR: 1,
    FEATURE_CHANGES: 1,
    RANKINGS: 1,
    records.DEAD_LETTER: 1,
}
IDLE_S = 0.2
POLL_S = 0.05
FLUSH_S = 0.5
LOOK_BACK_MS = 180_000
SETTINGS = Settings()


def space_of(view: View) -> Space:
    return Space("cluster", view.topic, view.name)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the log. `written_ms` is when it was written by the loop's clock."""

    key: bytes | None
    value: bytes | None
    kafka_time: int
    headers: Headers
    written_ms: int


@dataclass(slots=True)
class Log:
    """Every topic, for ever. `time` is what brokers stamp records with (ms UTC)."""

    time: int = HOUR
    places: dict[Place, list[Entry]] = field(
        default_factory=lambda: {(topic, p): [] for topic, count in PARTITIONS.items() for p in range(count)}
    )

    def append(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int | None, headers: Headers = ()
    ) -> None:
        if partition is None:
            partition = 0 if key is None else records.partition_for(key.decode(), PARTITIONS[topic])
        self.places[topic, partition].append(Entry(key, value, self.time, headers, loop_ms()))

    def replay(self) -> Replay:
        """The oracle's view of it, in order of time."""
        found = Replay(PARTITIONS)
        inputs = [
            OracleMessage(topic, partition, offset, entry.kafka_time, entry.key, entry.value)
            for (topic, partition), entries in self.places.items()
            for offset, entry in enumerate(entries)
            if topic in INPUTS
        ]
        for message in sorted(inputs, key=lambda message: (message.kafka_time, message.partition, message.offset)):
            found.take(message)
        return found


@dataclass(slots=True)
class LogSender:
    """A producer of one process; what it hands over lies on the log at once and is acknowledged a little later."""

    log: Log
    dead: bool = False

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[object]:
        if self.dead:
            await asyncio.Event().wait()
        self.log.append(topic, value, key, partition, headers)
        return asyncio.ensure_future(asyncio.sleep(0.002))

    async def send_many(
        self, topic: str, partition: int, messages: Sequence[Outbound], on_written: OnWritten | None = None
    ) -> Awaitable[object]:
        if self.dead:
            await asyncio.Event().wait()
        offset = len(self.log.places[topic, partition])
        for message in messages:
            self.log.append(topic, message.value, message.key, partition, message.headers)
        return asyncio.ensure_future(self._acknowledge(offset, len(messages), on_written))

    async def _acknowledge(self, offset: int, count: int, on_written: OnWritten | None) -> None:
        await asyncio.sleep(0.002)
        if on_written is not None and not self.dead:
            on_written(offset, count)


class Process:
    """What dies as a whole: its tasks, its sender, its connection to Redis."""

    def __init__(self, log: Log, redis: FakeRedis) -> None:
        self.log = log
        self.store = FakeRowStore(redis)
        self.sender = LogSender(log)
        self.seek_due = True
        self.epoch = 0
        self.crashes: list[BaseException] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def kill(self) -> None:
        """Nothing more is sent or written; what was handed over stays."""
        self.sender.dead = True
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.crashes.append(result)

    def rewind(self, why: str) -> None:
        self.seek_due = True

    def bounds(self, topics: Iterable[str]) -> dict[Place, Bounds]:
        places = [(topic, p) for topic in topics for p in range(PARTITIONS[topic])]
        # a predecessor that is not dead yet may move the marker past an end that was asked for before
        return {place: Bounds(0, len(self.log.places[place]), is_end_exact=False) for place in places}

    async def drain(
        self,
        handlers: Mapping[str, Callable[[Batch], Awaitable[None]]],
        resume: Callable[[], Awaitable[Mapping[Place, int]]],
    ) -> None:
        """The only reader: seeks where the owner says, at the top of its loop, and hands over one batch at a time."""
        positions: dict[Place, int] = {}
        while True:
            if self.seek_due:
                self.seek_due = False
                self.epoch += 1
                positions = dict(await resume())
                continue
            news = False
            for place, position in list(positions.items()):
                entries = self.log.places[place][position : position + 1 + (position + self.epoch) % 4]
                if self.seek_due or not entries:
                    continue
                news = True
                messages = [
                    Message(position + number, entry.key, entry.value, entry.kafka_time, entry.headers)
                    for number, entry in enumerate(entries)
                ]
                positions[place] = position + len(entries)
                await handlers[place[0]](Batch(*place, messages, self.epoch))
            if not news:
                await asyncio.sleep(IDLE_S)


class OwningProcess(Process):
    """A process whose rows are written by an ownership."""

    def __init__(self, log: Log, redis: FakeRedis, folded: Mapping[str, Any]) -> None:
        super().__init__(log, redis)
        self.emitter = Emitter(self.sender, 0, lambda view, kafka_time: None)
        doors = Doors(
            self.store,
            self.emitter,
            self.sender,
            loop_ms,
            lambda view, partition, times: None,
            lambda view, rows: None,
        )
        views = {topic: (folding, space_of(folding.view)) for topic, folding in folded.items()}
        self.ownership = Ownership(
            views, doors, flush_s=FLUSH_S, accept_gap=False, on_rewind=self.rewind, on_crash=self.crashes.append
        )
        self._topics = tuple(folded)
        self.start(self.emitter.run())

    async def resume(self) -> Mapping[Place, int]:
        return await self.ownership.resume(self.bounds(self._topics))

    async def kill(self) -> None:
        self.sender.dead = True
        await self.ownership.drop()
        await super().kill()


class ProductProcess(OwningProcess):
    def __init__(self, log: Log, redis: FakeRedis) -> None:
        folded = {
            CATALOG: CatalogFolding(),
            BEHAVIOR: BehaviorFolding(),
            records.USER_BEHAVIOR: UserFolding(),
        }
        super().__init__(log, redis, folded)
        media = MediaStore("memory://simulation")
        side = ProductSide(SETTINGS, self.ownership, self.emitter, self.sender, media, Freshness(), PARTITIONS)
        handlers = {
            CATALOG: side.on_catalog,
            BEHAVIOR: side.on_behavior,
            records.USER_BEHAVIOR: side.on_user_behavior,
        }
        self.start(self.drain(handlers, self.resume))
        self.start(side.run_clock())


class ContentProcess(OwningProcess):
    def __init__(self, log: Log, redis: FakeRedis, scorer: FakeScorer) -> None:
        super().__init__(log, redis, {CONTENT: ContentFolding()})
        side = ContentSide(self.ownership, self.sender, MediaStore("memory://simulation"), scorer, 1, MediaLimits())
        self.start(self.drain({CONTENT: side.on_content}, self.resume))


class RankingProcess(Process):
    """Owns `result-sets`, unless a successor has taken it over."""

    def __init__(self, log: Log, redis: FakeRedis, scorer: FakeScorer, bundle: Bundle, generation: int) -> None:
        super().__init__(log, redis)
        self.owns = True
        self._generation = generation
        self._again = 0
        spaces = {view.name: space_of(view) for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT)}
        spaces[USER_BEHAVIOR.name] = space_of(USER_BEHAVIOR)
        doors = RankingDoors(
            self.store, scorer, self.sender, lambda: log.time, loop_ms, self.crashes.append, self.rewind
        )
        self.side = RankingSide(SETTINGS, doors, spaces, Freshness(), PARTITIONS)
        self.side.on_bundle(bundle)
        self.start(self.drain({RESULT_SETS: self.side.on_result_sets}, self._resume))
        self.start(self._follow_changes())
        self.start(self._follow_rankings())
        self.start(self.side.run_loading())
        self.start(self.side.run_ranking())
        self.start(self.side.run_publishing())
        self.start(self.side.run_probing())

    async def _resume(self) -> Mapping[Place, int]:
        bounds = self.bounds([RESULT_SETS]) if self.owns else {}
        offsets = await self.side.resume(bounds, self._generation)
        self._again += 1
        return offsets

    async def _follow_changes(self) -> None:
        entries = self.log.places[FEATURE_CHANGES, 0]
        since = loop_ms() - LOOK_BACK_MS
        position = sum(entry.written_ms < since for entry in entries)
        while True:
            for entry in entries[position:]:
                position += 1
                decoded = records.decode_changes(entry.value or b"")
                if isinstance(decoded, dict):
                    self.side.on_clock(decoded)
                else:
                    self.side.on_rows(*decoded)
            self.side.on_caught_up()
            await asyncio.sleep(POLL_S)

    async def _follow_rankings(self) -> None:
        entries = self.log.places[RANKINGS, 0]
        assignment, position = 0, 0
        while True:
            if assignment != self._again:
                assignment, position = self._again, 0
            position = self.side.passed(0, position)
            for entry in entries[position:]:
                position += 1
                key = (entry.key or b"").decode()
                self.side.on_published(Published(0, key, entry.value, entry.headers))
            if assignment:
                self.side.on_rankings_read(0)
            await asyncio.sleep(POLL_S)


class Simulation:
    """The shop's log, the engine's processes, and what may befall them."""

    def __init__(self, scope: Scope = "row") -> None:
        self.log = Log()
        self.redis = FakeRedis(lambda: REDIS_EPOCH_MS + loop_ms())
        self.scorer = FakeScorer(scope=scope)
        self.bundle = structs.replace(BUNDLE, scope=scope)
        self.snapshot: dict[bytes, Any] = {}
        self.crashes: list[BaseException] = []
        self._pending: list[asyncio.Task[None]] = []
        self._generation = 1
        self.log.append(MODELS, records.encode_record(self.bundle), b"default", 0)
        self.product = ProductProcess(self.log, self.redis)
        self.content = ContentProcess(self.log, self.redis, self.scorer)
        self.ranking = self._new_ranking()

    def _new_ranking(self) -> RankingProcess:
        return RankingProcess(self.log, self.redis, self.scorer, self.bundle, self._generation)

    async def _bury(self, process: Process) -> None:
        await process.kill()
        self.crashes += process.crashes

    async def replace(self, role: str, overlap_s: float = 0.0) -> None:
        """Another process takes over; the old one is dead before, or goes on for a while as a zombie."""
        old: Process = getattr(self, role)
        if not overlap_s:
            await self._bury(old)
        self._generation += 1
        match role:
            case "product":
                self.product = ProductProcess(self.log, self.redis)
            case "content":
                self.content = ContentProcess(self.log, self.redis, self.scorer)
            case "ranking":
                self.ranking.owns = False
                self.ranking = self._new_ranking()
        if overlap_s:
            self.later(overlap_s, self._bury(old))

    def later(self, delay_s: float, work: Coroutine[Any, Any, None]) -> None:
        """Go on, and do this when its time has come."""

        async def wait() -> None:
            await asyncio.sleep(delay_s)
            await work

        self._pending.append(asyncio.get_running_loop().create_task(wait()))

    def beat(self, minutes: int) -> None:
        """The log's clock moves on, and every partition of `behavior` hears of it."""
        self.log.time += minutes * 60_000
        beat = records.encode_record(Heartbeat(event_time=self.log.time))
        for partition in range(PARTITIONS[BEHAVIOR]):
            self.log.append(BEHAVIOR, beat, None, partition)

    async def stop(self) -> None:
        await asyncio.gather(*self._pending)
        for process in (self.product, self.content, self.ranking):
            await self._bury(process)
