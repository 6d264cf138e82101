"""A writer on a bench: its doors are fakes, its tasks run, and everything it emitted can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from feature_repo.events import Behavior, Product
from feature_repo.row import Row, unpack_row
from feature_repo.row_store import Marker, Space
from feature_repo.views import VIEW_BY_NAME
from streams.emitting import Emitter
from streams.folding import BehaviorFolding, Entry, Folding
from streams.records import FEATURE_CHANGES, Change, decode_change, decode_changes
from streams.writing import Doors, RowWriter
from tests.streams.fakes import REDIS_EPOCH_MS, FakeRedis, FakeRowStore, RecordingSender, Sent, loop_ms
from tests.streams.loops import settle

#: a full hour of event time (ms), and a day
HOUR = 1_300_000 * 1_000_000 // 3_600_000 * 3_600_000
MINUTE = 60_000

Kind = Literal["impression", "click", "cart", "purchase", "return"]


def behavior(product: str, number: int | str, *, time: int = HOUR, kind: Kind = "purchase", **fields: Any) -> Behavior:
    """An event with an id of its own."""
    return Behavior(type=kind, event_id=f"e{number}", product_id=product, event_time=time, **fields)


def bought(product: str, offset: int, *, time: int = HOUR, partition: int = 0, **fields: Any) -> Entry:
    """What one message that holds one purchase says."""
    event = behavior(product, f"{partition}-{offset}", time=time, **fields)
    return Entry(product, {partition: offset}, offset, time + 1, ((0, event),))


def patched(product: str, offset: int, *, time: int = HOUR, partition: int = 0, **fields: Any) -> Entry:
    """What one message that holds one patch says."""
    patch = Product(product_id=product, event_time=time, **fields)
    return Entry(product, {partition: offset}, offset, time + 1, ((0, patch),))


def changes_in(message: Sent) -> list[Change]:
    """Rows in a message of `feature-changes`; none in one that tells clocks."""
    assert message.topic == FEATURE_CHANGES
    assert message.value is not None
    decoded = decode_changes(message.value)
    return [] if isinstance(decoded, dict) else [decode_change(row) for row in decoded[1]]


def row_of(change: Change) -> Row:
    return unpack_row(VIEW_BY_NAME[change.view], change.blob)


@dataclass(slots=True)
class Bench:
    """One fake of each door; writers that are made here share them."""

    redis: FakeRedis = field(default_factory=lambda: FakeRedis(lambda: REDIS_EPOCH_MS + loop_ms()))
    sender: RecordingSender = field(default_factory=RecordingSender)
    written: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    doors: Doors = field(init=False)

    def __post_init__(self) -> None:
        self.doors = self.new_doors()

    def new_doors(self) -> Doors:
        """The doors of another process."""
        emitter = Emitter(self.sender, 0, lambda view, kafka_time: None)
        self.start(emitter.run())
        return Doors(
            FakeRowStore(self.redis),
            emitter,
            self.sender,
            loop_ms,
            lambda view, partition, times: self.written.extend(times),
            lambda view, rows: self.conflicts.append(rows),
        )

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def writer(
        self,
        folding: Folding[Any] | None = None,
        *,
        partition: int = 0,
        marker: Marker | None = None,
        start: int = 0,
        end: int = 0,
        doors: Doors | None = None,
        loads: bool = True,
    ) -> RowWriter:
        """A writer that resumes from `marker`; its rows are loaded and its agenda visited, but only a test flushes."""
        folding = folding or BehaviorFolding()
        space = Space("cluster", "topic", folding.view.name)
        writer = RowWriter(folding, space, partition, doors or self.doors)
        writer.begin(marker, start, end)
        if loads:
            self.start(writer.run_loading())
            self.start(writer.run_agenda())
        return writer

    async def take(self, writer: RowWriter, *entries: Entry, heartbeats: Sequence[tuple[int, int]] = ()) -> None:
        """One batch, and whatever follows from it but a flush."""
        offsets = [entry.input_offset for entry in entries] + [offset for offset, _ in heartbeats]
        await writer.take(entries, max(offsets) + 1, heartbeats)
        await settle()

    def emitted(self) -> list[Change]:
        """Every row that was emitted, in order."""
        return [change for message in self.sender.of(FEATURE_CHANGES) for change in changes_in(message)]

    def emissions(self) -> list[str]:
        """Entities that were emitted, in order."""
        return [change.entity for change in self.emitted()]

    def forget_emissions(self) -> None:
        self.sender.sent.clear()

    async def stored(self, writer: RowWriter, *entities: str) -> list[Row | None]:
        """Rows as their readers find them."""
        blobs = await self.doors.store.read(writer.space, entities)
        return [None if blob is None else unpack_row(writer.folding.view, blob) for blob in blobs]

    async def marker(self, writer: RowWriter) -> Marker | None:
        return (await self.doors.store.markers(writer.space, [writer.partition]))[0]

    def stop(self) -> list[BaseException]:
        """End every task; what any of them had raised."""
        raised: Iterable[BaseException | None] = (
            task.exception() for task in self.tasks if task.done() and not task.cancelled()
        )
        found = [error for error in raised if error is not None]
        for task in self.tasks:
            task.cancel()
        return found
