"""Rows, stamps, agenda and markers in Redis: one script to write, one to read.

The rows of a view are two hashes with a field an entity: `r`, what readers get (`feature_repo.row`), and `s`, the
writer's packed state behind its stamps. Beside the rows lies one marker per input partition: everything below its
offset is in Redis, and its outputs were acknowledged. The marker and the stamps are compared inside the script that
writes, so an emptied Redis, a second writer of a row and a worker that lost its partition are all noticed by the write
itself, not by connection errors, which clients hide. A script that writes leaves a step, a name of its flush: a Redis
that forgets rows which the marker had not passed (a flush in several scripts, a conflict) forgets the step, too, and a
second writer leaves another one.

To compare the stamps of every row costs more than to write it, and nearly every row has one writer for ever. So a row
names its home, the partition whose writer wrote it last, and whoever writes a row of another home changes the
handover, a value beside the rows. A row that a writer saw at home is its own as long as the handover is the one it saw
then: such rows are written without a look at what is there.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import hiredis
import msgpack
from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from feature_repo.lines import Lines
from feature_repo.row import STAMP, Stamps, unpack_stamps

#: a row is refused when its oldest emission is older than this (ms by Redis's clock): the minute must cover it
EMISSION_LIMIT_MS = 20_000
#: rows a script: keeps Redis's stops short, and the next one is packed while Redis is busy with it
ROWS_PER_SCRIPT = 250
#: what a RowWrite says of an agenda that need not change
KEEP = -2
_NEVER = -1

#: how rows lie in Redis: one of another layout is as empty, and is filled again from the topics
LAYOUT = 3

# Rows travel as one msgpack argument, a list a column, and the entities of those that are read as another: to make an
# argument of each would cost the client more than all the rest. It is msgpack of the old kind that Redis's cmsgpack
# knows: strings, no bins. Calls on many rows are made in portions, since what Lua unpacks must fit on its stack. Hashes
# that all rows of a view share rule Redis Cluster out, and so do markers beside rows.
#
# The scripts of a flush are sent one behind the other, without waiting for answers. Each leaves a step that stays: the
# name of the flush and its own number. The first finds the step of before or, when the flush is sent again, one of this
# flush; the others find that of the one before them, or that one was refused and so are they. A conflict marks the step
# with a ! from there on, and the last script leaves the marker where it is. A marker that is already the new one was
# set by this flush only where its last step stands, too: who owned the partition before may be as far.

_WRITE = """
local function stamps_of(state)
  local high, low = string.byte(state, 3, 4)
  return string.sub(state, 5, 4 + high * 256 + low)
end
local function change(command, key, args)
  for first = 1, #args, 4000 do redis.call(command, key, unpack(args, first, math.min(first + 3999, #args))) end
