"""Scale: what a live set weighs and an event costs as sets and products grow; more workers; starts and kills.

The ranking side is measured without the model (`benchmarks.ranking_process`): its scorer answers at once.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from kafka import TopicPartition
from redis import Redis

from benchmarks.peers.hops import plain_producer
from benchmarks.ranking_process import price_change, price_message
from benchmarks.rows import Finding, Row, Sample, Target
from benchmarks.surroundings import Child, Parts, Surroundings
from benchmarks.world import World, now_ms
from feature_repo.events import Product
from feature_repo.row_store import Marker
from feature_repo.views import PRODUCT_CATALOG
from streams import topics
from streams.client import Connection, Publisher
from streams.local.part import PartFailed
from streams.local.ports import HeldPort
from streams.local.process import Process
from streams.local.supervisor import Supervisor
from streams.records import CATALOG, FEATURE_CHANGES, RESULT_SETS
from streams.snapshots import scrape
from streams.workers import space_of

#: changed rows a second for each ranking process: with 40 sets a row more than one can publish
CHANGES_PER_S = 1_000
#: rows that changed within this time share a message, as under load
MESSAGE_S = 0.005
TIMEOUT_S = 900.0
WAIT_S = 60.0
POLL_S = 0.01
KILL_RATE = 100
WATCH_S = 12.0
KILLED, OTHER = "product-0", "product-1"

#: (function, its own seconds, calls)
Profile = list[tuple[str, float, int]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How large things get."""

    sizes: tuple[int, ...]
    set_products: int
    products: tuple[int, int]
    product_sets: int
    events: int
    holders: int
    world: World
    seconds: float
    workers: tuple[int, ...]


FULL = Plan(
    (1_000, 10_000, 100_000), 20_000, (10_000, 1_000_000), 10_000, 300, 40, World(5_000, 2_000, 100), 10.0, (1, 2, 4)
)
QUICK = Plan((100, 300), 1_000, (500, 5_000), 100, 20, 10, World(300, 40, 20), 1.0, (1,))


def run(around: Surroundings) -> Finding:
    """Each in processes of its own, one after the other."""
    plan = QUICK if around.quick else FULL
    rows = [*_growing_sets(around, plan), *_growing_products(around, plan)]
    with around.broker_and_redis("scale-publish") as parts:
        topics.create(parts.settings)
        rows += _published(around, plan, parts)
    with around.broker_and_redis("scale-workers") as parts:
        topics.create(parts.settings)
        rows += _starts_and_kills(around, parts)
    return Finding("scale", tuple(rows), _about(plan))


def profile(around: Surroundings) -> Profile:
    """Where the ranking side's time goes on the whole path but the model."""
    plan = QUICK if around.quick else FULL
    with around.broker_and_redis("profile") as parts:
        topics.create(parts.settings)
        around.say("scale: profiling the ranking side")
        (found,) = _side_by_side(parts, plan, workers=1, profiled=True)
    return [(name, seconds, calls) for name, seconds, calls in found["profile"]]


def _about(plan: Plan) -> tuple[str, ...]:
    return (
        "without the model: the scorer answers at once, by price",
        f"event cost: CPU of the ranking side for a price event that {plan.holders} sets hold; floor: with the fewest "
        "sets, or products",
        f"published sets: {CHANGES_PER_S:,} changed rows a second and process read from `feature-changes`, rankings "
        "sent to Kafka, nothing left out but the model and Faust; a second and core is a CPU second of that process",
    )


# --- sets and products ---------------------------------------------------------------------------------------------


def _growing_sets(around: Surroundings, plan: Plan) -> list[Row]:
    first, *_, last = plan.sizes
    asked = _grow(plan, plan.set_products, plan.sizes)
    costs: list[dict[int, float]] = []
    weights = []
    for repeat in range(around.repeats):
        told = _grown(around, f"sets-{repeat}", asked)
        costs.append({size: told[size]["event_s"] * 1e6 for size in plan.sizes})
        weights.append((told[last]["bytes"] - told[plan.sizes[-2]]["bytes"]) / (last - plan.sizes[-2]) / 1000)
        around.say(f"scale: run {repeat + 1} of {around.repeats}: {weights[-1]:.1f} KB a set")
    rows = [
        Row(
            f"event cost, {size:,} live sets",
            "µs",
            tuple(Sample(cost[size], cost[first]) for cost in costs),
            (Target(1.2, "floor"),) if size == last else (),
        )
        for size in plan.sizes
    ]
    samples = tuple(Sample(weight) for weight in weights)
    return [*rows, Row("memory of a live set of 100, beyond product rows", "KB", samples, (Target(7.0),))]


