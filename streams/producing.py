"""What the engine sends to Kafka, every acknowledgement awaited by somebody: single messages by librdkafka, many of a
partition at once by aiokafka, which sends one request for all partitions of a broker."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from streams.delivering import Delivering
from streams.emitting import OnWritten, Outbound
from streams.records import Headers, origin_headers
from streams.settings import Settings

#: `dead-letter` takes this much more than the inputs, for its headers
HEADROOM_BYTES = 65_536
#: of one batch. aiokafka's 16 KiB hold five rankings, and batches of a partition wait for each other's answers
BATCH_BYTES = 262_144


class KafkaSender:
    """`streams.emitting.Sender` over both clients. Idempotent where the broker can.

    Messages of a partition keep their order if all are sent in the same way. `on_failure` must end the process: clients
    go on with what follows a batch that has failed for good, and a stamp that passes an event which never came would
    keep it out for ever.
    """

    def __init__(self, settings: Settings, on_failure: Callable[[BaseException], None]) -> None:
        self._settings = settings
        self._on_failure = on_failure
        most_bytes = settings.limits.message_bytes + HEADROOM_BYTES
        self._singles = Delivering(settings, most_bytes)
        self._most_bytes = most_bytes
        self._producer: AIOKafkaProducer | None = None
        #: what goes with every record of a topic
        self._marks: dict[str, Headers] = {}

    async def start(self, origins: Mapping[str, bytes] | None = None) -> None:
        """Connect. `origins`: internal topic -> what its records are made from, which each will say."""
        settings = self._settings
        self._marks = {topic: origin_headers(origin) for topic, origin in (origins or {}).items()}
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka,
            acks="all",
            enable_idempotence=settings.kafka_kind == "apache",
            max_request_size=self._most_bytes,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=30_000,
            retry_backoff_ms=100,
            **settings.security(),
        )
        await self._producer.start()
        await self._singles.start()

    async def stop(self) -> None:
        await self._singles.stop()
        if self._producer is not None:
            await self._producer.stop()

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[object]:
        """Hand a message over; the awaitable is done once it is acknowledged."""
        ack = await self._singles.send(topic, value, key, partition, (*headers, *self._marks.get(topic, ())))
        ack.add_done_callback(self._look)
        return ack

    async def send_many(
        self, topic: str, partition: int, messages: Sequence[Outbound], on_written: OnWritten | None = None
    ) -> Awaitable[object]:
        """Hand messages over in their order, as batches of their own: one acknowledgement a batch, half the CPU."""
        assert self._producer is not None, "start() comes first"
        acks = []
        marks = self._marks.get(topic, ())
        batch = self._producer.create_batch()
        for key, value, headers in messages:
            headers = [*headers, *marks]
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                acks.append(await self._send_batch(batch, topic, partition, on_written))
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=headers)
        acks.append(await self._send_batch(batch, topic, partition, on_written))
        return acks[0] if len(acks) == 1 else asyncio.gather(*acks)

    async def _send_batch(
        self, batch: BatchBuilder, topic: str, partition: int, on_written: OnWritten | None
    ) -> "asyncio.Future[RecordMetadata]":
        assert self._producer is not None
        ack: asyncio.Future[RecordMetadata] = await self._producer.send_batch(batch, topic, partition=partition)
        ack.add_done_callback(self._look)
        if on_written is not None:
            count = batch.record_count()
            ack.add_done_callback(lambda ack: _tell(ack, count, on_written))
        return ack

    def _look(self, ack: "asyncio.Future[Any]") -> None:
        error = None if ack.cancelled() else ack.exception()
        if error is not None:
            self._on_failure(error)


def _tell(ack: "asyncio.Future[RecordMetadata]", count: int, on_written: OnWritten) -> None:
    if not ack.cancelled() and ack.exception() is None:
        on_written(ack.result().offset, count)
