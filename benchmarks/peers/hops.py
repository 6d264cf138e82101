"""The floor of a latency: a bare relay from topic to topic, in a process of its own; with a model, one call on the way.

An event is 8 bytes: its number and how many rows its ranking would score. Like the engine's, the relay takes all that
a fetch brought at once: under load one call scores the rows of several events.
"""

import asyncio
import struct
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.telling import arguments, tell
from serving.requests import ScoreRequest, empty_request
from serving.scorer import triton_scorer
from serving.settings import ServingSettings
from streams.settings import Settings

EVENT = struct.Struct("<II")
#: rows of one call, as the engine's
MOST_ROWS = 20_000


async def relay(source: str, target: str, *, size: int, scores: bool) -> None:
    """Pass everything on as messages of `size` bytes, for ever; with `scores` after a Triton call of their rows."""
    settings = Settings()
    scorer = triton_scorer(ServingSettings())
    consumer = await plain_consumer(settings, source)
    producer = plain_producer(settings)
    await producer.start()
    tell(ready=True)
    requests: dict[int, ScoreRequest] = {}
    while True:
        fetched = await consumer.getmany(timeout_ms=1000)
        events = [record.value[: EVENT.size] for records in fetched.values() for record in records]
        if scores and events:
            rows = min(sum(EVENT.unpack(event)[1] for event in events), MOST_ROWS)
            if rows not in requests:
                requests[rows] = _request(rows)
            await scorer.score(requests[rows])
        for event in events:
            await producer.send(target, event.ljust(size, b"."))


async def plain_consumer(settings: Settings, topic: str) -> AIOKafkaConsumer:
    """A consumer of all partitions of a topic from its end, without a group."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        enable_auto_commit=False,
        fetch_max_wait_ms=settings.fetch_wait_ms,
        **settings.security(),
    )
    await consumer.start()
    partitions = [TopicPartition(topic, p) for p in range(settings.partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    return consumer


def plain_producer(settings: Settings) -> Any:
    """A producer as the engine's: every message acknowledged by all replicas, idempotent where the broker can."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        acks="all",
        enable_idempotence=settings.kafka_kind == "apache",
        **settings.security(),
    )


def _request(rows: int) -> ScoreRequest:
    """Every row of a set of its own, as with one changed row a set."""
    request = empty_request(rows, rows)
    request.set_index[:] = range(rows)
    return request


if __name__ == "__main__":
    asyncio.run(relay(**arguments()))
