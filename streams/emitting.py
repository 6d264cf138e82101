"""Changed rows and heartbeats go to `feature-changes` at once; rows gather only while a send is in flight."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from feature_repo.row import order_of
from streams.records import FEATURE_CHANGES, Change, Headers, encode_changes, encode_clock

ROWS_PER_MESSAGE = 1_000
BYTES_PER_MESSAGE = 500_000


class Outbound(NamedTuple):
    """A message for one partition of a topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers


#: told where records are that were acknowledged: the offset of the first (-1 when nobody knows) and how many they are
OnWritten = Callable[[int, int], None]


class Sender(Protocol):
    """The door to a Kafka producer. A send that fails for good ends the process before anything else is sent."""

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[object]:
        """Hand a message over; the awaitable is done once it is acknowledged."""
        ...

    async def send_many(
        self, topic: str, partition: int, messages: Sequence[Outbound], on_written: OnWritten | None = None
    ) -> Awaitable[object]:
        """Hand messages over in their order; the awaitable is done once all are acknowledged."""
        ...


class Changes(Protocol):
    """Where rows go that changed."""

    def emit(self, digest: bytes, change: Change, kafka_time: int) -> None: ...

    def pass_on(self, clocks: Mapping[int, int]) -> None: ...

    async def barrier(self) -> None: ...


class Unheard:
    """For rows that nobody reads yet: those of an encoder that is not in force."""

    def emit(self, digest: bytes, change: Change, kafka_time: int) -> None:
        """Nobody is told."""

    def pass_on(self, clocks: Mapping[int, int]) -> None:
        """Nobody is told."""

    async def barrier(self) -> None:
        """Nothing is on its way."""


class Emitter:
    """One send in flight: what changes meanwhile goes into the next message. Load makes messages bigger, not later."""

    def __init__(self, sender: Sender, partition: int, on_sent: Callable[[str, int], None]) -> None:
        self._sender = sender
        self._partition = partition
        self._on_sent = on_sent
        #: by view and entity: hash, row, Kafka timestamp
        self._rows: dict[tuple[str, str], tuple[bytes, Change, int]] = {}
        self._clocks: dict[int, int] = {}
        self._queued = 0
        self._acked = 0
        self._work = asyncio.Event()
        self._progress = asyncio.Condition()

    def emit(self, digest: bytes, change: Change, kafka_time: int) -> None:
        """Queue a row; `digest` is its `entity_hash`. It takes the place of one that still waits and is not newer.

        Newer than what comes is what another partition's writer said of the row, or this one before it rewound.
        `kafka_time` (ms) is that of the event behind it, for the freshness histogram; 0 when it was time.
        """
        key = (change.view, change.entity)
        waiting = self._rows.get(key)
        if waiting is None:
            self._queued += 1
        else:
            if waiting[2]:
                kafka_time = waiting[2]
            if order_of(waiting[1].blob) > order_of(change.blob):
                digest, change, _ = waiting
        self._rows[key] = (digest, change, kafka_time)
        self._work.set()

    def pass_on(self, clocks: Mapping[int, int]) -> None:
        """Queue the newest heartbeats: partition of `behavior` -> event time (ms)."""
        for partition, time in clocks.items():
            self._clocks[partition] = max(time, self._clocks.get(partition, 0))
        self._work.set()

    async def barrier(self) -> None:
        """Wait until every row queued before this call was acknowledged."""
        target = self._queued
        async with self._progress:
            await self._progress.wait_for(lambda: self._acked >= target)

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._rows or self._clocks:
                await self._send_some()

    async def _send_some(self) -> None:
        clocks, self._clocks = self._clocks, {}
        acks = []
        if clocks:
            acks.append(await self._sender.send(FEATURE_CHANGES, encode_clock(clocks), partition=self._partition))
        rows = self._take()
        if rows:
            value = encode_changes([digest for digest, _, _ in rows], [change for _, change, _ in rows])
            acks.append(await self._sender.send(FEATURE_CHANGES, value, partition=self._partition))
        for ack in acks:
            await ack
        for _, change, kafka_time in rows:
            self._on_sent(change.view, kafka_time)
        async with self._progress:
            self._acked += len(rows)
            self._progress.notify_all()

    def _take(self) -> list[tuple[bytes, Change, int]]:
        size = 0
        taken: list[tuple[bytes, Change, int]] = []
        for row in islice(self._rows.values(), ROWS_PER_MESSAGE):
            size += len(row[1].blob)
            if taken and size > BYTES_PER_MESSAGE:
                break
            taken.append(row)
        for _, change, _ in taken:
            del self._rows[change.view, change.entity]
        return taken
