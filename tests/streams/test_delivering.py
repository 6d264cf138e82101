"""Single messages by librdkafka: on real brokers they lie where Kafka's own client puts them, in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from streams import delivering
from streams.delivering import Delivering, Undelivered
from streams.fetching import Fetching, Message
from streams.local.ports import HeldPort
from streams.records import partition_for
from streams.settings import Settings

TIMEOUT_S = 20
PARTITIONS = 2
MOST_BYTES = 10_000


@pytest_asyncio.fixture
async def delivery(settings: Settings) -> AsyncIterator[Delivering]:
    delivery = Delivering(settings, MOST_BYTES)
    await delivery.start()
    yield delivery
    await delivery.stop()


async def read(settings: Settings, topic: str, count: int) -> dict[int, list[Message]]:
    """So many messages of a topic, by partition."""
    fetching = Fetching(settings, "delivered")
    await fetching.start()
    try:
        fetching.assign({(topic, partition): 0 for partition in range(PARTITIONS)})
        found: dict[int, list[Message]] = {partition: [] for partition in range(PARTITIONS)}
        async with asyncio.timeout(TIMEOUT_S):
            while sum(map(len, found.values())) < count:
                for (_, partition), messages in (await fetching.get(0.1)).items():
                    found[partition] += messages
    finally:
        await fetching.stop()
    return found


@pytest.mark.parts
async def test_messages_lie_in_their_order_where_readers_by_key_look(
    settings: Settings, delivery: Delivering, topic: str
) -> None:
    keys = [f"白色T恤-{number}" for number in range(50)]
    acks = [await delivery.send(topic, b"%d" % n, keys[n % 50].encode(), None, (("n", b"v"),)) for n in range(500)]
    acks += [await delivery.send(topic, None, None, 1, ())]
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*acks)
    found = await read(settings, topic, 501)
    for partition, messages in found.items():
        named = [message for message in messages if message.key is not None]
        assert {partition_for((message.key or b"").decode(), PARTITIONS) for message in named} <= {partition}
        numbers = [int(message.value or b"") for message in named]
        assert numbers == sorted(numbers)
        assert {tuple(message.headers) for message in named} <= {(("n", b"v"),)}
    assert [(m.key, m.value) for m in found[1] if m.key is None] == [(None, None)]


@pytest.mark.parts
async def test_what_was_handed_over_is_sent_before_it_stops(settings: Settings, topic: str) -> None:
    delivery = Delivering(settings, MOST_BYTES)
    await delivery.start()
    for number in range(100):
        await delivery.send(topic, b"%d" % number, None, 0, ())
    await delivery.stop()
    assert len((await read(settings, topic, 100))[0]) == 100


@pytest.mark.parts
async def test_a_message_that_is_too_large_is_refused(delivery: Delivering, topic: str) -> None:
    with pytest.raises(Undelivered, match=f"{topic}: .*too large"):
        await delivery.send(topic, bytes(2 * MOST_BYTES), None, 0, ())


@pytest.mark.parts
async def test_a_broker_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "GIVE_UP_S", 0.5)
    with HeldPort() as port:
        delivery = Delivering(Settings(kafka=port.address), MOST_BYTES)
        await delivery.start()
        try:
            nobody_waits = await delivery.send("t", b"1", None, 0, ())
            nobody_waits.cancel()
            acknowledged = await delivery.send("t", b"2", None, 0, ())
            async with asyncio.timeout(TIMEOUT_S):
                with pytest.raises(Undelivered, match="t: "):
                    await acknowledged
        finally:
            await delivery.stop()


class FullFor:
    """A producer in which there is no room the first times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.produced = 0

    def produce(self, *_: object, **__: object) -> None:
        if self.times:
            self.times -= 1
            raise BufferError("Local: Queue full")
        self.produced += 1


async def test_where_too_much_waits_a_message_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "ROOM_S", 0)
    full = FullFor(3)
    delivery = Delivering(Settings(), MOST_BYTES)
    monkeypatch.setattr(delivery, "_producer", full)
    await delivery.send("t", b"1", None, 0, ())
    assert (full.times, full.produced) == (0, 1)
