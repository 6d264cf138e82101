"""Latency: price event produced -> ranking received, at a steady rate of single records, beside floor and peer.

The ways are `benchmarks.lanes`. The textbook build is given one event at a time: at any of the rates it would only fall
behind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import numpy as np
from kafka.admin import KafkaAdminClient

from benchmarks.lanes import FLOOR_SIZES, FLOOR_TOPICS, PEER_TOPICS, Floor, Ours, Textbook, Timing
from benchmarks.rows import Finding, Row, Sample, Target
from benchmarks.surroundings import Child, Surroundings
from benchmarks.world import World, now_ms
from streams.client import Connection, Publisher, RankingsReader, Registrar
from streams.local.engine import LocalEngine
from streams.local.part import PartFailed
from streams.settings import Settings

#: rate of the warm-up, at most
WARM_UP_RATE = 200
SETTLE_S = 300.0
HOPELESS_RESTARTS = 3
#: floor and peer have no way to go on without the model, as the engine has
PATIENT = {"FRESHRANK_TRITON_SCORE_TIMEOUT_S": "60"}


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
