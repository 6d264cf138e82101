"""The drain: it alone reads and seeks, and nothing from before a seek reaches an agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from streams.agents import Agents
from streams.fetching import Message
from streams.owning import Bounds
from streams.records import Place
from streams.settings import Settings
from streams.transport import Batch, Consumer, Hooks
from tests.streams.loops import settle

A, B = ("t", 0), ("t", 1)


def message(offset: int) -> Message:
    return Message(offset, b"k", b"%d" % offset, offset + 1000, ())


@dataclass(slots=True)
class QueuedFetching:
    """What `streams.fetching` is to the drain: fetches are queued by the test, assignments are written down."""

    came: asyncio.Queue[dict[Place, list[Message]]] = field(default_factory=asyncio.Queue)
    assigned: list[dict[Place, int]] = field(default_factory=list)

    def assign(self, positions: Mapping[Place, int]) -> None:
        self.assigned.append(dict(positions))

    async def get(self, timeout_s: float) -> dict[Place, list[Message]]:
        return await self.came.get()


class DrivenConsumer(Consumer):
    """The consumer without Kafka."""

    def __init__(self, hooks: Hooks) -> None:
        self.app = cast(Any, SimpleNamespace(consumer_generation_id=1, should_stop=False))
        self.transport = cast(Any, SimpleNamespace(hooks=hooks))
        self.queued = QueuedFetching()
        self._fetching = cast(Any, self.queued)
        self.delivered: list[Batch] = []
        self.partitions = {TP(*A), TP(*B)}
        self.flow_active = True
        self.suspend_flow, self.can_resume_flow = cast(Any, (asyncio.Event(), asyncio.Event()))
        self._committed_offset = {}
        #: called with each batch that is delivered; by default it is done at once
        self.on_batch: Callable[[Batch], None] = lambda batch: batch.done.set()

    @property
    def should_stop(self) -> bool:
        return False

    def assignment(self) -> set[TP]:
        return self.partitions

    def _get_active_partitions(self) -> set[TP]:
        return self.partitions

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 2)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 9)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return {TP(*A): 4}

    async def _wait_next_records(self, timeout: float) -> Any:
        return await self._getmany(None, timeout), None

    async def callback(self, message: Any) -> None:
        self.delivered.append(message.value)
        self.on_batch(message.value)

    def seen(self) -> list[tuple[int, list[int]]]:
        """(partition, offsets) of everything that was delivered."""
        return [(batch.partition, [m.offset for m in batch.messages]) for batch in self.delivered]


@dataclass
class Drive:
    """A drain that runs, and an owner that always answers with what the test has set."""

    offsets: dict[Place, int] = field(default_factory=lambda: {A: 5, B: 7})
    asked: list[tuple[dict[Place, Bounds], int]] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)
    during_resume: Callable[[], None] = lambda: None
    consumer: DrivenConsumer = field(init=False)

    def __post_init__(self) -> None:
        async def resume(bounds: Mapping[Place, Bounds], generation: int) -> Mapping[Place, int]:
            self.asked.append((dict(bounds), generation))
            self.during_resume()
            return {place: offset for place, offset in self.offsets.items() if place in bounds}

        async def nothing(*_: object) -> None:
            return None

        hooks = Hooks(Settings(kafka_kind="apache"), resume, nothing, dict, nothing, self.crashes.append)
        self.consumer = DrivenConsumer(hooks)
        fetcher = SimpleNamespace(should_stop=False)
        self.task = asyncio.get_running_loop().create_task(self.consumer._drain_messages(fetcher))

    async def fetch(self, fetched: dict[Place, list[int]]) -> None:
        messages = {place: [message(offset) for offset in offsets] for place, offsets in fetched.items()}
        self.consumer.queued.came.put_nowait(messages)
        await settle()

    @property
    def assigned(self) -> list[dict[Place, int]]:
        """Where the drain was to read from, each time."""
        return self.consumer.queued.assigned


@pytest.fixture
async def drive() -> Drive:
    made = Drive()
    await settle()
    return made


async def test_the_owner_is_asked_before_anything_is_read(drive: Drive) -> None:
    bounds = {A: Bounds(2, 9, 4), B: Bounds(2, 9, -1)}
    assert drive.asked == [(bounds, 1)]
    assert drive.assigned == [{A: 5, B: 7}]
    assert drive.consumer.delivered == []


async def test_a_fetch_of_a_partition_is_one_batch(drive: Drive) -> None:
    await drive.fetch({A: [5, 6, 8], B: [7]})
    first, second = drive.consumer.delivered
    assert (first.topic, first.partition, first.epoch, first.next_offset) == ("t", 0, 1, 9)
    assert first.messages[0] == Message(5, b"k", b"5", 1005, ())
    assert second.next_offset == 8
    assert drive.consumer.read_times == {A: 1008, B: 1007}


async def test_the_next_batch_waits_until_the_last_is_done(drive: Drive) -> None:
    drive.consumer.on_batch = lambda batch: None
    await drive.fetch({A: [5], B: [7]})
    assert drive.consumer.seen() == [(0, [5])]
    drive.consumer.delivered[0].done.set()
    await settle()
    assert drive.consumer.seen() == [(0, [5]), (1, [7])]


async def test_a_rewind_during_a_fetch_drops_the_rest_of_it(drive: Drive) -> None:
    def rewind(batch: Batch) -> None:
        drive.consumer.request_seek()
        batch.done.set()

    drive.consumer.on_batch = rewind
    await drive.fetch({A: [5], B: [7]})
    assert drive.consumer.seen() == [(0, [5])]
    assert drive.assigned == [{A: 5, B: 7}] * 2
    drive.consumer.on_batch = lambda batch: batch.done.set()
    await drive.fetch({A: [5]})
    assert drive.consumer.delivered[-1].epoch == 2


async def test_a_rebalance_lets_go_of_a_batch_that_is_not_done(drive: Drive) -> None:
    """An agent may be waiting for the store: the drain must not wait for it when the partitions go."""
    drive.consumer.on_batch = lambda batch: None
    await drive.fetch({A: [5], B: [7]})
    drive.consumer.stop_flow()
    await settle()
    await drive.fetch({B: [7]})
    assert drive.consumer.seen() == [(0, [5])], "nothing is delivered while the flow is suspended"
    assert len(drive.asked) == 1, "nor is the owner asked"
    drive.consumer.resume_flow()
    drive.consumer.partitions = {TP(*B)}
    await drive.consumer.perform_seek()
    await drive.fetch({})
    assert drive.assigned[-1] == {B: 7}
    assert drive.consumer.epoch == 2


async def test_a_rebalance_while_a_batch_is_handed_over_lets_go_of_it(drive: Drive) -> None:
    """Its agent's queue was emptied by then: nobody would say that it is done."""

    def rebalance(batch: Batch) -> None:
        drive.consumer.stop_flow()
        drive.consumer.resume_flow()
        drive.consumer.request_seek()

    drive.consumer.on_batch = rebalance
    await drive.fetch({A: [5], B: [7]})
    assert drive.consumer.seen() == [(0, [5])]
    assert drive.consumer.epoch == 2


