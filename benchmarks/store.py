"""Store: rows written by the engine's compare-and-set, and read to NumPy, beside Feast's Redis store and bare Redis.

ours    `RowStore.flush` (marker, and handover or stamps, compared inside the script), `RowReader.read_views`
floor   the same bytes by pipelined HSET and HMGET, a key a row
peer    Feast's own Redis store: `write_to_online_store`, `get_online_features`
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.raw_redis import RawRedis
from benchmarks.rows import Finding, Row, Sample, Target
from benchmarks.surroundings import Surroundings, running
from benchmarks.world import now_ms
from feature_repo.reading import RowReader
from feature_repo.row import fixed_dtype, pack_row, pack_stamps
from feature_repo.row_store import KEEP, Marker, RowStore, RowWrite, Space, pack_stored
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, PRODUCT_CONTENT, View
from streams.local.redis_server import RedisServer

if TYPE_CHECKING:
    from feast import FeatureStore

VIEWS = (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT)
WRITTEN_ROWS = 1_000
READ_ROWS = (1, 100, 1_000)
PROMISED_ROWS = 100
#: calls that a side makes before the next one has its turn: the first meets caches full of the others' data
A_TURN = 5
#: bytes of a packed state, about what a product with an hour of traffic has
STATE_BYTES = 400


@dataclass(frozen=True, slots=True)
class Way:
    """How rows are written. At home: by the one writer they have had since they were read; else they are looked at.

    `is_due`: each row has another minute in the agenda than before.
    """

    name: str
    at_home: bool = True
    is_due: bool = False


USUAL = Way("compare-and-set")
WAYS = (USUAL, Way("each due at another minute", is_due=True), Way("read from elsewhere, looked at", at_home=False))


@dataclass(slots=True)
class Rows:
    """Rows of one view, as every side writes them."""

    view: View
    space: Space
    entities: list[str]
    offset: int = 0
    marker: bytes = b""
    stamps: bytes = b""
    handover: bytes | None = None
    state: bytes = (bytes(range(256)) * (STATE_BYTES // 256 + 1))[:STATE_BYTES]

    def raw_key(self, entity: str) -> str:
        """Where the floor has the row."""
        return f"raw:{self.space.prefix}:{entity}"

    def next_write(self, way: Way) -> list[RowWrite]:
        """Every row with one event more."""
        self.offset += 1
        stamps, time_ms = {0: self.offset}, now_ms()
        rng = np.random.default_rng(self.offset)
        floats = rng.random((len(self.entities), self.view.float_width), np.float32)
        strings = ["a text" if kind.dtype == "string" else b"some bytes" for kind in self.view.strings]
        state = pack_stored(0, pack_stamps(stamps), time_ms, time_ms, self.state)
        read_stamps = None if way.at_home and self.marker else self.stamps
        due = None if self.view is not PRODUCT_BEHAVIOR else self.offset if way.is_due or not self.marker else KEEP
        return [
            RowWrite(
                entity,
                read_stamps,
                pack_row(
                    self.view,
                    as_of=time_ms,
                    event_time=time_ms,
                    kafka_time=time_ms,
                    ints=[self.offset] * len(self.view.ints),
                    floats=numbers,
                    strings=strings,
                    stamps=stamps,
                ),
                state,
                due,
            )
            for entity, numbers in zip(self.entities, floats, strict=True)
        ]

    async def flush(self, store: RowStore, writes: Sequence[RowWrite]) -> None:
        """As a worker does."""
        after = Marker(self.offset + 1).encode()
        flushed = await store.flush(self.space, 0, self.marker, after, writes, now_ms(), self.handover)
        assert flushed.status == "ok", flushed
        self.marker, self.stamps, self.handover = after, pack_stamps({0: self.offset}), flushed.handover


def run(around: Surroundings) -> Finding:
    """One Redis for all; Feast's rows lie in another database of it."""
    folder = around.folder / "store"
    redis = RedisServer(folder)
    with running(redis):
        url = f"redis://{redis.address}/0"
        all_rows = [Rows(view, Space("bench", "topic", view.name), _entities(max(READ_ROWS))) for view in VIEWS]
        around.say("store: Feast, which takes seconds to import")
        feast = _Feast(redis.address, around)
        # Feast's hundred thousand objects would be walked in every side's turn
        gc.collect()
        gc.freeze()
        rows = asyncio.run(_writes(around, url, all_rows, feast))
        rows += _reads(around, url, all_rows, feast)
    return Finding("store", tuple(rows), _about())


