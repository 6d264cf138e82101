"""The door to the producer: what fails for good is told at once, by the acknowledgement itself."""

from __future__ import annotations

import asyncio

import pytest

from streams.producing import KafkaSender
from streams.settings import Settings
from tests.streams.loops import settle


class FakeProducer:
    """aiokafka's producer as the sender sees it."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, ...]] = []
        self.acks: list[asyncio.Future[object]] = []

    async def send(self, topic: str, value: bytes | None, **fields: object) -> asyncio.Future[object]:
        self.sent.append((topic, value, fields["key"], fields["partition"], fields["headers"]))
        self.acks.append(asyncio.get_running_loop().create_future())
        return self.acks[-1]


async def test_a_failure_is_told_although_nobody_waits_for_it() -> None:
    failures: list[BaseException] = []
    sender, producer = KafkaSender(Settings(), failures.append), FakeProducer()
    sender._producer = producer
    first = await sender.send("t", b"1", key=b"k", partition=2, headers=(("h", b"v"),))
    await sender.send("t", None)
    assert producer.sent == [("t", b"1", b"k", 2, [("h", b"v")]), ("t", None, None, None, [])]
    producer.acks[0].set_result("offset 7")
    assert await first == "offset 7"
    producer.acks[1].set_exception(RuntimeError("refused for good"))
    await settle()
    assert [str(error) for error in failures] == ["refused for good"]


async def test_an_acknowledgement_that_nobody_wants_any_more_is_no_failure() -> None:
    failures: list[BaseException] = []
    sender, producer = KafkaSender(Settings(), failures.append), FakeProducer()
    sender._producer = producer
    await sender.send("t", b"1")
    producer.acks[0].cancel()
    await settle()
    assert failures == []


async def test_a_sender_that_was_not_started_says_so() -> None:
    with pytest.raises(AssertionError, match=r"start\(\) comes first"):
        await KafkaSender(Settings(), lambda error: None).send("t", b"")
