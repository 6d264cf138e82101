"""A ranking side in a process of its own, without the model: its scorer answers at once, from the price.

    grow      more and more live sets over stubs for store and Kafka: what a set weighs, what an event costs
    publish   the whole path but the model: `feature-changes` read from Kafka, rankings sent to Kafka

Faust and Triton are left out; everything else is what a ranking worker runs.
"""

import asyncio
import cProfile
import gc
import itertools
import os
import pstats
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.telling import arguments, tell
from benchmarks.world import World, now_ms
from feature_repo.events import Bundle, ResultSet
from feature_repo.row import pack_row
from feature_repo.row_store import RowStore, Space
from feature_repo.views import (
    EMBEDDING_DIM,
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    PRODUCT_CONTENT,
    USER_BEHAVIOR,
    View,
    input_hash,
)
from serving.requests import ContentVectors, Floats, ProductContent, ScoreRequest, Scores
from streams.emitting import OnWritten, Outbound
from streams.fetching import Message
from streams.freshness import Freshness
from streams.owning import Bounds
from streams.producing import KafkaSender
from streams.ranking_side import Doors, RankingSide
from streams.reading import follow_changes
from streams.records import (
    BEHAVIOR,
    RESULT_SETS,
    Change,
    Headers,
    decode_changes,
    encode_changes,
    encode_record,
    entity_hash,
    partition_for,
)
from streams.settings import Settings
from streams.transport import Batch
from streams.workers import crash, monotonic_ms

BUNDLE = Bundle(
    bundle="bench",
    version=1,
    models={"product_encoder": 1, "query_encoder": 1, "ranker": 1},
    input_hash=input_hash(),
    price_weight=1.0,
)
SPACES = {
    view.name: Space("bench", "topic", view.name)
    for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT, USER_BEHAVIOR)
}
#: what is known of every product beside its price
KNOWN = {"stock": 5}
#: registrations of one batch
BATCH = 500
HOT = 0
WARM_UP_EVENTS = 50
PROFILE_LINES = 15