def _about() -> tuple[str, ...]:
    return (
        f"write: {WRITTEN_ROWS:,} rows of {PRODUCT_BEHAVIOR.name}, numbers and {STATE_BYTES} bytes of state; read: "
        "every feature of the ranker (catalog, behaviour, content vectors) of so many candidates, to NumPy",
        "rows that had one writer since they were read are guarded by the marker and by the handover, a value beside "
        "them; of others each row's stamps are looked at",
        f"sides take turns of {A_TURN} calls; the first of a turn finds the processor as the other sides, or a pause, "
        "leave it",
        "floor: the same bytes by pipelined HSET and HMGET, a key a row; peer: Feast's Redis store by Feast's own API",
    )


def _entities(rows: int) -> list[str]:
    return [f"p{number:06d}" for number in range(rows)]


class _Feast:
    """The peer; feast is imported only here."""

    def __init__(self, redis_address: str, around: Surroundings) -> None:
        from benchmarks.peers import feast_redis

        self._peer = feast_redis
        self.store: FeatureStore = feast_redis.feast_store(redis_address, around.folder / "feast")
        self.service = feast_redis.ranker_service()

    def copy(self, reader: RowReader, rows: Rows) -> Any:
        """The rows that the engine has, as a DataFrame, and written by Feast."""
        table = self._peer.frame(rows.view, rows.entities, reader.read(rows.view, rows.entities))
        self._peer.fill(self.store, rows.view, table)
        return table

    def read(self, entities: Sequence[str]) -> dict[str, Any]:
        """Every feature of the ranker, to NumPy columns."""
        keys = [{"product_id": entity} for entity in entities]
        found = self.store.get_online_features(self.service, keys).to_dict()
        return {name: np.array(values) for name, values in found.items() if name != "product_id"}


# --- write ---------------------------------------------------------------------------------------------------------


async def _writes(around: Surroundings, url: str, all_rows: Sequence[Rows], feast: _Feast) -> list[Row]:
    store, raw, reader = RowStore(url), RawRedis(url), RowReader(url)
    tables = {}
    for rows in all_rows:
        await rows.flush(store, rows.next_write(USUAL))
        await store.publish_space(rows.space)
        tables[rows.view.name] = feast.copy(reader, rows)
    rows = next(rows for rows in all_rows if rows.view is PRODUCT_BEHAVIOR)
    write_by_feast = partial(feast.store.write_to_online_store, PRODUCT_BEHAVIOR.name, tables[PRODUCT_BEHAVIOR.name])
    found = []
    for way in WAYS:
        samples: list[Sample] = []
        first: list[Sample] = []
        for repeat in range(around.repeats):
            turns = [await _write_turn(rows, way, store, raw, write_by_feast) for _ in range(_calls(around, 9))]
            samples.append(_sample([call for turn in turns for call in zip(*turn, strict=True)]))
            first.append(_sample([[calls[0] for calls in turn] for turn in turns]))
            told = f"{samples[-1].value:.1f} ms"
            around.say(f"store: write, {way.name}, run {repeat + 1} of {around.repeats}: {told}")
        targets = (Target(0.04, "peer"), Target(1.2, "floor")) if way is USUAL else ()
        name = f"write {WRITTEN_ROWS:,} rows"
        found.append(Row(f"{name}, {way.name}", "ms", tuple(samples), targets))
        if way is USUAL:
            found.append(Row(f"{name}, the first of a turn", "ms", tuple(first)))
    memory = Row("memory of a product in Redis, all views", "KB", (Sample(await _product_kb(store, all_rows)),))
    await store.close()
    raw.close()
    reader.close()
    return [*found, memory]


