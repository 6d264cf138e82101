"""One view's rows of one input partition: fold, emit at once, flush behind.

    take      entries of a batch -> rows that are cached; the others are parked and loaded in bulk
    emit      rows whose values changed (or that nobody knows the readers saw) -> feature-changes
    flush     rows and agenda and marker in one script, after every output was acknowledged
    agenda    a heartbeat re-evaluates the rows from whose windows a bucket has left, a slice at a time

Everything here may be read again: a rewind drops this object and a new one resumes from the marker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from feature_repo.row import BY_TIME, Stamps, Values, join_row, pack_stamps, unpack_stamps
from feature_repo.row_store import (
    EMISSION_LIMIT_MS,
    KEEP,
    Flushed,
    Loaded,
    Marker,
    RowStore,
    RowWrite,
    Space,
    Stored,
    StoreUnavailable,
    pack_stored,
)
from feature_repo.views import MINUTE_MS
from streams.emitting import Changes, Sender
from streams.folding import Entry, Folding, admitted
from streams.records import Change, entity_hash

LOAD_ROWS = 500
PARKED_ENTRIES = 50_000
#: entries that are folded but not written: kept for the case that another worker wrote their row meanwhile
UNWRITTEN_ENTRIES = 500_000
AGENDA_SLICE = 500
RETRY_S = 0.1


class Rewind(Exception):
    """The store does not hold what this worker last saw there: drop the cache and resume from the marker."""


class AnotherTopic(Exception):
    """The log went back behind what was read: going on would skip or mix events."""


class OwnedRow(Struct, eq=False, gc=False):
    """A cached row and what has happened to it since it was last in the store."""

    entity: str
    #: stands for the entity in `feature-changes`
    digest: bytes
    state: Any
    stamps: Stamps
    read_stamps: bytes
    as_of: int
    kafka_time: int
    #: what readers were told last; None when nobody knows
    values: Values | None = None
    due: int | None = None
    #: the minute that the agenda has for it, as far as this worker knows
    agenda: int | None = KEEP
    #: the newest evaluation was for a heartbeat, not for an event
    by_time: bool = False
    changes: int = 0
    #: the row as it was emitted last, and how far it was then
    blob: bytes = b""
    blob_changes: int = -1
    #: the entries read now were read before: nobody knows what the readers saw
    is_unsure: bool = False
    pending: list[Entry] = []
    #: Redis's clock (ms) at the oldest emission that no flush has carried yet
    emitted_ms: int | None = None
    #: the handover at which the row was last seen at home, None where it was not: then it is looked at when written
    handover: bytes | None = None


class Flush(Struct, gc=False):
    """A row in a flush: what is written, and how far the row was then."""

    row: OwnedRow
    write: RowWrite
    stamps: bytes
    changes: int
    pending: int
    emitted_ms: int | None
    #: of its newest event; 0 when it was time that changed the row
    kafka_time: int


@dataclass(frozen=True, slots=True)
class Doors:
    """What a writer needs of the world. `monotonic_ms` is the process's clock."""

    store: RowStore
    emitter: Changes
    sender: Sender
    monotonic_ms: Callable[[], int]
    on_written: Callable[[str, int, Iterable[int]], None]
    on_conflict: Callable[[str, int], None]


