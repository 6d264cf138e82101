"""What is sent: what fails for good is told at once, by the acknowledgement itself."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from kafka.admin import KafkaAdminClient, NewTopic

from streams.emitting import Outbound
from streams.local.tansu import TansuBroker
from streams.producing import BATCH_BYTES, KafkaSender
from streams.settings import Settings
from tests.streams.loops import settle


class FakeProducer:
    """Both clients as the sender sees them."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, ...]] = []
        self.acks: list[asyncio.Future[object]] = []
        self.batches: list[tuple[str, int, BatchBuilder]] = []

    async def send(self, *message: object) -> asyncio.Future[object]:
        self.sent.append(message)
        self.acks.append(asyncio.get_running_loop().create_future())
        return self.acks[-1]

    def create_batch(self) -> BatchBuilder:
        """The client's own, with room for about three records."""
        return BatchBuilder(300, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[object]:
        self.batches.append((topic, partition, batch))
        self.acks.append(asyncio.get_running_loop().create_future())
        return self.acks[-1]


def records_of(batch: BatchBuilder) -> list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    records = MemoryRecords(bytes(batch._build())).next_batch()
    assert records is not None
    return [(record.key, record.value, list(record.headers)) for record in records]


async def test_a_failure_is_told_although_nobody_waits_for_it() -> None:
    failures: list[BaseException] = []
    sender, producer = KafkaSender(Settings(), failures.append), FakeProducer()
    sender._singles = cast(Any, producer)
    first = await sender.send("t", b"1", key=b"k", partition=2, headers=(("h", b"v"),))
    await sender.send("t", None)
    assert producer.sent == [("t", b"1", b"k", 2, (("h", b"v"),)), ("t", None, None, None, ())]
    producer.acks[0].set_result("offset 7")
    assert await first == "offset 7"
    producer.acks[1].set_exception(RuntimeError("refused for good"))
    await settle()
    assert [str(error) for error in failures] == ["refused for good"]


async def test_an_acknowledgement_that_nobody_wants_any_more_is_no_failure() -> None:
    failures: list[BaseException] = []
    sender, producer = KafkaSender(Settings(), failures.append), FakeProducer()
    sender._singles = cast(Any, producer)
    await sender.send("t", b"1")
    producer.acks[0].cancel()
    await settle()
    assert failures == []


def messages(count: int) -> list[Outbound]:
    """Of some seventy bytes each; every third is a null."""
    return [
        Outbound(b"key-%d" % n, None if n % 3 == 2 else b"%d" % n * 40, (("writer", b"w"), ("version", b"%d" % n)))
        for n in range(count)
    ]


async def test_many_messages_go_in_their_order_in_batches_that_are_acknowledged_one_by_one() -> None:
    failures: list[BaseException] = []
    sender, producer = KafkaSender(Settings(), failures.append), FakeProducer()
    sender._producer = producer
    sent = messages(10)
    ack = asyncio.ensure_future(await sender.send_many("t", 2, sent))
    assert len(producer.batches) > 2
    assert {(topic, partition) for topic, partition, _ in producer.batches} == {("t", 2)}
    read = [record for _, _, batch in producer.batches for record in records_of(batch)]
    assert read == [(message.key, message.value, list(message.headers)) for message in sent]
    for waiting in producer.acks[:-1]:
        waiting.set_result("offset")
    await settle()
    assert not ack.done()
    producer.acks[-1].set_exception(RuntimeError("refused for good"))
    with pytest.raises(RuntimeError, match="refused for good"):
        await ack
    assert [str(error) for error in failures] == ["refused for good"]


@pytest.mark.parts
async def test_what_was_sent_lies_on_the_partition_in_its_order(broker: TansuBroker) -> None:
    """Batches, single messages and one that is larger than a batch."""
    settings = Settings(kafka=broker.address, kafka_kind="tansu")
    topic = f"sent-{uuid.uuid4()}"
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([NewTopic(topic, 2, 1)])
    admin.close()
    failures: list[BaseException] = []
    sender = KafkaSender(settings, failures.append)
    await sender.start({topic: b"here"})
    large = Outbound(b"large", bytes(BATCH_BYTES + 1), (("version", b"L"),))
    try:
        await (await sender.send_many(topic, 1, messages(3)))
        await (await sender.send(topic, b"single", key=b"s", partition=1))
        acks = [await sender.send_many(topic, 1, some) for some in ([large], messages(2000))]
        await asyncio.gather(*acks)
    finally:
        await sender.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 1)])
        await consumer.seek_to_beginning()
        found = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(2005)]
    finally:
        await consumer.stop()
    assert [record.key for record in found[:5]] == [b"key-0", b"key-1", b"key-2", b"s", b"large"]
    assert [record.headers[1][1] for record in found[5:]] == [b"%d" % n for n in range(2000)]
    assert {record.headers[-1] for record in found} == {("origin", b"here")}
    assert [record.value is None for record in found[5:8]] == [False, False, True]
    assert failures == []


async def test_a_sender_that_was_not_started_says_so() -> None:
    with pytest.raises(AssertionError, match=r"start\(\) comes first"):
        await KafkaSender(Settings(), lambda error: None).send("t", b"")