@pytest.mark.parametrize("what", ["generation", "rewind"])
async def test_an_answer_that_was_overtaken_is_asked_for_again(what: str) -> None:
    drive = Drive()

    def overtake() -> None:
        drive.during_resume = lambda: None
        if what == "rewind":
            drive.consumer.request_seek()
        else:
            drive.consumer.app.consumer_generation_id += 1

    drive.during_resume = overtake
    await settle()
    assert len(drive.asked) == 2
    assert drive.assigned == [{A: 5, B: 7}]
    assert drive.consumer.epoch == 2


async def test_an_owner_without_partitions_is_told_so(drive: Drive) -> None:
    drive.consumer.partitions = set()
    drive.consumer.request_seek()
    await drive.fetch({})
    assert drive.asked[-1] == ({}, 1)
    assert drive.assigned[1:] == [{}]


async def test_what_fails_in_the_drain_ends_the_process(drive: Drive) -> None:
    def fail() -> None:
        raise ValueError("the log was cut")

    drive.during_resume = fail
    drive.consumer.request_seek()
    await drive.fetch({})
    assert [str(error) for error in drive.crashes] == ["the log was cut"]


# --- agents --------------------------------------------------------------------------------------------------------


async def handle(drive: Drive, handler: Callable[[Batch], Awaitable[None]], epoch: int) -> Batch:
    app = SimpleNamespace(consumer=drive.consumer)
    batch = Batch("t", 0, [Message(5, None, None, 0, ())], epoch)
    await Agents(cast(Any, app), drive.crashes.append)._handle(handler, batch)
    return batch


async def test_an_agent_handles_batches_of_this_epoch_only(drive: Drive) -> None:
    handled: list[Batch] = []

    async def take(batch: Batch) -> None:
        handled.append(batch)

    assert (await handle(drive, take, epoch=0)).done.is_set()
    assert handled == []
    batch = await handle(drive, take, epoch=1)
    assert handled == [batch]
    assert batch.done.is_set()


async def test_no_exception_leaves_an_agent_and_every_one_ends_the_process(drive: Drive) -> None:
    async def fail(batch: Batch) -> None:
        raise RuntimeError("no such thing")

    batch = await handle(drive, fail, epoch=1)
    assert batch.done.is_set()
    assert [str(error) for error in drive.crashes] == ["no such thing"]
