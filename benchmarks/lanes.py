"""Ways from a price event to its rankings: ours, the bare hops, the textbook build. Each is sent to and heard alike.

    ours    Publisher's records -> catalog -> product worker -> feature-changes -> ranking worker -> rankings
    floor   the same three hops, by bare aiokafka in two relays, and one bare Triton call of the same rows
    peer    the textbook build

Every ranking that arrives counts, from the moment that the earliest event it reflects was handed to the producer.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.hops import EVENT
from benchmarks.wire import Arrived, Sent, Wire
from benchmarks.world import World
from feature_repo.events import Product
from feature_repo.row import HEADER
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
QUIET_S = 1.5
DRAIN_S = 60.0
#: one event at a time may take this long
ANSWER_S = 60.0
#: rankings that are kept as they came, at most: 1.7 KB each
KEPT_RECORDS = 200_000


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
        self._measured_before: Snapshot | None = None
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
        assert self._measured_before is not None, "begin() comes first"
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


def _version(blob: bytes) -> int:
    version: int = HEADER.unpack_from(blob)[3]
    return version
