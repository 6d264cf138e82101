"""Ingest: records a second through one worker, a backlog read from its start, single and 100 a message.

ours    validation, state of 100,000 products, feature-changes, flushes to Redis: until the markers are at the end
floor   bare aiokafka that unpacks
peers   a stock Faust agent that unpacks; Quix Streams that counts by product
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from kafka import TopicPartition
from redis import Redis

from benchmarks.rows import Finding, Row, Sample, Target
from benchmarks.surroundings import Child, Parts, Surroundings
from benchmarks.world import World, now_ms
from feature_repo.events import Behavior, Product
from feature_repo.row_store import Marker
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG
from streams import topics
from streams.client import Connection, Publisher
from streams.local.part import PartFailed
from streams.local.process import Process
from streams.records import BEHAVIOR, CATALOG, FEATURE_CHANGES
from streams.settings import Settings
from streams.workers import space_of

KINDS = ("impression", "impression", "impression", "click", "click", "cart", "purchase", "return")
PER_MESSAGE = 100
TIMEOUT_S = 300.0
POLL_S = 0.01
#: Quix Streams wants other versions than this environment has: it lies in a folder of its own
QUIX = Path(sys.prefix) / "opt" / "quixstreams"

Kind = Literal["behavior", "catalog"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is read: records of each kind, single and in bulk."""

    products: int
    single: int
    bulk: int


FULL = Plan(100_000, 150_000, 400_000)
QUICK = Plan(1_000, 3_000, 20_000)


@dataclass(slots=True)
class Load:
    """One backlog. `messages` is known once it was published: bulk messages of a partition may be less than full."""

    kind: Kind
    products: int
    records: int
    per_message: int
    is_even: bool = False
    messages: int = 0

    @property
    def topic(self) -> str:
        return CATALOG if self.kind == "catalog" else BEHAVIOR

    @property
    def name(self) -> str:
        what = "price patches" if self.kind == "catalog" else "behaviour events"
        how = "single records" if self.per_message == 1 else f"{self.per_message} a message"
        return f"{what}, {how}" + (", evenly over products: hardly a row is met twice" if self.is_even else "")

    def events(self) -> Iterator[Product | Behavior]:
        """Records fall on products by Zipf, or evenly. Every row is cold when it is first met."""
        world = World(self.products, 0, 0)
        even: list[int] = np.random.default_rng(self.records).integers(self.products, size=self.records).tolist()
        products = even if self.is_even else world.changed(self.records, seed=self.records)
        began = now_ms()
        for number, product in enumerate(products):
            product_id = world.product_id(product)
            if self.kind == "catalog":
                yield Product(product_id=product_id, event_time=began, price=500 + number % 8_500, currency="GBP")
            else:
                kind: Any = KINDS[number % len(KINDS)]
                yield Behavior(type=kind, event_id=f"e{number:08d}", product_id=product_id, event_time=began)


def run(around: Surroundings) -> Finding:
    """A broker and a Redis of their own for each backlog; ours, floor and peers read it in turns."""
    plan = QUICK if around.quick else FULL
    single = Load("behavior", plan.products, plan.single, 1)
    bulk = Load("behavior", plan.products, plan.bulk, PER_MESSAGE)
    others = [
        Load("behavior", plan.products, plan.single, 1, is_even=True),
        Load("catalog", plan.products, plan.single, 1),
        Load("catalog", plan.products, plan.bulk, PER_MESSAGE),
    ]
    rows: list[Row] = []
    for load in (single, bulk) if around.quick else (single, bulk, *others):
        rows += _measure(around, load)
    return Finding("ingest", tuple(rows), _about(plan))


def _about(plan: Plan) -> tuple[str, ...]:
    missing = () if QUIX.is_dir() else ("Quix Streams, the other peer, was not there: `make bench` installs it aside",)
    return (
        f"records a second of one worker process: validation, state of {plan.products:,} products, feature-changes, "
        "flushes; from the first record to the last, without its start; records fall on products by Zipf",
        "floor: bare aiokafka that unpacks; peer: a stock Faust agent that unpacks, or as the row says",
        *missing,
    )


