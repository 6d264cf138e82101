"""Rows, stamps, agenda and markers in Redis: one script to write, one to read.

The rows of a view are two hashes with a field an entity: `r`, what readers get (`feature_repo.row`), and `s`, the
writer's packed state behind its stamps. Beside the rows lies one marker per input partition: everything below its
offset is in Redis, and its outputs were acknowledged. The marker and the stamps are compared inside the script that
writes, so an emptied Redis, a second writer of a row and a worker that lost its partition are all noticed by the write
itself, not by connection errors, which clients hide. A script that writes rows and leaves the marker where it was (a
flush in several scripts, a conflict) leaves a step of its own instead: a Redis that forgets those rows before the
marker passes them forgets the step, too.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from feature_repo.row import STAMP, Stamps, pack_stamps, unpack_stamps

#: a row is refused when its oldest emission is older than this (ms by Redis's clock): the minute must cover it
EMISSION_LIMIT_MS = 20_000
#: rows a script: keeps Redis's stops short
ROWS_PER_SCRIPT = 500
#: what a RowWrite says of an agenda that need not change
KEEP = -2
_NEVER = -1

#: how rows lie in Redis: one of another layout is as empty, and is filled again from the topics
LAYOUT = 2

# Rows travel as one msgpack argument, a list a column, and the entities of those that are read as another: to make an
# argument of each would cost the client more than all the rest. It is msgpack of the old kind that Redis's cmsgpack
# knows: strings, no bins. Calls on many rows are made in portions, since what Lua unpacks must fit on its stack. Hashes
# that all rows of a view share rule Redis Cluster out, and so do markers beside rows.

_WRITE = """
local function stamps_of(state)
  local high, low = string.byte(state, 1, 2)
  return string.sub(state, 3, 2 + high * 256 + low)
end
local function change(command, key, args)
  for first = 1, #args, 200 do redis.call(command, key, unpack(args, first, math.min(first + 199, #args))) end
end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local marker = redis.call('GET', KEYS[1]) or ''
if marker ~= ARGV[1] then
  if ARGV[2] ~= '' and marker == ARGV[2] then return {'ok', now} end
  return {'marker', now, marker}