class RowWriter:
    """The owner of the rows of one view and input partition. Call `begin` once, `take` for every batch."""

    def __init__(self, folding: Folding[Any], space: Space, partition: int, doors: Doors) -> None:
        self.folding = folding
        self.space = space
        self.partition = partition
        self.position = self.begun = 0
        #: somebody may have read, folded and emitted what is below
        self._read_to = 0
        #: newest heartbeat (ms) that was read
        self.clock = 0
        self._doors = doors
        self._rows: dict[str, OwnedRow] = {}
        self._dirty: dict[str, OwnedRow] = {}
        self._parked: dict[str, list[Entry]] = {}
        self._parked_entries = self._unwritten_entries = 0
        self._agenda: list[tuple[int, int]] = []
        self._expected = b""
        self._in_flight = b""
        #: as it was last seen
        self._handover = b""
        self._finished_clock = 0
        self._redis_offset = 0
        self._sends: list[Awaitable[object]] = []
        self._flushing = asyncio.Lock()
        self._news = asyncio.Event()
        self._dirty_since: int | None = None
        self._abandoned = False
        self._freed = asyncio.Event()
        self._to_load = asyncio.Event()
        self._to_visit = asyncio.Event()

    def begin(self, marker: Marker | None, start: int, end: int) -> None:
        """Resume from the marker, or from `start`, the log's start, when there is none; `end` is the log's end now.

        What lies between may have been emitted before, in other batches. A row whose values go and come back is emitted
        by who sees them gone and not by who sees both at once: up to `end`, every row that was touched is emitted.
        """
        self._read_to = end
        self._expected = self._in_flight = b"" if marker is None else marker.encode()
        # a log that begins above the marker was cut: whoever resumes there has accepted the gap
        self.position = self.begun = start if marker is None else max(marker.offset, start)
        self.clock = self._finished_clock = 0 if marker is None else marker.clock
        self._news.set()

    @property
    def written(self) -> int | None:
        """Offset below which everything is in the store; None before the first flush."""
        return Marker.decode(self._expected).offset if self._expected else None

    # --- take ------------------------------------------------------------------------------------------------------

    async def take(self, entries: Sequence[Entry], position: int, heartbeats: Sequence[tuple[int, int]] = ()) -> None:
        """Fold what one batch says. `position` is the next offset, heartbeats are (offset, event time in ms).

        Waits only while too much is unwritten or unloaded: memory is bounded, Kafka keeps the rest.
        """
        if entries and entries[0].input_offset < self.position:
            raise AnotherTopic(
                f"{self.space.view}[{self.partition}]: read offset {entries[0].input_offset} where {self.position} "
                "was to come: this is another topic of the same name"
            )
        for offset, time in heartbeats:
            self._agenda.append((offset, time))
            self.clock = max(self.clock, time)
        for row, theirs in self._by_row(entries):
            self._apply(row, theirs)
            self._tell(row, row.is_unsure or theirs[-1].input_offset < self._read_to)
        self.position = position
        self._news.set()
        if self._parked:
            self._to_load.set()
        if heartbeats:
            self._doors.emitter.pass_on({self.partition: self.clock})
            self._to_visit.set()
        await self._wait_for_room()

    def track(self, ack: Awaitable[object]) -> None:
        """An output of what was read up to now: the marker will not pass it before it is acknowledged."""
        self._sends.append(ack)

    def abandon(self) -> None:
        """These rows will be dropped: a batch that waits for room waits no longer, or nobody could seek."""
        self._abandoned = True
        self._freed.set()

    async def _wait_for_room(self) -> None:
        while not self._abandoned and not self._has_room():
            self._freed.clear()
            await self._freed.wait()

    def _has_room(self) -> bool:
        return (
            self._parked_entries <= PARKED_ENTRIES
            and self._unwritten_entries <= UNWRITTEN_ENTRIES
            and self._unwritten_ms() <= EMISSION_LIMIT_MS
        )

    def _unwritten_ms(self) -> int:
        return 0 if self._dirty_since is None else self._doors.monotonic_ms() - self._dirty_since

    def _by_row(self, entries: Sequence[Entry]) -> list[tuple[OwnedRow, list[Entry]]]:
        """The cached rows that entries are for, with theirs in order; the other entries are parked."""
        rows, parked = self._rows, self._parked
        found: dict[str, list[Entry]] = {}
        touched: list[tuple[OwnedRow, list[Entry]]] = []
        for entry in entries:
            entity = entry.entity
            theirs = found.get(entity)
            if theirs is not None:
                theirs.append(entry)
                continue
            row = rows.get(entity)
            if row is None or entity in parked:
                theirs = parked.setdefault(entity, [])
            else:
                theirs = []
                touched.append((row, theirs))
            theirs.append(entry)
            found[entity] = theirs
        self._parked_entries += len(entries) - sum([len(theirs) for _, theirs in touched])
        return touched

    def _apply(self, row: OwnedRow, entries: Sequence[Entry]) -> None:
        """Fold the entries that the row does not hold; forward what follows from all of them."""
        folding = self.folding
        row.by_time = False
        new = admitted(row.stamps, entries)
        is_known = len(new) < len(entries)
        if is_known:
            row.is_unsure = True
        changed = False
        if new:
            changed = folding.fold(row.state, new)
            row.pending += new
            self._unwritten_entries += len(new)
            self._touch(row)
        for entry in entries:
            if entry.kafka_time > row.kafka_time:
                row.kafka_time = entry.kafka_time
        if folding.forwards:
            forward = folding.forward(row.entity, row.state, row.stamps, entries, changed or is_known)
            if forward is not None:
                self._sends.append(self._send(forward.topic, forward.key.encode(), forward.value))

    def _send(self, topic: str, key: bytes, value: bytes) -> Awaitable[object]:
        async def sent() -> object:
            return await (await self._doors.sender.send(topic, value, key=key))

        return asyncio.ensure_future(sent())

    def _touch(self, row: OwnedRow) -> None:
        row.changes += 1
        self._dirty[row.entity] = row
        if self._dirty_since is None:
            self._dirty_since = self._doors.monotonic_ms()
            self._news.set()

    def _tell(self, row: OwnedRow, anyway: bool) -> None:
        """Emit the row if its values changed, or if nobody knows what the readers saw."""
        folding, state = self.folding, row.state
        row.as_of = as_of = max(row.as_of, self.clock, folding.newest(state))
        values = folding.values(state, as_of)
        row.due = folding.next_change(state, as_of)
        if anyway or values != row.values:
            row.values = values
            row.is_unsure = False
            self._touch(row)
            self._emit(row)

    def _emit(self, row: OwnedRow) -> None:
        change = Change(self.space.view, row.entity, self._blob(row))
        self._doors.emitter.emit(row.digest, change, 0 if row.by_time else row.kafka_time)
        if row.emitted_ms is None:
            row.emitted_ms = self._redis_now()

    def _blob(self, row: OwnedRow) -> bytes:
        if row.blob_changes != row.changes:
            row.blob_changes = row.changes
            row.blob = join_row(
                self.folding.values(row.state, row.as_of) if row.values is None else row.values,
                as_of=row.as_of,
                event_time=self.folding.newest(row.state),
                kafka_time=row.kafka_time,
                stamps=row.stamps,
                flags=BY_TIME if row.by_time else 0,
            )
        return row.blob

    def _redis_now(self) -> int | None:
        # the offset was taken when an answer arrived, after Redis had read its clock: this is early, never late
        return None if self._redis_offset == 0 else self._doors.monotonic_ms() + self._redis_offset

    def _saw_redis_clock(self, redis_ms: int) -> None:
        self._redis_offset = redis_ms - self._doors.monotonic_ms()

    # --- load ------------------------------------------------------------------------------------------------------

    async def run_loading(self) -> None:
        """Load parked rows for ever, in bulk."""
        while True:
            await self._to_load.wait()
            self._to_load.clear()
            while self._parked:
                await self._load_some(list(islice(self._parked, LOAD_ROWS)))

    async def _load_some(self, entities: Sequence[str]) -> None:
        loaded = await self._load(entities)
        for entity, stored in zip(entities, loaded.rows, strict=True):
            # the agenda may have loaded it meanwhile: then that row is the one that knows
            row = self._rows.setdefault(entity, self._owned(entity, stored, loaded.handover))
            entries = self._parked.pop(entity)
            self._parked_entries -= len(entries)
            self._apply(row, entries)
            self._tell(row, anyway=True)
        self._freed.set()
        self._evict()

    async def check(self) -> None:
        """Rewind if the store forgot something: a quiet partition neither flushes nor loads, so it would not notice."""
        await self._load(())

    async def _load(self, entities: Sequence[str]) -> Loaded:
        at_send = self._expected
        loaded: Loaded = await self._until_there(lambda: self._doors.store.load(self.space, self.partition, entities))
        self._saw_redis_clock(loaded.redis_ms)
        self._handover = loaded.handover
        if loaded.marker not in (at_send, self._expected, self._in_flight):
            raise Rewind(f"marker {loaded.marker!r} found, {self._expected!r} expected")
        return loaded

    def _owned(self, entity: str, stored: Stored | None, handover: bytes) -> OwnedRow:
        digest = entity_hash(self.folding.view.entity, entity)
        if stored is None:
            return OwnedRow(entity, digest, self.folding.empty(), {}, b"", 0, 0)
        state, stamps = self.folding.unpack(stored.state), dict(stored.stamps)
        row = OwnedRow(entity, digest, state, stamps, pack_stamps(stamps), stored.as_of, stored.kafka_time)
        row.handover = handover if stored.home == self.partition else None
        return row

    def _evict(self) -> None:
        excess = len(self._rows) - self.folding.cached_rows
        if excess > 0:
            for entity in list(islice((e for e in self._rows if e not in self._dirty), excess)):
                del self._rows[entity]

    # --- agenda ----------------------------------------------------------------------------------------------------

    async def run_agenda(self) -> None:
        """Re-evaluate for every heartbeat the rows from whose windows a bucket has left."""
        while True:
            await self._to_visit.wait()
            self._to_visit.clear()
            while self._agenda:
                # only the newest heartbeat matters: what an older one would change, it changes too
                finished, time = len(self._agenda), max(time for _, time in self._agenda)
                await self._visit(time)
                self._finished_clock = max(self._finished_clock, time)
                self._news.set()
                del self._agenda[:finished]

    async def _visit(self, time: int) -> None:
        while True:
            await self.flush()
            entities = await self._until_there(
                lambda: self._doors.store.due(self.space, self.partition, time // MINUTE_MS, AGENDA_SLICE)
            )
            if not entities:
                return
            if all(entity in self._parked for entity in entities):
                # loading them needs time, which asking again at once would not give it
                self._freed.clear()
                await self._freed.wait()
                continue
            cold = [entity for entity in entities if entity not in self._rows and entity not in self._parked]
            if cold:
                loaded = await self._load(cold)
                for entity, stored in zip(cold, loaded.rows, strict=True):
                    self._rows.setdefault(entity, self._owned(entity, stored, loaded.handover))
            for entity in entities:
                row = self._rows.get(entity)
                if row is not None:
                    row.by_time = True
                    self._touch(row)
                    self._tell(row, anyway=row.values is None)
            await asyncio.sleep(0)

    # --- flush -----------------------------------------------------------------------------------------------------

    def _low_water(self) -> Marker:
        # what was parked first is loaded first, and its first entry is the oldest
        parked = (entries[0].input_offset for entries in islice(self._parked.values(), 1))
        agenda = (offset for offset, _ in self._agenda[:1])
        return Marker(min(self.position, *parked, *agenda, self.position), self._finished_clock)

    async def until_news(self, at_most_s: float) -> None:
        """Until there is something to flush that there was not when this was called last, as far as is known."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._news.wait()
        self._news.clear()

    async def flush(self) -> None:
        """1. pack the rows  2. await every output's acknowledgement  3. the script, which also sets the marker."""
        async with self._flushing:
            # 1. what is packed and how far the input was then belong together: no await between
            marker, handover = self._low_water().encode(), self._handover
            flushes = [self._pack(row) for row in self._dirty.values()]
            since = self._doors.monotonic_ms()
            if not flushes and marker == self._expected:
                return
            sends, self._sends = self._sends, []
            # 2.
            await self._doors.emitter.barrier()
            for ack in sends:
                await ack
            # 3.
            self._in_flight = marker
            flushed = await self._write(flushes, marker, handover)
            conflicts = set(flushed.conflicts)
            if not conflicts:
                self._expected = marker
            for flush in flushes:
                if flush.row.entity not in conflicts:
                    self._settle(flush, flushed.handover)
            self._dirty_since = since if self._dirty else None
            if self._dirty:
                self._news.set()
            self._freed.set()
            written = [flush.kafka_time for flush in flushes if flush.row.entity not in conflicts]
            self._doors.on_written(self.space.view, self.partition, written)
            if conflicts:
                # under the lock: a flush meanwhile would carry the same rows once more
                await self._mend(conflicts)

    def _pack(self, row: OwnedRow) -> Flush:
        stamps = pack_stamps(row.stamps)
        state = pack_stored(self.partition, stamps, row.as_of, row.kafka_time, self.folding.pack(row.state))
        due = None if row.due is None else row.due // MINUTE_MS
        agenda = KEEP if due == row.agenda else due
        read_stamps = None if row.handover == self._handover else row.read_stamps
        write = RowWrite(row.entity, read_stamps, self._blob(row), state, agenda)
        kafka_time = 0 if row.by_time else row.kafka_time
        flush = Flush(row, write, stamps, row.changes, len(row.pending), row.emitted_ms, kafka_time)
        row.emitted_ms = None
        return flush

    async def _write(self, flushes: Sequence[Flush], marker: bytes, handover: bytes) -> Flushed:
        """The scripts, the last of which sets the marker. Rows that are not looked at were at home at this handover."""
        # a marker that did not move proves nothing: the store then guards the rows by a step
        following = b"" if marker == self._expected else marker
        writes = [flush.write for flush in flushes]

        def send() -> Awaitable[Flushed]:
            oldest = min((flush.emitted_ms for flush in flushes if flush.emitted_ms is not None), default=None)
            return self._doors.store.flush(
                self.space, self.partition, self._expected, following, writes, oldest, handover
            )

        while True:
            flushed: Flushed = await self._until_there(send)
            self._saw_redis_clock(flushed.redis_ms)
            if flushed.handover is not None:
                self._handover = flushed.handover
            match flushed.status:
                case "ok":
                    return flushed
                case "conflict":
                    self._doors.on_conflict(self.space.view, len(flushed.conflicts))
                    return flushed
                case "late":
                    await self._emit_again(flushes)
                case "handover":  # any row may have changed hands: from now on all are looked at
                    handover = self._handover
                    writes = [replace(flush.write, read_stamps=flush.row.read_stamps) for flush in flushes]
                case _:
                    raise Rewind(f"marker {flushed.marker!r} found, {self._expected!r} expected")

    async def _emit_again(self, chunk: Sequence[Flush]) -> None:
        for flush in chunk:
            flush.row.emitted_ms = None
            self._emit(flush.row)
            flush.emitted_ms = flush.row.emitted_ms
            if flush.row.changes == flush.changes:
                flush.row.emitted_ms = None
        await self._doors.emitter.barrier()

    def _settle(self, flush: Flush, handover: bytes | None) -> None:
        row = flush.row
        row.read_stamps, row.handover = flush.stamps, handover
        if flush.write.due != KEEP:
            row.agenda = flush.write.due
        del row.pending[: flush.pending]
        self._unwritten_entries -= flush.pending
        if row.changes == flush.changes:
            self._dirty.pop(row.entity, None)
            row.blob, row.blob_changes = b"", -1

    async def _mend(self, conflicts: Iterable[str]) -> None:
        """Rows that another writer wrote meanwhile: read again, apply again, emit again. Raises Rewind."""
        entities = list(conflicts)
        loaded = await self._load(entities)
        for entity, stored in zip(entities, loaded.rows, strict=True):
            known = self._rows[entity]
            if not _holds(stored, known.read_stamps):
                # other writers only add, so Redis forgot: what it forgot was not pending here
                raise Rewind(f"{self.space.view} {entity}: the store no longer holds what was read there")
            pending = known.pending
            row = self._owned(entity, stored, loaded.handover)
            self._rows[entity] = row
            self._touch(row)
            self._unwritten_entries -= len(pending)
            self._apply(row, pending)
            self._tell(row, anyway=True)

    async def _until_there(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The same call until Redis answers: the marker tells whether an earlier one had been carried out."""
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)


def _holds(stored: Stored | None, read_stamps: bytes) -> bool:
    """Whether a stored row contains everything that it contained when its stamps were these."""
    stamps = {} if stored is None else stored.stamps
    return all(stamps.get(partition, -1) >= offset for partition, offset in unpack_stamps(read_stamps).items())
