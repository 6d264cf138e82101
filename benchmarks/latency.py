"""Latency: price event produced -> ranking received, at a steady rate of single records, beside floor and peer.

    ours    Publisher's records -> catalog -> product worker -> feature-changes -> ranking worker -> rankings
    floor   the same three hops, by bare aiokafka in two relays, and one bare Triton call of the same rows
    peer    the textbook build, one event at a time: at any of the rates it would only fall behind

Every ranking that arrives counts, from the moment that the earliest event it reflects was handed to the producer.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np
from kafka.admin import KafkaAdminClient
from numpy.typing import NDArray

from benchmarks.peers.hops import EVENT
from benchmarks.rows import Finding, Row, Sample, Target
from benchmarks.surroundings import Child, Surroundings
from benchmarks.wire import Arrived, Sent, Wire
from benchmarks.world import World, now_ms
from feature_repo.events import Product
from feature_repo.row import HEADER
from streams.client import Connection, Publisher, RankingsReader, Registrar
from streams.local.engine import LocalEngine
from streams.local.part import PartFailed
from streams.metrics import Histogram
from streams.records import (
    CATALOG,
    FEATURE_CHANGES,
    RANKINGS,
    as_map,
    decode_change,
    decode_changes,
    encode_record,
    partition_for,
)
from streams.settings import Settings
from streams.snapshots import Snapshot

FLOOR_TOPICS = ("bench-hop-1", "bench-hop-2", "bench-hop-3")
PEER_TOPICS = ("bench-textbook-prices", "bench-textbook-rankings")
#: bytes of the floor's messages: a price patch, a changed row, a ranking of 100
FLOOR_SIZES = (100, 200, 1_700)
#: rate of the warm-up, at most
WARM_UP_RATE = 200
QUIET_S = 1.5
SETTLE_S = 300.0
HOPELESS_RESTARTS = 3
DRAIN_S = 60.0
#: floor and peer have no way to go on without the model, as the engine has
PATIENT = {"FRESHRANK_TRITON_SCORE_TIMEOUT_S": "60"}
#: one event at a time may take this long
ANSWER_S = 60.0
#: rankings that are kept as they came, at most: 1.7 KB each
KEPT_RECORDS = 200_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `warm_up_s`: a broker's JVM has to compile first what is to be measured."""

    uniform: World
    skewed: World | None
    rates: tuple[int, ...]
    skewed_rates: tuple[int, ...]
    warm_up_s: float
    seconds: float
    single_events: int


FULL = Plan(
    World(5_000, 2_000, 100), World(5_000, 2_000, 100, skewed=True), (50, 200, 1_000), (50, 200), 40.0, 20.0, 12
)
QUICK = Plan(World(300, 40, 20), None, (50,), (), 3.0, 2.0, 3)


@dataclass(slots=True)
class Timing:
    """Latencies (ms) of one run, one a ranking; `hop_and_rerank` are those from changed row sent to ranking sent, and
    `rerank` what the ranking worker measured itself."""

    total: NDArray[np.float64]
    hop_and_rerank: NDArray[np.float64] | None
    rerank: Histogram | None
    events: int
    seconds: float

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.total, percent))


