"""`rankings` read back from a real broker."""

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from streams import reading
from streams.emitting import Outbound
from streams.local.tansu import TansuBroker
from streams.own_runs import OwnRuns
from streams.producing import KafkaSender
from streams.ranking_side import RankingSide
from streams.reading import RankingsFollower
from streams.records import WRITER
from streams.settings import Settings
from streams.tables import Published
from streams.workers import crash

OWN, OTHER = b"own", b"other"


@dataclass(slots=True)
class Side:
    """What a follower knows of the ranking side: one owned partition, and what it was told."""

    owned: tuple[int, ...] = (1,)
    writer: bytes = OWN
    told: list[str] = field(default_factory=list)
    runs: OwnRuns = field(default_factory=OwnRuns)
    read: asyncio.Event = field(default_factory=asyncio.Event)
    #: how much had been told when it was said for the first time that all was read
    told_when_read: int = 0
    awaited: str = ""
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def passed(self, partition: int, offset: int) -> int:
        return self.runs.passed(offset)

    def on_published(self, record: Published) -> None:
        self.told.append(record.result_set_id)
        if record.result_set_id == self.awaited:
            self.came.set()

    def on_rankings_read(self, partition: int) -> None:
        if not self.read.is_set():
            self.told_when_read = len(self.told)
        self.read.set()

    def begin_anew(self, writer: bytes) -> None:
        """Assigned again: nothing was told, and everything is another writer's."""
        self.told, self.runs, self.writer = [], OwnRuns(), writer
        self.read.clear()

    async def wait_for(self, result_set_id: str) -> None:
        if result_set_id not in self.told:
            self.awaited = result_set_id
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 20)


def messages(name: str, count: int, writer: bytes = OTHER) -> list[Outbound]:
    return [Outbound(f"{name}-{number}".encode(), b"value", ((WRITER, writer),)) for number in range(count)]


@pytest.mark.parts
async def test_what_others_write_is_read_and_own_records_are_passed_over(
    broker: TansuBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged records bear another writer's name here: they would be told if they were fetched. The follower looks
    only between writes, for it may fetch what was not acknowledged yet."""
    settings, topic = Settings(kafka=broker.address, kafka_kind="tansu"), f"rankings-{uuid.uuid4()}"
    monkeypatch.setattr(reading, "RANKINGS", topic)
    may_look, waits, ask_ends = asyncio.Event(), asyncio.Event(), reading._ends
    may_look.set()

    async def ends_when_nobody_writes(
        consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        waits.set()
        await may_look.wait()
        return await ask_ends(consumer, places)

    monkeypatch.setattr(reading, "_ends", ends_when_nobody_writes)
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([NewTopic(topic, 2, 1)])
    admin.close()
    sender, side = KafkaSender(settings, crash), Side()
    follower = RankingsFollower(settings, cast(RankingSide, side))
    await sender.start()
    following = asyncio.create_task(follower.run())
    try:
        await (await sender.send_many(topic, 1, messages("before", 2)))
        follower.restart()
        await asyncio.wait_for(side.read.wait(), 20)
        assert side.told == ["before-0", "before-1"]
        expected = list(side.told)
        for turn in range(5):
            may_look.clear()
            waits.clear()
            await asyncio.wait_for(waits.wait(), 20)
            await (await sender.send_many(topic, 1, messages(f"own-{turn}", 300), side.runs.add))
            await (await sender.send_many(topic, 1, messages(f"other-{turn}", 2)))
            # one's own that was not acknowledged when it was read
            await (await sender.send_many(topic, 1, messages(f"early-{turn}", 2, OWN)))
            expected += [f"other-{turn}-0", f"other-{turn}-1"]
            may_look.set()
            await side.wait_for(expected[-1])
            assert side.told == expected
        # assigned again while the follower asks where the partition ends: what that answers is of the time before
        may_look.clear()
        waits.clear()
        await asyncio.wait_for(waits.wait(), 20)
        side.begin_anew(b"anew")
        follower.restart()
        may_look.set()
        await asyncio.wait_for(side.read.wait(), 20)
        assert side.told_when_read == len(side.told) == 2 + 5 * 304
    finally:
        following.cancel()
        await sender.stop()