end
local step = redis.call('GET', KEYS[3]) or ''
if ARGV[5] ~= '' and step ~= ARGV[5] and step ~= ARGV[6] then return {'marker', now, marker} end
if ARGV[3] ~= '' and now - tonumber(ARGV[3]) > tonumber(ARGV[4]) then return {'late', now} end
local entities, read, blobs, states, minutes = unpack(cmsgpack.unpack(ARGV[7]))
local conflicts, to_read, to_write, due, undue, n = {}, {}, {}, {}, {}, 0
for i, entity in ipairs(entities) do
  local state = redis.call('HGET', KEYS[5], entity)
  local stamps = state and stamps_of(state) or ''
  if stamps == read[i] or stamps == stamps_of(states[i]) then
    to_read[n + 1], to_read[n + 2] = entity, blobs[i]
    to_write[n + 1], to_write[n + 2] = entity, states[i]
    n = n + 2
    if minutes[i] >= 0 then
      due[#due + 1] = minutes[i]
      due[#due + 1] = entity
    elseif minutes[i] == -1 then
      undue[#undue + 1] = entity
    end
  else
    conflicts[#conflicts + 1] = entity
  end
end
change('HSET', KEYS[4], to_read)
change('HSET', KEYS[5], to_write)
change('ZADD', KEYS[2], due)
change('ZREM', KEYS[2], undue)
if #conflicts > 0 or ARGV[2] == '' then redis.call('SET', KEYS[3], ARGV[6]) end
if #conflicts > 0 then return {'conflict', now, conflicts} end
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2]) end
return {'ok', now}
"""

_READ = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local entities, values = cmsgpack.unpack(ARGV[1]), {}
for first = 1, #entities, 1000 do
  local some = redis.call('HMGET', KEYS[2], unpack(entities, first, math.min(first + 999, #entities)))
  for i = 1, #some do values[first + i - 1] = some[i] end
end
return {redis.call('GET', KEYS[1]) or '', now, values}
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
    """A row's state as its writer packed it, with the stamps it contains and the as_of (ms) it was evaluated at."""

    stamps: Stamps
    as_of: int
    kafka_time: int
    state: bytes


class RowWrite(Struct, frozen=True, gc=False):
    """One row of a flush. `read_stamps` are the packed stamps as read, `due` the minute of its next change by time.

    `due` None: nothing will change by time; KEEP: the agenda has it already.
    """

    entity: str
    read_stamps: bytes
    reader: bytes
    stored: Stored
    due: int | None


@dataclass(frozen=True, slots=True)
class Flushed:
    """What the script did. `marker` is set when it found another marker than expected, `conflicts` name rows."""

    status: str
    redis_ms: int
    marker: bytes = b""
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows as their writer left them (None: no such row), the marker found with them, Redis's clock in ms."""

    marker: bytes
    redis_ms: int
    rows: list[Stored | None]


_STATE_HEADER = struct.Struct(">H")
_STATE_TIMES = struct.Struct("<qq")
#: both, and the stamp between them, of a row that one partition brought: nearly every row
_STATE_OF_ONE = struct.Struct("<2siqqq")
_LENGTH_OF_ONE = _STATE_HEADER.pack(STAMP.size)


def pack_stored(stored: Stored) -> bytes:
    """A value of `s`: length of the stamps (big-endian u16, read by the script), stamps, times, state."""
    if len(stored.stamps) == 1:
        ((partition, offset),) = stored.stamps.items()
        return _STATE_OF_ONE.pack(_LENGTH_OF_ONE, partition, offset, stored.as_of, stored.kafka_time) + stored.state
    stamps = pack_stamps(stored.stamps)
    times = _STATE_TIMES.pack(stored.as_of, stored.kafka_time)
    return b"".join((_STATE_HEADER.pack(len(stamps)), stamps, times, stored.state))


def unpack_stored(data: bytes) -> Stored:
    (length,) = _STATE_HEADER.unpack_from(data)
    end = _STATE_HEADER.size + length
    as_of, kafka_time = _STATE_TIMES.unpack_from(data, end)
    return Stored(unpack_stamps(data[_STATE_HEADER.size : end]), as_of, kafka_time, data[end + _STATE_TIMES.size :])


class RowStore:
    """The one door to Redis. Every method raises StoreUnavailable when Redis is away."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client: Redis | None = None
        self._writer = os.urandom(6).hex()
        #: by key of the step: how many scripts of this process wrote rows without moving the marker
        self._steps: dict[str, int] = {}

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

    async def close(self) -> None:
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
        """The writer's rows, with the marker of `partition` as it is at the same moment."""
        marker, now, found = await self._read(space, partition, space.states, entities)
        return Loaded(marker, now, [None if data is None else unpack_stored(data) for data in found])

    async def read(self, space: Space, entities: Sequence[str]) -> list[bytes | None]:
        """The readers' blobs, None where there is no row."""
        _, _, blobs = await self._read(space, 0, space.blobs, entities)
        return blobs

    async def _read(
        self, space: Space, partition: int, key: str, entities: Sequence[str]
    ) -> tuple[bytes, int, list[bytes | None]]:
        """A marker, Redis's clock and the value that every entity has in the hash of this key."""
        packed = msgpack.packb(entities, use_bin_type=False)
        marker, now, found = await self._script(_READ, [space.marker(partition), key], [packed])
        return marker, now, found

    async def markers(self, space: Space, partitions: Sequence[int]) -> list[Marker | None]:
        """Markers of partitions, None where nothing was ever flushed."""
        if not partitions:
            return []
        # who reads markers resumes from them: what an earlier flush left unfinished is read and written again
        for partition in partitions:
            self._steps.pop(space.step(partition), None)
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
    ) -> Flushed:
        """Write rows, agenda and marker if the marker is still `expected`. The same call may be made again in doubt.

        `marker` is b"" for all but the last script of a flush. Statuses: ok; marker (another one was found: drop the
        cache and resume from it); conflict (these rows were not written, nor was the marker); late (nothing was
        written: emit the rows again first).
        """
        step_key = space.step(partition)
        step = self._steps.get(step_key, 0)
        keys = [space.marker(partition), space.agenda(partition), step_key, space.blobs, space.states]
        oldest = b"" if oldest_emission_ms is None else str(oldest_emission_ms).encode()
        args: list[Any] = [expected, marker, oldest, EMISSION_LIMIT_MS]
        args += [f"{self._writer}:{step}" if step else b"", f"{self._writer}:{step + 1}", _packed(rows)]
        status, now, *rest = await self._script(_WRITE, keys, args)
        if status == b"conflict" or (status == b"ok" and not marker):
            self._steps[step_key] = step + 1
        match status:
            case b"marker":
                self._steps.pop(step_key, None)
                return Flushed("marker", now, marker=rest[0])
            case b"conflict":
                return Flushed("conflict", now, conflicts=tuple(entity.decode() for entity in rest[0]))
            case _:
                return Flushed(status.decode(), now)

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

    async def _script(self, script: str, keys: Sequence[str], args: Iterable[Any]) -> Any:
        # EVALSHA first: the text travels only to a Redis that has not seen it yet, which an emptied one has not
        sha = _SHA[script]
        arguments = [*keys, *args]
        try:
            return await self._call(self.client.evalsha(sha, len(keys), *arguments))
        except NoScriptError:
            return await self._call(self.client.eval(script, len(keys), *arguments))

    async def _call(self, call: Any) -> Any:
        try:
            return await call
        except (RedisError, OSError) as error:
            if is_away(error):
                raise StoreUnavailable(str(error)) from error
            raise


def _packed(rows: Sequence[RowWrite]) -> bytes:
    """A list a column: entities, stamps as read, blobs, states, minutes of the agenda."""
    columns = (
        [row.entity for row in rows],
        [row.read_stamps for row in rows],
        [row.reader for row in rows],
        [pack_stored(row.stored) for row in rows],
        [_NEVER if row.due is None else row.due for row in rows],
    )
    return msgpack.packb(columns, use_bin_type=False) or b""


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
