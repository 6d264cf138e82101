"""The client that measures latencies: librdkafka at both ends, the same for every lane.

What it costs is taken from the cores that the measured runs on. So records are kept as they come, with when they came,
and are looked at after the run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec import Struct

from streams.local.part import PartFailed
from streams.settings import Settings

#: records that are taken at once, at most
MOST_RECORDS = 10_000
#: how long the thread waits for records before it looks whether it is to end
LOOK_S = 0.1
ANSWER_S = 30.0


class Sent(Struct, gc=False):
    """An event that was handed over, when (s); `offset` is known once the broker has acknowledged it."""

    at: float
    offset: int = -1


class Arrived(Struct, frozen=True, gc=False):
    """A record as it came, and when (s)."""

    at: float
    value: bytes | None
    kafka_time: int


class Wire:
    """Sends events and hears one topic, all of it that comes after `start`. `heard` is when the last record came."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.heard = 0.0
        self._settings = settings
        self._topic = topic
        self._arrived: deque[Arrived] = deque()
        self._came = threading.Event()
        self._failure: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._producer: Producer | None = None

    def start(self) -> None:
        """Connect, and read what comes from now on."""
        safe = {"enable.idempotence": True} if self._settings.kafka_kind == "apache" else {}
        self._producer = Producer({**self._settings.librdkafka(), **safe, "acks": "all", "linger.ms": 0})
        consumer = self._consumer()
        consumer.assign([TopicPartition(self._topic, *place) for place in self.ends(self._topic).items()])
        self._thread = threading.Thread(target=self._read, args=(consumer,), name=f"hearing-{self._topic}")
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the connections."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._producer is not None:
            self._producer.flush(ANSWER_S)
            self._producer = None

    def send(self, topic: str, value: bytes, *, key: bytes | None = None, partition: int = -1) -> Sent:
        """Hand an event over; partition -1 is the client's choice."""
        assert self._producer is not None, "start() comes first"
        sent = Sent(time.perf_counter())
        self._producer.produce(topic, value, key, partition, on_delivery=lambda error, at: self._note(sent, error, at))
        self._producer.poll(0)
        return sent

    def flush(self) -> None:
        """Wait until every event was acknowledged. Raises PartFailed for one that was not."""
        assert self._producer is not None, "start() comes first"
        if self._producer.flush(ANSWER_S):
            raise PartFailed(f"the broker has not acknowledged all events within {ANSWER_S:g} s")
        self._check()

    def arrived(self) -> list[Arrived]:
        """What has come since this was asked last."""
        self._check()
        return [self._arrived.popleft() for _ in range(len(self._arrived))]

    def wait(self, timeout_s: float) -> None:
        """Until records have come since this was called last, or the time is over."""
        self._came.wait(max(0.0, timeout_s))
        self._came.clear()

    @property
    def waiting(self) -> int:
        """How many records have come since."""
        return len(self._arrived)

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record of each partition."""
        consumer = self._consumer()
        try:
            places = [TopicPartition(topic, partition) for partition in range(self._settings.partitions)]
            return {place.partition: consumer.get_watermark_offsets(place, ANSWER_S)[1] for place in places}
        finally:
            consumer.close()

    def between(self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Arrived]:
        """The records of a topic between two states of its ends."""
        consumer = self._consumer()
        try:
            left = {partition for partition, end in ends.items() if starts[partition] < end}
            consumer.assign([TopicPartition(topic, partition, starts[partition]) for partition in left])
            deadline = time.perf_counter() + ANSWER_S
            while left:
                if time.perf_counter() > deadline:
                    raise PartFailed(f"{topic} could not be read within {ANSWER_S:g} s")
                for record in _good(consumer.consume(MOST_RECORDS, LOOK_S)):
                    if record.offset() < ends[record.partition()]:
                        yield Arrived(0.0, record.value(), record.timestamp()[1])
                at = consumer.position([TopicPartition(topic, partition) for partition in left])
                left = {place.partition for place in at if place.offset < ends[place.partition]}
        finally:
            consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                **self._settings.librdkafka(),
                "group.id": "bench",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": self._settings.fetch_wait_ms,
            }
        )

    def _read(self, consumer: Consumer) -> None:
        try:
            while not self._stopping.is_set():
                first = consumer.poll(LOOK_S)
                if first is None:
                    continue
                now = time.perf_counter()
                records = _good([first, *consumer.consume(MOST_RECORDS - 1, 0)])
                self._arrived.extend([Arrived(now, record.value(), record.timestamp()[1]) for record in records])
                self.heard = now
                self._came.set()
        except Exception as error:
            # said by who asks next
            self._failure = f"hearing {self._topic}: {error}"
            self._came.set()
        finally:
            consumer.close()

    def _note(self, sent: Sent, error: Any, record: Any) -> None:
        if error is not None:
            self._failure = f"an event was not taken: {error}"
        else:
            sent.offset = record.offset()

    def _check(self) -> None:
        if self._failure is not None:
            raise PartFailed(self._failure)


def _good(records: list[Any]) -> list[Any]:
    """The records. Raises PartFailed for an error in the place of one."""
    for record in records:
        if record.error() is not None:
            raise PartFailed(f"reading {record.topic()}: {record.error()}")
    return records
