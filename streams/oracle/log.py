"""Partitions of Kafka, read to their end as of now, again and again."""

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from kafka import TopicPartition

from streams.client import Connection, Unreachable
from streams.oracle.replaying import Message
from streams.records import Headers

POLL_S = 0.1

#: topic and partition
Part = tuple[str, int]


class Fetched(NamedTuple):
    """A record of any topic, with its headers."""

    message: Message
    headers: Headers


class LogReader:
    """All partitions of some topics, each from its start; with `tail`, only what says where each ends.

    Raises Unreachable when the broker is away or stops answering.
    """

    def __init__(self, connection: Connection, partitions: Mapping[str, int], *, tail: bool = False) -> None:
        self._connection = connection
        self._places = [TopicPartition(topic, p) for topic, count in partitions.items() for p in range(count)]
        self._tail = tail
        self._consumer: Any = None
        self.begins: dict[Part, int] = {}

    def __enter__(self) -> Self:
        self._consumer = self._connection.consumer()
        self._consumer.assign(self._places)
        begins = self._consumer.beginning_offsets(self._places)
        ends = self._consumer.end_offsets(self._places)
        for place in self._places:
            # one before the end, as Tansu tells it, is the first record of the last batch
            self._consumer.seek(place, max(begins[place], ends[place] - 1) if self._tail else begins[place])
        self.begins = _by_part(begins)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._consumer.close(autocommit=False)

    def news(self) -> Iterator[Fetched]:
        """What was not read yet, up to the end as of this call; each partition in order."""
        ends = self._consumer.end_offsets(self._places)
        heard = time.monotonic()
        while not self._caught_up(ends):
            for records in self._consumer.poll(timeout_ms=round(POLL_S * 1000)).values():
                heard = time.monotonic()
                for r in records:
                    message = Message(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value)
                    yield Fetched(message, r.headers)
            if time.monotonic() - heard > self._connection.timeout_s:
                raise Unreachable(f"{self._connection.bootstrap} stopped answering while the log was read")

    @property
    def positions(self) -> dict[Part, int]:
        """The next offset of each partition: its end, right after `news` was read through."""
        return {(place.topic, place.partition): self._consumer.position(place) for place in self._places}

    def _caught_up(self, ends: Mapping[TopicPartition, int]) -> bool:
        # what Tansu calls the end is too low; the high watermark of the fetch that reaches it is right
        consumer = self._consumer
        return all(consumer.position(place) >= max(end, consumer.highwater(place) or 0) for place, end in ends.items())


def _by_part(offsets: Mapping[TopicPartition, int]) -> dict[Part, int]:
    return {(place.topic, place.partition): offset for place, offset in offsets.items()}


def drain(news: Iterable[Fetched]) -> int:
    """Read through; how many there were."""
    return sum(1 for _ in news)