class Lane(ABC):
    """One way from an event to its rankings: events go in, arrivals are told by the event's number in this run."""

    def __init__(self, settings: Settings, world: World, topic: str) -> None:
        self.settings = settings
        self.world = world
        self.wire = Wire(settings, topic)
        self.sent: list[Sent] = []
        #: what an arrival names, and when it came (s)
        self.arrivals: list[tuple[Any, float]] = []

    @abstractmethod
    def _send(self, number: int, event: Product) -> Sent:
        """Hand the event over."""

    @abstractmethod
    def _take(self, record: Arrived) -> None:
        """A record of the topic that rankings come on."""

    @abstractmethod
    def _resolved(self) -> Iterable[tuple[int, float]]:
        """(number of the event, when) of every arrival of this run."""

    def hop_and_rerank(self) -> NDArray[np.float64] | None:
        """Latencies (ms) from changed row sent to ranking sent, where the lane can tell."""
        return None

    def rerank(self) -> Histogram | None:
        """From a changed row's coming to the worker to its rankings' going to Kafka, where the lane can tell."""
        return None

    def begin(self) -> None:
        """Begin a run."""
        self.wire.arrived()
        self.sent, self.arrivals = [], []

    def send(self, event: Product) -> None:
        """The next event of this run."""
        self.sent.append(self._send(len(self.sent), event))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Connected, and reading what comes from now on."""
        self.wire.start()
        try:
            yield
        finally:
            self.wire.stop()

    def offered(self, events: Iterable[Product], rate: float, seconds: float) -> Timing:
        """Send at an even pace, whatever comes back; then wait until nothing more comes."""
        self.begin()
        began = time.perf_counter()
        for number, event in enumerate(events):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            self.send(event)
            if self.wire.waiting > KEPT_RECORDS:
                self._look()
        self.wire.flush()
        ended = time.perf_counter()
        while time.perf_counter() - max(ended, self.wire.heard) < QUIET_S and time.perf_counter() - ended < DRAIN_S:
            time.sleep(0.05)
        return self._timing(seconds)

    def one_at_a_time(self, events: Iterable[Product]) -> float:
        """Median time (ms) from an event to the last of its rankings, each event after the one before was answered."""
        taken = []
        for event in events:
            expected = self.expected(event)
            if not expected:
                continue
            self.begin()
            self.send(event)
            deadline = time.perf_counter() + ANSWER_S
            while len(self.arrivals) < expected:
                if time.perf_counter() > deadline:
                    raise PartFailed(f"{len(self.arrivals)} of {expected} rankings of an event within {ANSWER_S:g} s")
                self.wire.wait(deadline - time.perf_counter())
                self._look()
            taken.append((self.arrivals[-1][1] - self.sent[0].at) * 1000)
        return float(np.median(taken))

    def expected(self, event: Product) -> int:
        """How many rankings follow from the event."""
        return int(self.world.holders[int(event.product_id[1:])])

    def _look(self) -> None:
        for record in self.wire.arrived():
            self._take(record)

    def _timing(self, seconds: float) -> Timing:
        self._look()
        pairs = list(self._resolved())
        if not pairs:
            who = type(self).__name__.lower()
            raise PartFailed(f"{who}: nothing of {len(self.sent)} events arrived; see the logs of this run")
        total = np.array([(now - self.sent[number].at) * 1000 for number, now in pairs])
        return Timing(total, self.hop_and_rerank(), self.rerank(), len(self.sent), seconds)


class _Caused(msgspec.Struct):
    """What of a ranking is looked at; everything else is skipped."""

    caused_by: tuple[str, str, int, int] | None


class Ours(Lane):
    """The engine. A ranking names the row that caused it, whose version is the event's offset + 1."""

    def __init__(self, settings: Settings, world: World, measured: Callable[[], Snapshot]) -> None:
        super().__init__(settings, world, RANKINGS)
        self._measured = measured
        #: what the workers had measured when the run began
        self._measured_before = measured()
        self._decoder = msgspec.msgpack.Decoder(_Caused)
        #: where `feature-changes` ended when the run began
        self._changes_from: dict[int, int] = {}
        #: Kafka timestamps (ms) of rankings, with their causes
        self._ranked_at: list[tuple[tuple[str, int], int]] = []
        self._keys: list[str] = []

    def begin(self) -> None:
        super().begin()
        self._changes_from = self.wire.ends(FEATURE_CHANGES)
        self._measured_before = self._measured()
        self._ranked_at, self._keys = [], []

    def _send(self, number: int, event: Product) -> Sent:
        key = event.product_id
        self._keys.append(key)
        partition = partition_for(key, self.settings.partitions)
        return self.wire.send(CATALOG, encode_record(event), key=key.encode(), partition=partition)

    def _take(self, record: Arrived) -> None:
        if record.value is not None:
            caused_by = self._decoder.decode(record.value).caused_by
            if caused_by is not None:
                cause = (caused_by[1], caused_by[2])
                self.arrivals.append((cause, record.at))
                self._ranked_at.append((cause, record.kafka_time))

    def rerank(self) -> Histogram | None:
        return self._measured().since(self._measured_before).reranking()

    def hop_and_rerank(self) -> NDArray[np.float64] | None:
        """What `feature-changes` says of the rows: read now, as it would have been in the way before."""
        changed_at: dict[tuple[str, int], int] = {}
        for record in self.wire.between(FEATURE_CHANGES, self._changes_from, self.wire.ends(FEATURE_CHANGES)):
            decoded = decode_changes(record.value or b"")
            for row in () if isinstance(decoded, dict) else decoded[1]:
                change = decode_change(row)
                changed_at.setdefault((change.entity, _version(change.blob)), record.kafka_time)
        found = [sent - changed_at[cause] for cause, sent in self._ranked_at if cause in changed_at]
        return np.array(found, np.float64) if found else None

    def _resolved(self) -> Iterable[tuple[int, float]]:
        numbers = {(key, sent.offset + 1): n for n, (key, sent) in enumerate(zip(self._keys, self.sent, strict=True))}
        return [(numbers[cause], now) for cause, now in self.arrivals if cause in numbers]


