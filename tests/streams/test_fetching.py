"""The door to librdkafka: what it reads from real brokers, and what it says when it cannot."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from time import monotonic

import pytest
import pytest_asyncio

from streams.emitting import Outbound
from streams.fetching import HANDED_OVER, Fetching, Message, OutOfRange
from streams.local.ports import HeldPort
from streams.producing import KafkaSender
from streams.records import Place
from streams.settings import Settings
from streams.workers import crash

TIMEOUT_S = 20


@pytest_asyncio.fixture
async def sender(settings: Settings) -> AsyncIterator[KafkaSender]:
    sender = KafkaSender(settings, crash)
    await sender.start()
    yield sender
    await sender.stop()


@pytest_asyncio.fixture
async def fetching(settings: Settings) -> AsyncIterator[Fetching]:
    fetching = Fetching(settings, "fetching")
    await fetching.start()
    yield fetching
    await fetching.stop()


async def take(fetching: Fetching, ends: Mapping[Place, int]) -> dict[Place, list[Message]]:
    """Everything that comes until these offsets are reached."""
    found: defaultdict[Place, list[Message]] = defaultdict(list)

    async def until_there() -> None:
        while any(not found[place] or found[place][-1].offset < end - 1 for place, end in ends.items()):
            for place, messages in (await fetching.get(1)).items():
                found[place] += messages

    await asyncio.wait_for(until_there(), TIMEOUT_S)
    return found


def values(first: int, count: int) -> list[Outbound]:
    return [Outbound(b"k%d" % number, b"%d" % number, ()) for number in range(first, first + count)]


@pytest.mark.parts
async def test_records_come_whole_and_in_order(sender: KafkaSender, fetching: Fetching, topic: str) -> None:
    many, odd = 3_000, [Outbound(b"key", b"value", (("a", b"1"), ("b", b""))), Outbound(b"gone", None, ())]
    await asyncio.gather(await sender.send_many(topic, 0, values(0, many)), await sender.send_many(topic, 1, odd))
    fetching.assign({(topic, 0): 0, (topic, 1): 0})
    found = await take(fetching, {(topic, 0): many, (topic, 1): 2})
    assert [(m.offset, m.key, m.value) for m in found[topic, 0]] == [
        (n, b"k%d" % n, b"%d" % n) for n in range(many)
    ]  # fmt: skip
    assert [(m.key, m.value, [*m.headers]) for m in found[topic, 1]] == [
        (b"key", b"value", [("a", b"1"), ("b", b"")]),
        (b"gone", None, []),
    ]
    assert found[topic, 1][0].kafka_time > 1_700_000_000_000
    assert 0 <= monotonic() * 1000 - fetching.came_at < TIMEOUT_S * 1000


@pytest.mark.parts
async def test_after_an_assignment_nothing_of_before_comes(sender: KafkaSender, fetching: Fetching, topic: str) -> None:
    """Also not what was fetched by then and given to nobody."""
    await asyncio.gather(*[await sender.send_many(topic, partition, values(0, 500)) for partition in (0, 1)])
    fetching.assign({(topic, 0): 0, (topic, 1): 0})
    await take(fetching, {(topic, 0): 1})
    for first in (490, 3, 250):
        fetching.assign({(topic, 1): first})
        found = await take(fetching, {(topic, 1): 500})
        assert [m.offset for m in found[topic, 1]] == [*range(first, 500)]
        assert found.keys() == {(topic, 1)}


@pytest.mark.parts
async def test_what_is_written_later_comes(sender: KafkaSender, fetching: Fetching, topic: str) -> None:
    fetching.assign({(topic, 0): 0})
    assert await fetching.get(0.3) == {}
    for turn in range(3):
        await (await sender.send_many(topic, 0, values(turn, 1)))
        found = await take(fetching, {(topic, 0): turn + 1})
        assert [m.value for m in found[topic, 0]] == [b"%d" % turn]


@pytest.mark.parts
async def test_ends_are_known_and_those_of_another_assignment_are_not(
    sender: KafkaSender, fetching: Fetching, topic: str
) -> None:
    await (await sender.send_many(topic, 0, values(0, 7)))
    assert fetching.end_of((topic, 0)) is None
    fetching.assign({(topic, 0): 7})
    await until_end(fetching, (topic, 0), 7)
    await (await sender.send_many(topic, 0, values(7, 1)))
    await take(fetching, {(topic, 0): 8})
    await until_end(fetching, (topic, 0), 8)
    fetching.assign({(topic, 1): 0})
    assert fetching.end_of((topic, 0)) is None


async def until_end(fetching: Fetching, place: Place, end: int) -> None:
    async def until_there() -> None:
        while fetching.end_of(place) != end:
            await fetching.get(0.05)

    await asyncio.wait_for(until_there(), TIMEOUT_S)


@pytest.mark.parts
@pytest.mark.parametrize("settings", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
async def test_an_offset_that_the_log_does_not_have_is_told(
    sender: KafkaSender, fetching: Fetching, topic: str
) -> None:
    """To begin elsewhere would lose events or read them twice. Tansu tells nothing; bounds are asked before."""
    await (await sender.send_many(topic, 1, values(0, 3)))
    fetching.assign({(topic, 1): 50})

    async def until_told() -> None:
        while True:
            assert await fetching.get(1) == {}

    with pytest.raises(OutOfRange, match=rf"{topic}\[1\]"):
        await asyncio.wait_for(until_told(), TIMEOUT_S)


async def test_a_failure_of_partitions_that_were_given_away_is_passed_over() -> None:
    fetching = Fetching(Settings(), "fetching")
    fetching.assign({("t", 0): 50})
    told = fetching._wanted[0]
    fetching._take((told, 0, OutOfRange("t[0]")))
    fetching._take((told, 0, OutOfRange("t[0]")))
    with pytest.raises(OutOfRange):
        await fetching.get(1)
    fetching.assign({("t", 1): 0})
    assert await fetching.get(1) == {}


@pytest.mark.parts
async def test_it_ends_while_nobody_takes_what_came(sender: KafkaSender, settings: Settings, topic: str) -> None:
    await asyncio.gather(*[await sender.send_many(topic, partition, values(0, 500)) for partition in (0, 1)])
    fetching = Fetching(settings, "fetching")
    await fetching.start()
    fetching.assign({(topic, 0): 0, (topic, 1): 0})

    async def until_it_waits_for_its_reader() -> None:
        while len(fetching._came) < HANDED_OVER:
            await (await sender.send_many(topic, 0, values(0, 1)))

    await asyncio.wait_for(until_it_waits_for_its_reader(), TIMEOUT_S)
    await asyncio.wait_for(fetching.stop(), TIMEOUT_S)


@pytest.mark.parts
async def test_brokers_that_are_away_are_waited_for() -> None:
    with HeldPort() as port:
        fetching = Fetching(Settings(kafka=port.address), "fetching")
        await fetching.start()
        try:
            fetching.assign({("nowhere", 0): 0})
            assert await fetching.get(0.5) == {}
        finally:
            await asyncio.wait_for(fetching.stop(), TIMEOUT_S)