def _growing_products(around: Surroundings, plan: Plan) -> list[Row]:
    many = plan.products[-1]
    costs, weights = [], []
    size = plan.product_sets
    for repeat in range(around.repeats):
        small, large = (
            _grown(around, f"products-{products}-{repeat}", _grow(plan, products, (size,)))[size]
            for products in plan.products
        )
        costs.append(Sample(large["event_s"] * 1e6, small["event_s"] * 1e6))
        weights.append(Sample((large["bytes"] - small["bytes"]) / (large["held"] - small["held"]) / 1000))
    name = f"event cost, {many:,} products in {size:,} sets"
    return [
        Row(name, "µs", tuple(costs), (Target(1.2, "floor"),)),
        Row("memory of a product that some set holds", "KB", tuple(weights)),
    ]


def _grow(plan: Plan, products: int, sizes: tuple[int, ...]) -> dict[str, object]:
    return {
        "mode": "grow",
        "products": products,
        "sizes": sizes,
        "candidates": plan.world.candidates,
        "holders": plan.holders,
        "events": plan.events,
    }


def _grown(around: Surroundings, name: str, asked: dict[str, Any]) -> dict[int, dict[str, float]]:
    around.say(f"scale: {max(asked['sizes']):,} sets over {asked['products']:,} products")
    with Child(f"grow-{name}", "benchmarks.ranking_process", asked, around.folder / "scale", {}) as child:
        child.wait_for("done", TIMEOUT_S)
        return {size: child.told(f"sets_{size}") for size in asked["sizes"]}


# --- published sets ------------------------------------------------------------------------------------------------


def _published(around: Surroundings, plan: Plan, parts: Parts) -> list[Row]:
    per_core: list[Sample] = []
    alone: list[float] = []
    together: dict[int, list[Sample]] = {workers: [] for workers in plan.workers}
    for repeat in range(around.repeats):
        for workers in plan.workers:
            found = _side_by_side(parts, plan, workers, profiled=False)
            rate = sum(one["published"] / one["wall_s"] for one in found)
            around.say(
                f"scale: run {repeat + 1} of {around.repeats}: {rate:,.0f} sets/s by {workers} ranking processes"
            )
            if workers == plan.workers[0]:
                per_core.append(Sample(found[0]["published"] / found[0]["cpu_s"]))
                alone.append(rate)
            together[workers].append(Sample(rate, alone[-1]))
    name = "published sets, a second and core, whole path but the model"
    rows = [Row(name, "sets/s", tuple(per_core), (Target(25_000, at_most=False),))]
    for workers, samples in together.items():
        title = f"published sets by {workers} ranking processes; floor: by {plan.workers[0]}"
        rows.append(Row(title, "sets/s", tuple(samples)))
    return rows


def _side_by_side(parts: Parts, plan: Plan, workers: int, *, profiled: bool) -> list[dict[str, Any]]:
    """What so many ranking sides publish that share the partitions, while more comes than they can do."""
    many = parts.settings.partitions
    children = [
        Child(
            f"publish-{number}-of-{workers}",
            "benchmarks.ranking_process",
            {
                "mode": "publish",
                "world": asdict(plan.world),
                "owned": list(range(number, many, workers)),
                "seconds": plan.seconds,
                "profile": profiled,
            },
            parts.folder,
            parts.environment,
        )
        for number in range(workers)
    ]
    with ExitStack() as started:
        for child in children:
            started.enter_context(child)
        for child in children:
            child.wait_for("ready")
        stop = threading.Event()
        pumping = threading.Thread(target=lambda: asyncio.run(_pump(parts, plan.world, CHANGES_PER_S * workers, stop)))
        pumping.start()
        try:
            return [child.wait_for("result", plan.seconds + WAIT_S) for child in children]
        finally:
            stop.set()
            pumping.join()


