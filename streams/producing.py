"""The door to Kafka for what the engine sends: one aiokafka producer, every acknowledgement awaited by somebody."""

from collections.abc import Awaitable

from aiokafka import AIOKafkaProducer

from streams.records import Headers
from streams.settings import Settings

#: `dead-letter` takes this much more than the inputs, for its headers
HEADROOM_BYTES = 65_536


class KafkaSender:
    """`streams.emitting.Sender` over aiokafka. Idempotent where the broker can."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        settings = self._settings
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka,
            acks="all",
            enable_idempotence=settings.kafka_kind == "apache",
            max_request_size=settings.limits.message_bytes + HEADROOM_BYTES,
            request_timeout_ms=30_000,
            retry_backoff_ms=100,
            **settings.security(),
        )
        await self._producer.start()

    async def stop(self) -> None:
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
        assert self._producer is not None, "start() comes first"
        ack: Awaitable[object] = await self._producer.send(
            topic, value, key=key, partition=partition, headers=list(headers)
        )
        return ack