class PriceScorer:
    """The dearer the worse; answers at once."""

    async def encode_queries(self, texts: Sequence[str], version: int | None = None) -> Floats:
        """Nothing of the query."""
        return np.zeros((len(texts), EMBEDDING_DIM), np.float32)

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        """The ranking side encodes no products."""
        raise NotImplementedError

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        """A score by price, as cheap as can be; nobody asks it to explain."""
        await asyncio.sleep(0)
        logit = request.retrieval - 0.001 * np.maximum(request.numeric[:, 0], 0.0)
        return Scores(logit.astype(np.float32))

    async def ready(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing is open."""


class OneRowStore(RowStore):
    """Every product has the same row of each view; users have none."""

    def __init__(self) -> None:
        super().__init__("redis://nowhere")
        self._blobs = {view.name: row_of(view, 0) for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT)}

    async def read(self, space: Space, entities: Sequence[str]) -> list[bytes | None]:
        """The readers' blobs."""
        await asyncio.sleep(0)
        return [self._blobs.get(space.view)] * len(entities)


@dataclass(slots=True)
class Counter:
    """A sender that counts; `through` is Kafka's, or nothing at all."""

    through: KafkaSender | None = None
    count: int = 0
    _awaited: int = 0
    _reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[object]:
        """One more."""
        self._add(1)
        if self.through is not None:
            return await self.through.send(topic, value, key=key, partition=partition, headers=headers)
        return _done()

    async def send_many(
        self, topic: str, partition: int, messages: Sequence[Outbound], on_written: OnWritten | None = None
    ) -> Awaitable[object]:
        """So many more."""
        self._add(len(messages))
        if self.through is not None:
            return await self.through.send_many(topic, partition, messages, on_written)
        return _done()

    def _add(self, messages: int) -> None:
        self.count += messages
        if self.count >= self._awaited:
            self._reached.set()

    async def wait_for(self, count: int) -> None:
        """Until so many were sent."""
        self._awaited = count
        if self.count < count:
            self._reached.clear()
            await self._reached.wait()


def _done() -> Awaitable[object]:
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def row_of(view: View, offset: int, price: int = 1_000) -> bytes:
    """A row as the product side emits it, of the event at an offset of partition 0."""
    time_ms = now_ms()
    return pack_row(
        view,
        as_of=time_ms,
        event_time=time_ms,
        kafka_time=time_ms,
        ints=[KNOWN.get(kind.name, 0) if kind.name != "price" else price for kind in view.ints],
        floats=[0.5] * view.float_width,
        strings=["text" if kind.dtype == "string" else b"" for kind in view.strings],
        stamps={0: offset},
    )


def price_change(product_id: str, offset: int) -> Change:
    """A price that no row of the product had before."""
    return Change(PRODUCT_CATALOG.name, product_id, row_of(PRODUCT_CATALOG, offset, 1_000 + offset % 5_000))


def price_message(changes: Sequence[Change]) -> bytes:
    """A message of `feature-changes`."""
    return encode_changes([entity_hash("product", change.entity) for change in changes], changes)


class Stage:
    """A ranking side that owns partitions of empty topics, driven by hand."""

    def __init__(self, settings: Settings, sender: Counter, owned: Sequence[int]) -> None:
        self.settings = settings
        self.sender = sender
        self.owned = owned
        doors = Doors(OneRowStore(), PriceScorer(), sender, now_ms, monotonic_ms, crash, _no_reread)
        counts = {BEHAVIOR: settings.partitions, RESULT_SETS: settings.partitions}
        self.side = RankingSide(settings, doors, SPACES, Freshness(), counts)
        self._offsets = dict.fromkeys(owned, 0)
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Own the partitions, with a bundle and a clock."""
        for work in (self.side.run_loading(), self.side.run_ranking(), self.side.run_publishing()):
            self._tasks.append(asyncio.create_task(work))
        await self.side.resume({(RESULT_SETS, partition): Bounds(0, 0) for partition in self.owned}, 1)
        self.side.on_bundle(BUNDLE)
        for partition in self.owned:
            self.side.on_rankings_read(partition)
        self.side.on_clock(dict.fromkeys(range(self.settings.partitions), now_ms()))

    async def register(self, sets: Iterable[ResultSet]) -> int:
        """Those of the owned partitions, until each was ranked; how many."""
        batches: dict[int, list[Message]] = {}
        registered = 0
        before = self.sender.count
        for one in sets:
            partition = partition_for(one.result_set_id, self.settings.partitions)
            if partition not in self._offsets:
                continue
            waiting = batches.setdefault(partition, [])
            waiting.append(self._message(partition, one))
            registered += 1
            if len(waiting) == BATCH:
                await self.side.on_result_sets(Batch(RESULT_SETS, partition, batches.pop(partition), 1))
                await self.sender.wait_for(before + registered - sum(map(len, batches.values())))
        for partition, messages in batches.items():
            await self.side.on_result_sets(Batch(RESULT_SETS, partition, messages, 1))
        await self.sender.wait_for(before + registered)
        return registered

    def _message(self, partition: int, one: ResultSet) -> Message:
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        return Message(offset, one.result_set_id.encode(), encode_record(one), now_ms(), ())

    def change(self, change: Change) -> None:
        """A row as it is read from `feature-changes`."""
        decoded = decode_changes(price_message([change]))
        assert not isinstance(decoded, dict)
        self.side.on_rows(*decoded)


def _no_reread(why: str) -> None:
    raise RuntimeError(why)


# --- grow ----------------------------------------------------------------------------------------------------------


def sets_around_one(world: World, holders: int) -> Iterator[ResultSet]:
    """Sets of the world's size; the first `holders` hold product 0, no other one does."""
    rng = np.random.default_rng(world.seed)
    for number in range(world.sets):
        products = rng.choice(world.products - 1, world.candidates, replace=False) + 1
        if number < holders:
            products[0] = HOT
        yield ResultSet(
            result_set_id=world.set_id(number),
            event_time=now_ms(),
            kind="search",
            query="red mug",
            candidates=[(world.product_id(p), 0.5) for p in products.tolist()],
        )


async def grow(products: int, sizes: list[int], candidates: int, holders: int, events: int) -> None:
    """Tell for each size: memory in use (bytes), products held, CPU seconds of an event that `holders` sets hold."""
    settings = Settings()
    stage = Stage(settings, Counter(), range(settings.partitions))
    stage.side.on_caught_up()
    await stage.begin()
    world = World(products, sizes[-1], candidates)
    sets = sets_around_one(world, holders)
    offset = registered = 0
    held: set[str] = set()
    for size in sizes:
        await stage.register(_noted(itertools.islice(sets, size - registered), held))
        registered = size
        costs = []
        for number in range(WARM_UP_EVENTS + events):
            offset += 1
            expected = stage.sender.count + holders
            began = time.process_time()
            stage.change(price_change(world.product_id(HOT), offset))
            await stage.sender.wait_for(expected)
            if number >= WARM_UP_EVENTS:
                costs.append(time.process_time() - began)
        gc.collect()
        found = {"bytes": resident_bytes(), "held": len(held), "event_s": float(np.median(costs))}
        tell(**{f"sets_{size}": found})
    tell(done=True)


def _noted(sets: Iterable[ResultSet], held: set[str]) -> Iterator[ResultSet]:
    for one in sets:
        held.update(product_id for product_id, _ in one.candidates)
        yield one


def resident_bytes() -> int:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- publish -------------------------------------------------------------------------------------------------------


async def publish(world: dict[str, Any], owned: list[int], seconds: float, profile: bool) -> None:
    """Follow `feature-changes` for some seconds; tell how many rankings were published, and the CPU seconds it took."""
    settings = Settings()
    sender = KafkaSender(settings, crash)
    await sender.start()
    stage = Stage(settings, Counter(sender), owned)
    following = asyncio.create_task(
        follow_changes(settings, "freshrank-ranking", settings.partitions, stage.side, now_ms)
    )
    await stage.begin()
    await stage.register(World(**world).result_sets(now_ms()))
    tell(ready=True)
    await stage.sender.wait_for(stage.sender.count + 1)
    # by CPU time: by the wall clock a thread that the machine lets wait would seem to work
    profiler = cProfile.Profile(time.thread_time) if profile else None
    if profiler is not None:
        profiler.enable()
    began, cpu, count = time.perf_counter(), time.process_time(), stage.sender.count
    await asyncio.sleep(seconds)
    told: dict[str, Any] = {"published": stage.sender.count - count, "cpu_s": time.process_time() - cpu}
    told["wall_s"] = time.perf_counter() - began
    if profiler is not None:
        profiler.disable()
        told["profile"] = list(costliest(profiler))
    tell(result=told)
    following.cancel()
    await sender.stop()


def costliest(profiler: cProfile.Profile) -> Iterator[tuple[str, float, int]]:
    """(function, its own CPU seconds, calls) of those that took most."""
    stats: Any = pstats.Stats(profiler)
    rows = [(_function(*place), own, calls) for place, (_, calls, own, _, _) in stats.stats.items()]
    yield from sorted(rows, key=lambda row: -row[1])[:PROFILE_LINES]


def _function(file: str, line: int, name: str) -> str:
    return name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}: {name}"


MODES: dict[str, Callable[..., Awaitable[None]]] = {"grow": grow, "publish": publish}

if __name__ == "__main__":
    asked = arguments()
    asyncio.run(MODES[asked.pop("mode")](**asked))  # type: ignore[arg-type]