class Floor(Lane):
    """Bare hops. The message says how many rows the model would score for the event."""

    def __init__(self, settings: Settings, world: World) -> None:
        super().__init__(settings, world, FLOOR_TOPICS[-1])

    def _send(self, number: int, event: Product) -> Sent:
        value = EVENT.pack(number, max(1, self.expected(event))).ljust(FLOOR_SIZES[0], b".")
        return self.wire.send(FLOOR_TOPICS[0], value)

    def _take(self, record: Arrived) -> None:
        assert record.value is not None
        self.arrivals.append((EVENT.unpack_from(record.value)[0], record.at))

    def _resolved(self) -> Iterable[tuple[int, float]]:
        return self.arrivals


class Textbook(Lane):
    """The peer. A ranking carries the number of its event."""

    def __init__(self, settings: Settings, world: World) -> None:
        super().__init__(settings, world, PEER_TOPICS[-1])

    def _send(self, number: int, event: Product) -> Sent:
        value = msgpack.packb({**as_map(event), "number": number})
        return self.wire.send(PEER_TOPICS[0], value or b"", key=event.product_id.encode())

    def _take(self, record: Arrived) -> None:
        self.arrivals.append((msgpack.unpackb(record.value)["number"], record.at))

    def _resolved(self) -> Iterable[tuple[int, float]]:
        return self.arrivals


@dataclass(slots=True)
class _Runs:
    """Timings by rate, and the answers to single events, of interleaved runs."""

    ours: dict[int, list[Timing]] = field(default_factory=dict)
    floor: dict[int, list[Timing]] = field(default_factory=dict)
    single_ours: list[float] = field(default_factory=list)
    single_peer: list[float] = field(default_factory=list)

    def add(self, rate: int, ours: Timing, floor: Timing) -> None:
        self.ours.setdefault(rate, []).append(ours)
        self.floor.setdefault(rate, []).append(floor)


def run(around: Surroundings) -> Finding:
    """The engine, the floor's relays and the textbook build side by side on one broker, Redis and Triton."""
    plan = QUICK if around.quick else FULL
    workers = {"product": 1, "content": 1, "ranking": 1}
    engine = LocalEngine(
        around.folder / "latency", around.kafka_home, workers=workers, heartbeats="owner", say=around.say
    )
    around.say("latency: starting the parts and the workers")
    with engine.running(), ExitStack() as children:
        engine.wait_until_consuming()
        settings = engine.settings
        _make_topics(settings)
        _open_shop(around, engine, plan.uniform)
        for child in (*_relays(engine), _textbook(engine, plan.uniform)):
            children.enter_context(child)
            around.say(f"latency: waiting for {child.name}")
            child.wait_for("ready")
        rows = _rows(_measure(around, engine, plan, plan.uniform), plan.uniform, around)
        if plan.skewed is not None:
            _replace_sets(around, engine, plan.uniform, plan.skewed)
            rows += _rows(_measure(around, engine, plan, plan.skewed), plan.skewed, around)
    return Finding("latency", tuple(rows), _about(plan))


def _about(plan: Plan) -> tuple[str, ...]:
    world = plan.uniform
    return (
        f"price event produced → ranking received: {world.sets:,} sets × {world.candidates} of {world.products:,} "
        "products, events Zipf over products; every ranking counts, from the earliest event it reflects",
        "changed row sent → ranking sent: by the timestamps of both records in Kafka, so one hop and the re-ranking",
        "change received → ranking produced: what the ranking worker measures (freshrank_rerank_seconds), from a row's "
        "coming to its process to its rankings' going to Kafka's client",
        "floor: three bare hops, by aiokafka in two processes, and one bare Triton call of the event's rows; it scores "
        "every row of every event, so under overload ours, which coalesces, may be below it",
        "peer: a Faust agent with Feast's own API and one Triton call, given one event at a time: with no queue at all",
        "the client that measures is the same for all: librdkafka, which looks at what came only after a run",
        "every process here, floor and peer too, takes turns on the cores (SCHED_BATCH): see docs/decisions.md",
    )