async def _pump(parts: Parts, world: World, changes_per_s: int, stop: threading.Event) -> None:
    """Changed rows of products by Zipf at an even pace. Never faster: what coalesces must not be a matter of luck."""
    producer = plain_producer(parts.settings)
    await producer.start()
    rng = np.random.default_rng(now_ms())
    rows = max(1, round(changes_per_s * MESSAGE_S))
    # rows must be newer than those of the runs before, which a side reads first: a thousand versions a millisecond are
    # more than any run sends
    offset = 1_000 * now_ms()
    began = time.monotonic()
    try:
        for number in itertools.count():
            if stop.is_set():
                return
            await asyncio.sleep(max(0.0, began + number * MESSAGE_S - time.monotonic()))
            products = rng.choice(world.products, rows, p=world.weights).tolist()
            changes = [price_change(world.product_id(p), offset + place) for place, p in enumerate(products)]
            offset += rows
            await producer.send(FEATURE_CHANGES, price_message(changes), partition=0)
    finally:
        await producer.stop()


# --- starts and kills ----------------------------------------------------------------------------------------------


def _starts_and_kills(around: Surroundings, parts: Parts) -> list[Row]:
    starts: dict[str, list[Sample]] = {"product": [], "ranking": []}
    for repeat in range(around.repeats):
        for role, found in starts.items():
            found.append(Sample(_start_s(parts, role, repeat)))
            around.say(
                f"scale: run {repeat + 1} of {around.repeats}: a {role} worker starts in {found[-1].value:.1f} s"
            )
    rows = [
        Row(f"{role} worker, exec → consuming", "s", tuple(samples), (Target(5.0),)) for role, samples in starts.items()
    ]
    back, others = [], []
    for repeat in range(around.repeats):
        gap, pause = _kill_s(parts)
        back.append(Sample(gap))
        others.append(Sample(pause))
        told = f"its partitions back after {gap:.1f} s, the other's longest pause {pause:.2f} s"
        around.say(f"scale: run {repeat + 1} of {around.repeats}: kill -9: {told}")
    promised = around.is_apache
    rows.append(
        Row("kill -9 and restart → next event of its partitions", "s", tuple(back), (Target(8.0),) if promised else ())
    )
    rows.append(
        Row("meanwhile the other worker's longest pause", "s", tuple(others), (Target(1.0),) if promised else ())
    )
    return rows


def _start_s(parts: Parts, role: str, repeat: int) -> float:
    """From exec until the worker reads every partition of its input, by its own metrics."""
    with HeldPort() as port:
        argv = [sys.executable, "-m", "streams", "worker", "--role", role, "--instance", f"start-{role}-{repeat}"]
        environment = {**parts.environment, "FRESHRANK_METRICS_PORT": str(port.number)}
        worker = Process(argv, parts.folder / f"start-{role}.log", environment)
        topic = CATALOG if role == "product" else RESULT_SETS
        began = time.monotonic()
        worker.start()
        try:
            while len(_owned(port.address, topic)) < parts.settings.partitions:
                if not worker.alive() or time.monotonic() - began > WAIT_S:
                    raise PartFailed(f"a {role} worker does not consume; see {worker.log}:\n{worker.tail()}")
                time.sleep(POLL_S)
            return time.monotonic() - began
        finally:
            worker.stop(10.0)


def _owned(address: str, topic: str) -> set[int]:
    snapshot = scrape([address], now_ms())
    return {row.partition for row in snapshot.partitions() if row.topic == topic}


