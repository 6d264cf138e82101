"""The floor of ingest: aiokafka and msgpack, nothing else."""

import asyncio

import msgpack
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.peers.counting import Counting
from benchmarks.telling import arguments
from streams.settings import Settings


async def main(topic: str, total: int) -> None:
    """Read a topic from its start and unpack every record."""
    settings = Settings()
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, fetch_max_wait_ms=settings.fetch_wait_ms)
    await consumer.start()
    places = [TopicPartition(topic, partition) for partition in range(settings.partitions)]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    counting = Counting(total)
    while True:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                value = msgpack.unpackb(record.value)
                if counting.add(len(value) if isinstance(value, list) else 1):
                    await consumer.stop()
                    return


if __name__ == "__main__":
    asyncio.run(main(**arguments()))