async def _write_turn(
    rows: Rows, way: Way, store: RowStore, raw: RawRedis, write_by_feast: Callable[[], object]
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of A_TURN calls of each side: ours, the same bytes by bare Redis, Feast."""
    ours, floor = [], []
    raws = []
    for _ in range(A_TURN):
        writes = rows.next_write(way)
        raws.append([(rows.raw_key(write.entity), write.blob, write.state) for write in writes])
        began = time.perf_counter()
        await rows.flush(store, writes)
        ours.append(time.perf_counter() - began)
    for some in raws:
        floor.append(_seconds(partial(raw.write, some)))
    return ours, floor, [_seconds(write_by_feast) for _ in range(A_TURN)]


async def _product_kb(store: RowStore, all_rows: Sequence[Rows]) -> float:
    """What Redis itself says that the rows of a product take, its ids included."""
    sizes = []
    for rows in all_rows:
        for key in (rows.space.blobs, rows.space.states):
            # with samples=0 it looks at every row
            sizes.append((await store.client.memory_usage(key, samples=0) or 0) / len(rows.entities))
    return sum(sizes) / 1000


# --- read ----------------------------------------------------------------------------------------------------------


def _reads(around: Surroundings, url: str, all_rows: Sequence[Rows], feast: _Feast) -> list[Row]:
    reader, raw = RowReader(url), RawRedis(url)
    for rows in all_rows:
        blobs = reader.read(rows.view, rows.entities).blobs
        raw.write([(rows.raw_key(e), blob or b"", rows.state) for e, blob in zip(rows.entities, blobs, strict=True)])
    found = []
    for size in READ_ROWS:
        entities = all_rows[0].entities[:size]
        keys = {rows.view: [rows.raw_key(entity) for entity in entities] for rows in all_rows}
        reads = (partial(_ours, reader, entities), partial(_floor, raw, keys), partial(feast.read, entities))
        samples: list[Sample] = []
        first: list[Sample] = []
        for repeat in range(around.repeats):
            turns = [[[_seconds(read) for _ in range(A_TURN)] for read in reads] for _ in range(_calls(around, 9))]
            samples.append(_sample([call for turn in turns for call in zip(*turn, strict=True)]))
            first.append(_sample([[calls[0] for calls in turn] for turn in turns]))
            told = f"{samples[-1].value:.2f} ms"
            around.say(f"store: read {size:,}, run {repeat + 1} of {around.repeats}: {told}")
        targets = (Target(0.04, "peer"), Target(1.0, "floor")) if size == PROMISED_ROWS else ()
        name = f"read {size:,} candidate{'s' if size > 1 else ''}"
        found.append(Row(f"{name}, all ranker features, to NumPy", "ms", tuple(samples), targets))
        found.append(Row(f"{name}, the first of a turn", "ms", tuple(first)))
    reader.close()
    raw.close()
    return found


def _ours(reader: RowReader, entities: Sequence[str]) -> None:
    for found in reader.read_views(VIEWS, entities):
        found.columns()


def _floor(raw: RawRedis, keys: Mapping[View, Sequence[str]]) -> None:
    for view, of_view in keys.items():
        dtype = fixed_dtype(view)
        np.frombuffer(b"".join(blob[: dtype.itemsize] for blob in raw.read(of_view)), dtype)


# --- time ----------------------------------------------------------------------------------------------------------


def _calls(around: Surroundings, many: int) -> int:
    """How many calls of each side make a sample."""
    return 3 if around.quick else many


def _sample(taken: Sequence[Sequence[float]]) -> Sample:
    """Medians (ms) of calls that took (ours, floor, peer) seconds, in turns; the first turn warms up."""
    ours, floor, peer = (median(times) * 1000 for times in zip(*taken[1:], strict=True))
    return Sample(ours, floor, peer)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