@dataclass(slots=True)
class _Progress:
    """When each partition's marker moved (monotonic s) and where to, followed while price events come."""

    parts: Parts
    moved: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Events are published and markers watched."""
        threads = [threading.Thread(target=work) for work in (self._publish, self._watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _publish(self) -> None:
        world = World(1_000, 0, 0)
        with Publisher(Connection.from_settings(self.parts.settings)) as publisher:
            began = time.monotonic()
            for number in itertools.count():
                if self._stop.wait(max(0.0, began + number / KILL_RATE - time.monotonic())):
                    return
                product_id = world.product_id(number % world.products)
                publisher.publish(Product(product_id=product_id, event_time=now_ms(), price=500 + number % 8_000))

    def _watch(self) -> None:
        space = space_of(PRODUCT_CATALOG, topics.check(self.parts.settings))
        keys = [space.marker(partition) for partition in range(self.parts.settings.partitions)]
        client: Redis = Redis.from_url(self.parts.redis_url)
        before: dict[int, int] = {}
        while not self._stop.wait(POLL_S):
            found: Any = client.mget(keys)
            for partition, marker in enumerate(found):
                offset = Marker.decode(marker).offset if marker else -1
                if offset != before.get(partition, -1):
                    before[partition] = offset
                    self.moved.setdefault(partition, []).append((time.monotonic(), offset))
        client.close()

    def is_flowing(self, since: float) -> bool:
        """Whether every partition has moved since then."""
        many = self.parts.settings.partitions
        return len(self.moved) == many and all(moves[-1][0] > since for moves in self.moved.values())

    def passed_at(self, partition: int, offset: int) -> float | None:
        """When the marker was first seen above an offset; None while it is not."""
        return next((at for at, to in self.moved[partition] if to > offset), None)

    def longest_pause(self, partition: int, since: float, until: float) -> float:
        """The longest time (s) without a move, from the last one before `since` on."""
        times = [at for at, _ in self.moved[partition]]
        before = [time for time in times if time <= since][-1:]
        marks = [*before, *(time for time in times if since < time <= until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(marks))


def _kill_s(parts: Parts) -> tuple[float, float]:
    """(seconds from kill -9 to the next event of the killed worker's partitions, longest pause of the other's)."""
    ports = {name: HeldPort() for name in (KILLED, OTHER)}
    supervisor = Supervisor(parts.folder / "workers", lambda line: None)
    progress = _Progress(parts)
    with ExitStack() as held, supervisor:
        for name, port in ports.items():
            held.enter_context(port)
            argv = [sys.executable, "-m", "streams", "worker", "--role", "product", "--instance", name]
            supervisor.start(name, argv, {**parts.environment, "FRESHRANK_METRICS_PORT": str(port.number)})
        with progress.followed():
            theirs = _shared_out(parts, ports)
            _wait(lambda: progress.is_flowing(time.monotonic() - 1.0), "events do not flow")
            supervisor.kill(KILLED)
            killed_at = time.monotonic()
            # what comes after these offsets was published after the kill
            ends = _ends(parts)
            _wait(
                lambda: all(progress.passed_at(partition, ends[partition]) for partition in theirs[KILLED]),
                "nobody reads the killed worker's partitions",
            )
            back_at = max(progress.passed_at(partition, ends[partition]) or 0.0 for partition in theirs[KILLED])
            while time.monotonic() < killed_at + WATCH_S:
                time.sleep(POLL_S)
            until = time.monotonic()
            pauses = [progress.longest_pause(p, killed_at, until) for p in theirs[OTHER]]
    return back_at - killed_at, max(pauses)


def _ends(parts: Parts) -> dict[int, int]:
    """The offset after the last record of each partition of `catalog`."""
    consumer = Connection.from_settings(parts.settings).consumer()
    try:
        places = [TopicPartition(CATALOG, partition) for partition in range(parts.settings.partitions)]
        return {place.partition: end for place, end in consumer.end_offsets(places).items()}
    finally:
        consumer.close(autocommit=False)


def _shared_out(parts: Parts, ports: dict[str, HeldPort]) -> dict[str, set[int]]:
    """Partitions of `catalog` by worker, once both have some and together all."""
    found: dict[str, set[int]] = {}

    def is_settled() -> bool:
        found.update({name: _owned(port.address, CATALOG) for name, port in ports.items()})
        return all(found.values()) and sum(map(len, found.values())) == parts.settings.partitions

    _wait(is_settled, "two workers do not share the partitions")
    return found


def _wait(done: Any, otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline:
            raise PartFailed(f"{otherwise} within {WAIT_S:g} s")
        time.sleep(POLL_S)