end
local expected, following, before, step, number, last, oldest, limit, seen, anew, rows = unpack(ARGV)
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local marker = redis.call('GET', KEYS[1]) or ''
local hands = redis.call('GET', KEYS[6]) or ''
local there, own_step = redis.call('GET', KEYS[3]) or '', step .. ':'
local is_own_step = string.sub(there, 1, #own_step) == own_step
if marker ~= expected then
  if following ~= '' and marker == following and there == own_step .. last then return {'done', now, hands} end
  return {'marker', now, hands, marker}
end
local failed = ''
if number == '0' then
  if before ~= '' and there ~= before and not is_own_step then return {'marker', now, hands, marker} end
else
  if not is_own_step then return {'behind', now, hands} end
  local reached
  reached, failed = string.match(there, '(%d+)(!?)$')
  if reached ~= number and tonumber(reached) + 1 ~= tonumber(number) then return {'behind', now, hands} end
end
if oldest ~= '' and now - tonumber(oldest) > tonumber(limit) then return {'late', now, hands} end
local own, own_states, due, undue, others = unpack(cmsgpack.unpack(rows))
if #own > 0 and hands ~= seen then return {'handover', now, hands} end
local conflicts, is_handed_over = {}, hands == ''
local entities, read, blobs, states, minutes = unpack(others)
for i, entity in ipairs(entities) do
  local state = redis.call('HGET', KEYS[5], entity)
  local stamps = state and stamps_of(state) or ''
  if stamps == read[i] or stamps == stamps_of(states[i]) then
    is_handed_over = is_handed_over or (state and string.sub(state, 1, 2) ~= string.sub(states[i], 1, 2))
    own[#own + 1], own[#own + 2] = entity, blobs[i]
    own_states[#own_states + 1], own_states[#own_states + 2] = entity, states[i]
    if minutes[i] >= 0 then
      due[#due + 1], due[#due + 2] = minutes[i], entity
    elseif minutes[i] == -1 then
      undue[#undue + 1] = entity
    end
  else
    conflicts[#conflicts + 1] = entity
  end
end
change('HSET', KEYS[4], own)
change('HSET', KEYS[5], own_states)
change('ZADD', KEYS[2], due)
change('ZREM', KEYS[2], undue)
if is_handed_over then
  hands = anew
  redis.call('SET', KEYS[6], hands)
end
if #conflicts > 0 then failed = '!' end
redis.call('SET', KEYS[3], own_step .. number .. failed)
if number == last then
  if failed ~= '' then return {'conflict', now, hands, conflicts} end
  if following ~= '' then redis.call('SET', KEYS[1], following) end
end
return {'ok', now, hands, conflicts}
"""

_READ = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local entities, values = cmsgpack.unpack(ARGV[1]), {}
for first = 1, #entities, 1000 do
  local some = redis.call('HMGET', KEYS[2], unpack(entities, first, math.min(first + 999, #entities)))
  for i = 1, #some do values[first + i - 1] = some[i] end
end
return {redis.call('GET', KEYS[1]) or '', now, redis.call('GET', KEYS[3]) or '', values}
"""


class StoreUnavailable(Exception):
    """Redis is away or did not answer: what was sent is in doubt, send the same again."""


@dataclass(frozen=True, slots=True)
class Space:
    """Where the rows of one view live: keys begin with cluster and topic, so a topic made anew starts anew."""

    cluster: str
    topic_id: str
    view: str
    #: version of the encoder for content views: a new encoder fills rows of its own
    variant: str = ""

    @property
    def prefix(self) -> str:
        return f"freshrank:{LAYOUT}:{self.cluster}:{self.topic_id}:{self.view}:{self.variant}"

    @property
    def blobs(self) -> str:
        """Key of the hash of what readers get, by entity."""
        return blobs_key(self.prefix)

    @property
    def states(self) -> str:
        """Key of the hash of packed states, by entity."""
        return f"{self.prefix}:s"

    def marker(self, partition: int) -> str:
        return marker_key(self.prefix, partition)

    def agenda(self, partition: int) -> str:
        return f"{self.prefix}:a:{partition}"

    def step(self, partition: int) -> str:
        return f"{self.prefix}:p:{partition}"

    @property
    def handover(self) -> str:
        return f"{self.prefix}:h"


@dataclass(frozen=True, slots=True)
class Marker:
    """Everything below `offset` is in the store; `clock` is the newest heartbeat (ms) below it, 0 before the first."""

    offset: int
    clock: int = 0

    def encode(self) -> bytes:
        return f"{self.offset}:{self.clock}".encode()

    @classmethod
    def decode(cls, data: bytes) -> "Marker":
        offset, clock = data.split(b":")
        return cls(int(offset), int(clock))


class Stored(Struct, frozen=True, gc=False):
    """A row's state as its writer packed it, with the stamps it contains and the as_of (ms) it was evaluated at.

    `home` is the input partition whose writer wrote it.
    """

    home: int
    stamps: Stamps
    as_of: int
    kafka_time: int
    state: bytes


class RowWrite(Struct, frozen=True, gc=False):
    """One row of a flush, as readers (`blob`) and its writer (`state`, by `pack_stored`) get it.

    `read_stamps` are the packed stamps as read; None: the row was at home when the handover was seen that the flush
    names, and is not looked at. `due` is the minute of its next change by time; None: nothing will change by time;
    KEEP: the agenda has it already.
    """

    entity: str
    read_stamps: bytes | None
    blob: bytes
    state: bytes
    due: int | None


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of a flush. `marker` is set when another marker than expected was found, `conflicts` name rows.

    `handover` is what stood beside the rows when they were written or refused, None where nobody knows.
    """

    status: str
    redis_ms: int
    handover: bytes | None
    marker: bytes = b""
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows as their writer left them (None: no such row), marker and handover found with them, Redis's clock in ms."""

    marker: bytes
    redis_ms: int
    handover: bytes
    rows: list[Stored | None]


#: home, and how long the stamps are
_STATE_HEADER = struct.Struct(">HH")
_STATE_TIMES = struct.Struct("<qq")
#: both, and the stamp between them, of a row that one partition brought: nearly every row
_STATE_OF_ONE = struct.Struct(f"<4s{STAMP.size}sqq")


def pack_stored(home: int, stamps: bytes, as_of: int, kafka_time: int, state: bytes) -> bytes:
    """A value of `s`: home and length of the stamps (big-endian u16, read by the script), stamps, times, state."""
    header = _header(home, len(stamps))
    if len(stamps) == STAMP.size:
        return _STATE_OF_ONE.pack(header, stamps, as_of, kafka_time) + state
    return b"".join((header, stamps, _STATE_TIMES.pack(as_of, kafka_time), state))


@cache
def _header(home: int, length: int) -> bytes:
    return _STATE_HEADER.pack(home, length)


def unpack_stored(data: bytes) -> Stored:
    home, length = _STATE_HEADER.unpack_from(data)
    end = _STATE_HEADER.size + length
    as_of, kafka_time = _STATE_TIMES.unpack_from(data, end)
    stamps = unpack_stamps(data[_STATE_HEADER.size : end])
    return Stored(home, stamps, as_of, kafka_time, data[end + _STATE_TIMES.size :])


class RowStore:
    """The one door to Redis. Every method raises StoreUnavailable when Redis is away."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client: Redis | None = None
        self._writer = os.urandom(6).hex()
        #: by key of the step: the one that Redis has, where this process has left one
        self._steps: dict[str, bytes] = {}
        #: the one of a flush that was not answered yet: sent again, it is the same
        self._next_steps: dict[str, bytes] = {}
        self._numbers = count(1)
        self._lines = Lines(self._new_line, timeout_s)

    @property
    def client(self) -> Redis:
        """The connection pool, made at first use. Retries are ours: a script sent again must be the same script."""
        if self._client is None:
            self._client = Redis.from_url(
                self._url,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    def _new_line(self) -> AbstractConnection:
        # without a timeout of its own: to write under one, redis-py makes a task of each write
        pool = Redis.from_url(self._url, socket_connect_timeout=self._timeout_s, retry=Retry(NoBackoff(), 0))
        line: AbstractConnection = pool.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        return line

    async def close(self) -> None:
        await self._lines.close()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def check(self) -> None:
        """ValueError unless Redis keeps what it is given (`maxmemory-policy noeviction`)."""
        found = await self._call(self.client.config_get("maxmemory-policy"))
        policy = found.get("maxmemory-policy")
        if policy != "noeviction":
            raise ValueError(f"Redis evicts rows (maxmemory-policy {policy}); expected noeviction")

    async def now_ms(self) -> int:
        """Redis's clock."""
        seconds, micros = await self._call(self.client.time())
        return int(seconds) * 1000 + int(micros) // 1000

    async def load(self, space: Space, partition: int, entities: Sequence[str]) -> Loaded:
        """The writer's rows, with marker of `partition` and handover as they are at the same moment."""
        marker, now, handover, found = await self._read(space, partition, space.states, entities)
        return Loaded(marker, now, handover, [None if data is None else unpack_stored(data) for data in found])

    async def read(self, space: Space, entities: Sequence[str]) -> list[bytes | None]:
        """The readers' blobs, None where there is no row."""
        *_, blobs = await self._read(space, 0, space.blobs, entities)
        return blobs

    async def _read(
        self, space: Space, partition: int, key: str, entities: Sequence[str]
    ) -> tuple[bytes, int, bytes, list[bytes | None]]:
        """A marker, Redis's clock, the handover, and the value that every entity has in the hash of this key."""
        packed = msgpack.packb(entities, use_bin_type=False) or b""
        keys = [space.marker(partition), key, space.handover]
        (answer,) = await self._scripts(_READ, keys, lambda: [(packed,)], 1)
        marker, now, handover, found = answer
        return marker, now, handover, found

    async def markers(self, space: Space, partitions: Sequence[int]) -> list[Marker | None]:
        """Markers of partitions, None where nothing was ever flushed."""
        if not partitions:
            return []
        # who reads markers resumes from them: what an earlier flush left unfinished is read and written again
        for partition in partitions:
            self._forget_steps(space.step(partition))
        found = await self._call(self.client.mget([space.marker(partition) for partition in partitions]))
        return [Marker.decode(data) if data else None for data in found]

    async def flush(
        self,
        space: Space,
        partition: int,
        expected: bytes,
        marker: bytes,
        rows: Sequence[RowWrite],
        oldest_emission_ms: int | None,
        handover: bytes | None = None,
    ) -> Flushed:
        """Write rows, agenda and marker if the marker is still `expected`. The same call may be made again in doubt.

        `marker` is b"" for a flush that leaves it. Rows that are not looked at were at home when `handover` was seen.
        Statuses: ok; marker (another one was found: drop the cache and resume from it); conflict (these rows were not
        written, nor was the marker); late (emit the rows again first); handover (rows have changed hands: have all of
        them looked at). After the last two, some rows may be written: the marker is not, and the same rows may be
        written again.
        """
        if any(row.read_stamps is not None for row in rows):
            # others first would change hands before these are written
            rows = sorted(rows, key=lambda row: row.read_stamps is not None)
        step_key = space.step(partition)
        before, step = self._steps.get(step_key, b""), self._next_step(step_key)
        keys = [
            space.marker(partition), space.agenda(partition), step_key, space.blobs, space.states, space.handover,
        ]  # fmt: skip
        oldest = b"" if oldest_emission_ms is None else b"%d" % oldest_emission_ms
        scripts = max(1, -(-len(rows) // ROWS_PER_SCRIPT))
        last = b"%d" % (scripts - 1)

        def arguments() -> Iterator[tuple[bytes, ...]]:
            for number in range(scripts):
                some = rows[number * ROWS_PER_SCRIPT : (number + 1) * ROWS_PER_SCRIPT]
                limits = (oldest, b"%d" % EMISSION_LIMIT_MS, handover or b"", self._new_name())
                yield (expected, marker, before, step, b"%d" % number, last, *limits, _packed(some))

        answers = await self._scripts(_WRITE, keys, arguments, scripts)
        status, now, _, *rest = next((a for a in answers if a[0] not in (b"ok", b"done", b"conflict")), answers[-1])
        # what the first one saw: another one's, if rows have changed hands since, is the next flush's to find
        hands: bytes | None = answers[0][2]
        match status:
            case b"marker" | b"behind":
                self._forget_steps(step_key)
                return Flushed("marker", now, hands, marker=rest[0] if rest else b"")
            case b"conflict":
                self._steps[step_key] = step + b":" + last + b"!"
                conflicts = tuple([entity.decode() for answer in answers for entity in answer[3]])
                flushed = Flushed("conflict", now, hands, conflicts=conflicts)
            case b"ok" | b"done":
                self._steps[step_key] = step + b":" + last
                # done before, and not answered: rows may have changed hands since
                flushed = Flushed("ok", now, None if status == b"done" else hands)
            case _:
                return Flushed(status.decode(), now, hands)
        del self._next_steps[step_key]
        return flushed

    def _next_step(self, step_key: str) -> bytes:
        step = self._next_steps.get(step_key)
        if step is None:
            step = self._next_steps[step_key] = self._new_name()
        return step

    def _new_name(self) -> bytes:
        """One that nobody else has given to anything: a handover that had been before would be taken for that one."""
        return f"{self._writer}:{next(self._numbers)}".encode()

    def _forget_steps(self, step_key: str) -> None:
        self._steps.pop(step_key, None)
        self._next_steps.pop(step_key, None)

    async def due(self, space: Space, partition: int, minute: int, limit: int) -> list[str]:
        """Entities whose next change by time is at or before `minute`, earliest first."""
        found = await self._call(
            self.client.zrange(space.agenda(partition), "-inf", minute, byscore=True, offset=0, num=limit)
        )
        return [entity.decode() for entity in found]

    async def publish_space(self, space: Space) -> None:
        """Tell readers that know no cluster and topic ids (Feast) where the rows of a view are."""
        await self._call(self.client.set(pointer_key(space.view), space.prefix))

    async def remember_first(self, name: str, value: str) -> str:
        """The value that was remembered under a name first: this one, unless another came before."""
        await self._call(self.client.set(name, value, nx=True))
        first: bytes = await self._call(self.client.get(name))
        return first.decode()

    async def _scripts(
        self, script: str, keys: Sequence[str], arguments: Callable[[], Iterable[tuple[bytes, ...]]], many: int
    ) -> list[Any]:
        """The answers to a script with the same keys and each of so many arguments, in their order, by one line."""

        # EVALSHA first: the text travels only to a Redis that has not seen it yet, which an emptied one has not
        def commands() -> Iterator[bytes]:
            for some in arguments():
                # hiredis's own types allow one argument only
                yield hiredis.pack_command(("EVALSHA", _SHA[script], str(len(keys)), *keys, *some))  # type: ignore[arg-type]

        answers: list[Any] = await self._call(self._lines.ask(commands(), many))
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await self._call(self.client.script_load(script))
            answers = await self._call(self._lines.ask(commands(), many))
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return answers

    async def _call(self, call: Any) -> Any:
        try:
            return await call
        except (RedisError, OSError) as error:
            if is_away(error):
                raise StoreUnavailable(str(error)) from error
            raise


def _packed(rows: Sequence[RowWrite]) -> bytes:
    """Of rows that are not looked at: entity and blob, entity and state, minute and entity, one after the other, and
    entities without a minute; of the others a list a column: entities, stamps as read, blobs, states, minutes."""
    own: list[Any] = []
    own_states: list[Any] = []
    due: list[Any] = []
    undue: list[str] = []
    others: tuple[list[Any], ...] = ([], [], [], [], [])
    for row in rows:
        entity, read, blob, state, minute = row.entity, row.read_stamps, row.blob, row.state, row.due
        if read is None:
            own += (entity, blob)
            own_states += (entity, state)
            if minute is None:
                undue.append(entity)
            elif minute != KEEP:
                due += (minute, entity)
        else:
            values = (entity, read, blob, state, _NEVER if minute is None else minute)
            for column, value in zip(others, values, strict=True):
                column.append(value)
    return msgpack.packb((own, own_states, due, undue, others), use_bin_type=False) or b""


def is_away(error: Exception) -> bool:
    """Whether Redis is away: no connection, no answer, or one that is still loading its file or shutting down."""
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)):
        return True
    return str(error).startswith(("LOADING", "MASTERDOWN", "READONLY"))


def pointer_key(view: str) -> str:
    """Key of the pointer that tells Feast's reader the prefix of a view in force."""
    return f"freshrank:{LAYOUT}:view:{view}"


def blobs_key(prefix: str) -> str:
    """Key of the hash of what readers get, by entity."""
    return f"{prefix}:r"


def marker_key(prefix: str, partition: int) -> str:
    return f"{prefix}:m:{partition}"


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_SHA = {_WRITE: _sha1(_WRITE), _READ: _sha1(_READ)}
