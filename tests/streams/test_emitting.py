"""Rows go out at once; they gather only while a send is in flight."""

from __future__ import annotations

import asyncio

import pytest

from feature_repo.row import HEADER, order_of
from streams.emitting import BYTES_PER_MESSAGE, ROWS_PER_MESSAGE, Emitter
from streams.records import Change, decode_changes, entity_hash
from tests.streams.bench import changes_in
from tests.streams.fakes import RecordingSender
from tests.streams.loops import settle


class Running:
    """An emitter that runs, and what it said was sent."""

    def __init__(self) -> None:
        self.sender = RecordingSender()
        self.told: list[tuple[str, int]] = []
        self.emitter = Emitter(self.sender, 3, lambda view, kafka_time: self.told.append((view, kafka_time)))
        self.task = asyncio.get_running_loop().create_task(self.emitter.run())

    def emit(self, *entities: str, size: int = 0, version: int = 1, as_of: int = 1) -> None:
        blob = HEADER.pack(0, 0, 0, version, as_of, 0, 0) + bytes(size)
        for entity in entities:
            self.emitter.emit(entity_hash("product", entity), Change("product_catalog", entity, blob), 7)

    def messages(self) -> list[list[str]]:
        return [[change.entity for change in changes_in(message)] for message in self.sender.sent]


@pytest.fixture
async def running() -> Running:
    return Running()


async def test_a_row_is_sent_at_once_with_its_hash_in_front(running: Running) -> None:
    running.emit("a")
    await settle()
    (message,) = running.sender.sent
    assert (message.topic, message.partition, message.key) == ("feature-changes", 3, None)
    assert message.value is not None
    decoded = decode_changes(message.value)
    assert not isinstance(decoded, dict)
    assert decoded[0].tobytes() == entity_hash("product", "a")
    assert running.told == [("product_catalog", 7)]


@pytest.mark.parametrize("order", [(1, 9), (2, 1)])
async def test_of_a_row_that_waits_the_newer_is_sent(running: Running, order: tuple[int, int]) -> None:
    """Two partitions' writers may tell of one row, each what it knows of it."""
    running.sender.held = True
    running.emit("b")
    await settle()
    running.emit("a", version=order[0], as_of=order[1])
    running.emit("a", version=1, as_of=8)
    running.sender.release()
    await settle()
    told = [change for message in running.sender.sent for change in changes_in(message)]
    assert [(change.entity, order_of(change.blob)) for change in told] == [("b", (1, 1)), ("a", order)]


async def test_rows_gather_while_a_send_is_in_flight_and_keep_their_order(running: Running) -> None:
    running.sender.held = True
    running.emit("a")
    await settle()
    running.emit("b", "c")
    await settle()
    running.emit("b")
    await settle()
    assert running.messages() == [["a"]]
    assert running.told == []
    running.sender.release()
    await settle()
    assert running.messages() == [["a"], ["b", "c"]]
    assert len(running.told) == 3


async def test_a_row_that_changes_again_before_it_is_sent_is_sent_once_as_it_is_then(running: Running) -> None:
    running.sender.held = True
    running.emit("a")
    await settle()
    running.emit("b", as_of=1)
    running.emit("c")
    waiting = asyncio.create_task(running.emitter.barrier())
    running.emit("b", as_of=2)
    running.sender.release()
    await waiting
    told = [(change.entity, order_of(change.blob)) for change in changes_in(running.sender.sent[1])]
    assert told == [("b", (1, 2)), ("c", (1, 1))]


async def test_a_message_is_bounded_by_rows_and_by_bytes(running: Running) -> None:
    running.emit(*(f"p{n}" for n in range(ROWS_PER_MESSAGE + 1)))
    await settle()
    assert [len(rows) for rows in running.messages()] == [ROWS_PER_MESSAGE, 1]
    running.sender.sent.clear()
    running.emit("a", "b", size=BYTES_PER_MESSAGE // 2 + 1)
    running.emit("c", size=2 * BYTES_PER_MESSAGE)
    running.emit("d")
    await settle()
    assert running.messages() == [["a"], ["b"], ["c"], ["d"]]


async def test_the_newest_clock_of_each_partition_is_told(running: Running) -> None:
    running.sender.held = True
    running.emitter.pass_on({0: 5})
    await settle()
    running.emitter.pass_on({0: 7, 1: 3})
    running.emitter.pass_on({0: 6})
    running.sender.release()
    await settle()
    assert [decode_changes(message.value or b"") for message in running.sender.sent] == [{0: 5}, {0: 7, 1: 3}]


async def test_a_barrier_waits_for_what_was_queued_before_it_and_for_no_more(running: Running) -> None:
    await running.emitter.barrier()
    running.sender.held = True
    running.emit("a")
    waiting = asyncio.create_task(running.emitter.barrier())
    await settle()
    assert not waiting.done()
    running.emit("b")
    running.sender.acknowledge()
    await settle()
    assert waiting.done()
    assert running.messages() == [["a"], ["b"]], "b is still on its way"


async def test_an_acknowledgement_that_is_missing_holds_the_barrier_of_all_its_rows(running: Running) -> None:
    running.emit("a")
    await running.emitter.barrier()
    running.sender.held = True
    running.emit("b", "c")
    waiting = asyncio.create_task(running.emitter.barrier())
    await settle()
    assert not waiting.done()
    running.sender.release()
    await waiting


async def test_a_send_that_fails_ends_the_emitter(running: Running) -> None:
    running.sender.error = RuntimeError("gone")
    running.emit("a")
    with pytest.raises(RuntimeError, match="gone"):
        await running.task