# --- the shop ------------------------------------------------------------------------------------------------------


def _make_topics(settings: Settings) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        made = {"num_partitions": settings.partitions, "replication_factor": 1}
        names = (*FLOOR_TOPICS, *PEER_TOPICS)
        admin.create_topics(dict.fromkeys(names, made))
        admin.wait_for_topics(list(names))
    finally:
        admin.close()


def _open_shop(around: Surroundings, engine: LocalEngine, world: World) -> None:
    """Products, their vectors, then the sets, until everything that follows from them has come to rest."""
    connection = Connection.from_settings(engine.settings)
    with Publisher(connection) as publisher:
        publisher.publish_many(world.catalog(now_ms()))
    _wait_until_read(around, engine)
    _register(around, engine, world)


def _register(around: Surroundings, engine: LocalEngine, world: World) -> None:
    connection = Connection.from_settings(engine.settings)
    with Registrar(connection) as registrar:
        for result_set in world.result_sets(now_ms()):
            registrar.register(result_set)
    deadline = time.monotonic() + SETTLE_S
    with RankingsReader(connection) as reader:
        while (there := sum(set_id.startswith(world.name) for set_id in reader.latest())) < world.sets:
            around.say(f"latency: {there:,} of {world.sets:,} {world.name} sets are ranked")
            _check_workers(engine)
            if time.monotonic() > deadline:
                raise PartFailed(f"{there} of {world.sets} sets were ranked within {SETTLE_S:g} s")
            time.sleep(1.0)
    _wait_until_read(around, engine)


def _replace_sets(around: Surroundings, engine: LocalEngine, old: World, new: World) -> None:
    with Registrar(Connection.from_settings(engine.settings)) as registrar:
        for number in range(old.sets):
            registrar.unregister(old.set_id(number))
    _register(around, engine, new)


def _wait_until_read(around: Surroundings, engine: LocalEngine) -> None:
    """Until no worker is behind, twice in a row: what one has read may give another something to do."""
    deadline = time.monotonic() + SETTLE_S
    quiet = 0
    while quiet < 2:
        _check_workers(engine)
        lag = sum(row.lag for row in engine.snapshot().partitions())
        quiet = 0 if lag else quiet + 1
        if lag:
            around.say(f"latency: workers are {lag:,} messages behind")
        if time.monotonic() > deadline:
            raise PartFailed(f"workers are still {lag} messages behind after {SETTLE_S:g} s")
        time.sleep(1.0)


def _check_workers(engine: LocalEngine) -> None:
    """PartFailed for a worker that ends again and again: nothing would come of waiting."""
    for worker in engine.supervisor.status():
        if worker.restarts >= HOPELESS_RESTARTS:
            raise PartFailed(f"worker {worker.name} has ended {worker.restarts} times; see {worker.log}")


def _relays(engine: LocalEngine) -> list[Child]:
    first, second, third = FLOOR_TOPICS
    plain = {"source": first, "target": second, "size": FLOOR_SIZES[1], "scores": False}
    scoring = {"source": second, "target": third, "size": FLOOR_SIZES[2], "scores": True}
    folder = engine.run_dir / "peers"
    return [
        Child(name, "benchmarks.peers.hops", told, folder, {**engine.environment, **PATIENT})
        for name, told in (("relay", plain), ("scoring-relay", scoring))
    ]


def _textbook(engine: LocalEngine, world: World) -> Child:
    folder = engine.run_dir / "peers"
    sets = [[one.result_set_id, one.query, one.candidates] for one in world.result_sets(0)]
    products = [world.product_id(number) for number in range(world.products)]
    file = folder / "world.msgpack"
    _write(file, msgpack.packb([products, sets]))
    prices, rankings = PEER_TOPICS
    told = {
        "prices": prices,
        "rankings": rankings,
        "sets": str(file.resolve()),
        "redis": engine.stack.redis.address,
        "folder": str((folder / "textbook").resolve()),
    }
    return Child("textbook", "benchmarks.peers.textbook", told, folder, {**engine.environment, **PATIENT})


