"""A ranking side on a bench: the log of `rankings` is read back, the store and the scorer are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from feature_repo.row import pack_stamps, unpack_row
from feature_repo.row_store import Marker, RowWrite, Space, pack_stored
from feature_repo.views import PRODUCT_CONTENT, VIEW_BY_NAME, VIEWS
from streams.fetching import Message
from streams.freshness import Freshness
from streams.owning import Bounds
from streams.ranking_side import Doors, RankingSide
from streams.records import (
    RANKINGS,
    RESULT_SETS,
    Change,
    Headers,
    Ranking,
    decode_headers,
    decode_ranking,
    encode_record,
    entity_hash,
)
from streams.settings import Settings
from streams.snapshots import Snapshot, merge
from streams.tables import Published
from streams.transport import Batch
from tests.streams.bench import HOUR
from tests.streams.fakes import REDIS_EPOCH_MS, FakeRedis, FakeRowStore, FakeScorer, RecordingSender, Sent, loop_ms
from tests.streams.lists import BUNDLE, registration
from tests.streams.loops import settle

#: partitions of `behavior`; `result-sets` has one, so that every set lies on it
CLOCKS = 2
SPACES = {view.name: Space("cluster", "topic", view.name) for view in VIEWS}


@dataclass(slots=True)
class RankingBench:
    """`ready` makes it the owner of partition 0 with everything read; `log` is what lies on `rankings`."""

    redis: FakeRedis = field(default_factory=lambda: FakeRedis(lambda: REDIS_EPOCH_MS + loop_ms()))
    sender: RecordingSender = field(default_factory=RecordingSender)
    scorer: FakeScorer = field(default_factory=FakeScorer)
    crashes: list[BaseException] = field(default_factory=list)
    rereads: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    partitions: int = 1
    offset: int = 0
    #: the rows of product_content are known once a bundle says which encoder made them
    spaces: dict[str, Space] = field(
        default_factory=lambda: {name: space for name, space in SPACES.items() if name != PRODUCT_CONTENT.name}
    )
    side: RankingSide = field(init=False)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        store = FakeRowStore(self.redis)
        doors = Doors(store, self.scorer, self.sender, lambda: HOUR, loop_ms, self.crashes.append, self.rereads.append)
        counts = {"behavior": CLOCKS, RESULT_SETS: self.partitions}
        self.side = RankingSide(Settings(), doors, self.spaces, Freshness(self.registry), counts)
        for work in (
            self.side.run_loading(),
            self.side.run_ranking(),
            self.side.run_publishing(),
            self.side.run_probing(),
        ):
            self.start(work)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def stop(self) -> None:
        """End every task; none may have failed."""
        for task in self.tasks:
            if task.done():
                task.result()
            task.cancel()
        assert self.crashes == []

    # --- what arrives ----------------------------------------------------------------------------------------------

    async def assign(self, *, end: int = 0, generation: int = 1, committed: int = -1) -> None:
        """Own every partition; the tables are still to be read."""
        places = [(RESULT_SETS, partition) for partition in range(self.partitions)]
        await self.side.resume({place: Bounds(0, end, committed) for place in places}, generation)

    def bundle(self) -> None:
        """The first record of `models`."""
        self.spaces[PRODUCT_CONTENT.name] = SPACES[PRODUCT_CONTENT.name]
        self.side.on_bundle(BUNDLE)

    def clock(self, time: int = HOUR) -> None:
        """A heartbeat on every partition of `behavior`."""
        self.side.on_clock(dict.fromkeys(range(CLOCKS), time))

    async def ready(self) -> None:
        """Own partition 0 of empty topics, with a bundle, a clock and all of `feature-changes` read."""
        await self.assign()
        self.bundle()
        self.side.on_caught_up()
        self.side.on_rankings_read(0)
        self.clock()

    async def message(self, key: str | None, value: bytes | None, *, partition: int = 0, offset: int = -1) -> None:
        """One message of `result-sets`."""
        self.offset = offset if offset >= 0 else self.offset
        message = Message(self.offset, None if key is None else key.encode(), value, HOUR, ())
        self.offset += 1
        await self.side.on_result_sets(Batch(RESULT_SETS, partition, [message], 1))

    async def register(
        self, result_set_id: str, candidates: Sequence[str | tuple[str, float]], *, at: int = 0, **fields: Any
    ) -> None:
        """Register a set on partition `at` and let it be ranked."""
        record = registration(result_set_id, candidates, **fields)
        await self.message(result_set_id, encode_record(record), partition=at)
        await settle(200)

    async def close(self, result_set_id: str) -> None:
        await self.message(result_set_id, None)
        await settle(200)

    async def emit(self, *changes: Change) -> None:
        """Rows on `feature-changes`."""
        self.arrive(*changes)
        await settle(200)

    def measured(self) -> Snapshot:
        """What the worker says of itself."""
        return merge([generate_latest(self.registry).decode()], HOUR)

    def arrive(self, *changes: Change) -> None:
        kinds = [VIEW_BY_NAME[change.view].entity for change in changes]
        hashes = [
            int.from_bytes(entity_hash(kind, change.entity), "little")
            for kind, change in zip(kinds, changes, strict=True)
        ]
        self.side.on_rows(np.array(hashes, np.uint64), [_packed(change) for change in changes], loop_ms())

    async def store(self, *changes: Change) -> None:
        """Rows in Redis, put there without a word on `feature-changes`."""
        store = FakeRowStore(self.redis)
        for change in changes:
            space = SPACES[change.view]
            stamps = unpack_row(VIEW_BY_NAME[change.view], change.blob).stamps
            marker = (await store.markers(space, [9]))[0]
            expected, following = (
                (b"" if marker is None else marker.encode()),
                Marker(marker.offset + 1 if marker else 1),
            )
            write = RowWrite(change.entity, b"", change.blob, pack_stored(9, pack_stamps(stamps), 0, 0, b""), None)
            flushed = await store.flush(space, 9, expected, following.encode(), [write], None)
            assert flushed.status == "ok"

    # --- what was published ----------------------------------------------------------------------------------------

    def log(self) -> list[Sent]:
        return self.sender.of(RANKINGS)

    def published(self) -> list[tuple[str, tuple[str, ...] | None]]:
        """(set, product ids in order, None for a null), in order of publication."""
        return [
            ((sent.key or b"").decode(), None if sent.value is None else decode_ranking(sent.value).product_ids)
            for sent in self.log()
        ]

    def last(self) -> Ranking:
        value = self.log()[-1].value
        assert value is not None
        return decode_ranking(value)

    def versions(self) -> list[tuple[int, int]]:
        """(epoch, counter) of everything that was published."""
        versions = [decode_headers(sent.headers)[1] for sent in self.log()]
        return [(version >> 32, version & 0xFFFFFFFF) for version in versions]

    def forget(self) -> None:
        self.sender.sent.clear()

    def read(self, sent: Sent, *, headers: Headers | None = None) -> None:
        """A record of `rankings` comes back."""
        assert sent.partition is not None
        key = (sent.key or b"").decode()
        self.side.on_published(Published(sent.partition, key, sent.value, headers or sent.headers))

    async def foreign(self, result_set_id: str, value: bytes | None, *, epoch: int, counter: int = 1) -> None:
        """Another writer's record."""
        headers = (("writer", b"another!"), ("version", (epoch << 32 | counter).to_bytes(8, "big")))
        self.side.on_published(Published(0, result_set_id, value, headers))
        await settle(200)


def _packed(change: Change) -> bytes:
    packed = msgpack.packb([change.view, change.entity, change.blob])
    assert isinstance(packed, bytes)
    return packed