def _measure(around: Surroundings, load: Load) -> list[Row]:
    rates: dict[str, list[float]] = {"ours": [], "aiokafka": [], "faust": [], "quix": []}
    name = f"ingest-{load.kind}-{load.per_message}{'-even' if load.is_even else ''}"
    with around.broker_and_redis(name) as parts:
        around.say(f"ingest: {load.name}: publishing {load.records:,} records")
        _publish(parts, load)
        for repeat in range(around.repeats):
            for who, found in rates.items():
                rate = _rate(who, parts, load, repeat)
                if rate is not None:
                    found.append(rate)
                    around.say(f"ingest: {load.name}, run {repeat + 1} of {around.repeats}: {who} {rate:,.0f}/s")
    samples = [Sample(*three) for three in zip(rates["ours"], rates["aiokafka"], rates["faust"], strict=True)]
    target = Target(5.0, "peer", at_most=False) if load.per_message == 1 else Target(100_000, at_most=False)
    rows = [Row(load.name, "records/s", tuple(samples), () if load.is_even else (target,))]
    if rates["quix"]:
        beside = [Sample(*three) for three in zip(rates["ours"], rates["aiokafka"], rates["quix"], strict=True)]
        rows.append(Row(f"{load.name}; peer: Quix Streams", "records/s", tuple(beside)))
    return rows


def _publish(parts: Parts, load: Load) -> None:
    topics.create(parts.settings)
    with Publisher(Connection.from_settings(parts.settings)) as publisher:
        if load.per_message == 1:
            for event in load.events():
                publisher.publish(event)
            load.messages = load.records
        else:
            load.messages = publisher.publish_many(load.events(), load.per_message)


def _rate(who: str, parts: Parts, load: Load, repeat: int) -> float | None:
    """Records a second; None for a peer that is not there or cannot read such messages."""
    if who == "ours":
        return _ours(parts, load, repeat)
    told: dict[str, object] = {"topic": load.topic, "total": load.records}
    folder = parts.folder / "peers"
    state = str((folder / f"{who}-{repeat}").resolve())
    match who:
        case "aiokafka":
            child = Child(who, "benchmarks.peers.bare_aiokafka", told, folder, parts.environment)
        case "faust":
            child = Child(who, "benchmarks.peers.stock_faust", {**told, "folder": state}, folder, parts.environment)
        case _:
            # a bulk message has no key that a state could lie under
            if load.per_message > 1 or not QUIX.is_dir():
                return None
            told |= {"kafka": parts.broker.address, "folder": state}
            child = Child(who, "benchmarks.peers.quix", told, folder, parts.environment, packages=QUIX)
    with child:
        rate: float = child.wait_for("rate", TIMEOUT_S)
    return rate


def _ours(parts: Parts, load: Load, repeat: int) -> float:
    """A product worker on an empty Redis: without markers it reads the log from its start.

    From the first changed row that it sends, some milliseconds after its first fetch, to the last flush.
    """
    client: Redis = Redis.from_url(parts.redis_url)
    client.flushall()
    keys = _marker_keys(parts.settings, load)
    argv = [sys.executable, "-m", "streams", "worker", "--role", "product", "--instance", f"ingest-{repeat}"]
    worker = Process(argv, parts.folder / f"worker-{repeat}.log", parts.environment)
    with _FirstChange(parts.settings) as first:
        worker.start()
        try:
            ended = _end_ms(worker, client, keys, load.messages)
        finally:
            worker.stop(10.0)
            client.close()
        return load.records / (ended - first.sent_ms()) * 1000


def _marker_keys(settings: Settings, load: Load) -> list[str]:
    ids = topics.check(settings)
    space = space_of(PRODUCT_CATALOG if load.kind == "catalog" else PRODUCT_BEHAVIOR, ids)
    return [space.marker(partition) for partition in range(settings.partitions)]


def _end_ms(worker: Process, client: Redis, keys: list[str], messages: int) -> int:
    """When (ms UTC) the markers had reached the end of the log."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and worker.alive():
        found: Any = client.mget(keys)
        if sum(Marker.decode(marker).offset for marker in found if marker) >= messages:
            return now_ms()
        time.sleep(POLL_S)
    raise PartFailed(f"the worker did not reach the end of the log; see {worker.log}:\n{worker.tail()}")


class _FirstChange:
    """When a worker that is still to be started has sent its first message to `feature-changes`."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = Connection.from_settings(settings).consumer()
        self._places = [TopicPartition(FEATURE_CHANGES, partition) for partition in range(settings.partitions)]

    def __enter__(self) -> Self:
        self._consumer.assign(self._places)
        self._consumer.seek_to_end(*self._places)
        for place in self._places:
            self._consumer.position(place)  # finds the end now, not when it first reads
        self._begun_ms = now_ms()
        return self

    def sent_ms(self) -> int:
        """Its timestamp (ms UTC), that of the sender. Messages of an earlier worker are passed over."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            fetched = self._consumer.poll(timeout_ms=1000)
            times: list[int] = [record.timestamp for records in fetched.values() for record in records]
            if new := [time for time in times if time >= self._begun_ms]:
                return min(new)
        raise PartFailed(f"the worker sent nothing to {FEATURE_CHANGES}")

    def __exit__(self, *_: object) -> None:
        self._consumer.close(autocommit=False)