def _write(file: Path, data: bytes | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data or b"")


# --- measuring -----------------------------------------------------------------------------------------------------


def _measure(around: Surroundings, engine: LocalEngine, plan: Plan, world: World) -> _Runs:
    settings = engine.settings
    ours, floor, peer = Ours(settings, world, engine.snapshot), Floor(settings, world), Textbook(settings, world)
    runs = _Runs()
    rates = plan.skewed_rates if world.skewed else plan.rates
    with ours.open(), floor.open(), peer.open():
        warm = min(rates[-1], WARM_UP_RATE)
        for lane in (ours, floor):
            lane.offered(world.price_events(round(plan.warm_up_s * warm), seed=0), warm, plan.warm_up_s)
        for repeat in range(around.repeats):
            for rate in rates:
                seed = 1_000 * (repeat + 1) + rate
                events = round(plan.seconds * rate)
                timings = [lane.offered(world.price_events(events, seed), rate, plan.seconds) for lane in (ours, floor)]
                runs.add(rate, *timings)
                told = ", floor ".join(f"p50 {timing.percentile(50):.1f} ms" for timing in timings)
                around.say(f"latency: run {repeat + 1} of {around.repeats}, {world.name}, {rate}/s: ours {told}")
            if not world.skewed:
                single = [
                    lane.one_at_a_time(world.price_events(plan.single_events, seed=7_000 + repeat))
                    for lane in (ours, peer)
                ]
                runs.single_ours.append(single[0])
                runs.single_peer.append(single[1])
                told = f"ours {runs.single_ours[-1]:.1f} ms, textbook {runs.single_peer[-1]:.1f} ms"
                around.say(f"latency: run {repeat + 1} of {around.repeats}, one at a time: {told}")
    return runs


# --- rows ----------------------------------------------------------------------------------------------------------


def _rows(runs: _Runs, world: World, around: Surroundings) -> list[Row]:
    rows: list[Row] = []
    where = "Zipf candidates, " if world.skewed else ""
    for rate, ours in runs.ours.items():
        is_promised = around.is_apache and not world.skewed and rate <= 200
        for percent in (50, 95, 99, 100):
            name = f"{where}{rate}/s, {'max' if percent == 100 else f'p{percent}'}"
            peers: Sequence[float | None] = (
                runs.single_peer if percent == 50 and runs.single_peer else [None] * len(ours)
            )
            samples = tuple(
                Sample(timing.percentile(percent), bare.percentile(percent), peer)
                for timing, bare, peer in zip(ours, runs.floor[rate], peers, strict=True)
            )
            targets = {50: (Target(1.6, "floor"), Target(0.1, "peer")), 99: (Target(3.0, "floor"),)}
            rows.append(Row(name, "ms", samples, targets.get(percent, ()) if is_promised else ()))
        rankings = tuple(Sample(len(timing.total) / timing.events) for timing in ours)
        rows.append(Row(f"{where}{rate}/s, rankings an event", "", rankings))
        changes = tuple(
            Sample(float(np.percentile(t.hop_and_rerank, 99))) for t in ours if t.hop_and_rerank is not None
        )
        # promised of the re-ranking alone; asked of it with the hop before it, too
        limit = (Target(10.0),) if is_promised else ()
        if changes:
            rows.append(Row(f"{where}{rate}/s, changed row sent → ranking sent, p99", "ms", changes, limit))
        took = [t.rerank.quantile(0.99) for t in ours if t.rerank is not None]
        within = tuple(Sample(p99) for p99 in took if p99 is not None)
        if within:
            rows.append(Row(f"{where}{rate}/s, change received → ranking produced, p99", "ms", within, limit))
    if runs.single_ours:
        pairs = zip(runs.single_ours, runs.single_peer, strict=True)
        single = tuple(Sample(mine, None, theirs) for mine, theirs in pairs)
        rows.append(Row("one event at a time, until its last ranking, p50", "ms", single, (Target(0.1, "peer"),)))
    return rows


def _version(blob: bytes) -> int:
    version: int = HEADER.unpack_from(blob)[3]
    return version
