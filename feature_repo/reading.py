"""Bulk reads for everyone but the engine: rows of a view as NumPy columns or as `Row`s. Imports no feast (10 s).

The engine knows where its rows are; these readers do not, and follow the pointer that the engine leaves for each view.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import msgpack
import numpy as np
from numpy.typing import NDArray
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from feature_repo.row import FORMAT, Row, fixed_dtype, unpack_fixed, unpack_row
from feature_repo.row_store import LUA_VALUES, Marker, StoreUnavailable, is_away, pointer_key
from feature_repo.views import PRODUCT_BEHAVIOR, View

#: every partition gets the heartbeats of the same minutes, so the markers of a few tell the log's clock
CLOCK_PARTITIONS = 16
#: rows a script: keeps Redis's stops short
ROWS_PER_READ = 1000

# Keys are made inside the script, so that pointers, clock and rows are of one moment and cost one round trip. That
# rules out Redis Cluster, which the engine's own keys do as well. Entities travel as one msgpack argument, of the old
# kind.
_READ = (
    LUA_VALUES
    + """
local clocks = {}
local beats = redis.call('GET', KEYS[1])
if beats then
  local markers = {}
  for partition = 0, ARGV[1] - 1 do markers[partition + 1] = beats .. ':m:' .. partition end
  clocks = redis.call('MGET', unpack(markers))
end
local entities = cmsgpack.unpack(ARGV[2])
local views = {}
for view = 2, #KEYS do
  local prefix = redis.call('GET', KEYS[view])
  views[view - 1] = {prefix, prefix and values(prefix .. ':r', entities) or {}}
end
return {clocks, views}
"""
)
_SHA = hashlib.sha1(_READ.encode(), usedforsecurity=False).hexdigest()


class ViewNotServed(LookupError):
    """No engine has published where the rows of a view are."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows of a view in the order they were asked for; missing and expired ones are None, and zeros in `fixed`.

    `clock` is the log's clock (ms), None while no heartbeat was flushed; `fixed` is `row.fixed_dtype(view)`.
    """

    view: View
    prefix: str
    clock: int | None
    blobs: list[bytes | None]
    fixed: NDArray[np.void]

    def rows(self) -> list[Row | None]:
        """Every row whole, with its strings and stamps."""
        return [None if blob is None else unpack_row(self.view, blob) for blob in self.blobs]

    def columns(self) -> NDArray[np.void]:
        """One record a row, one field a number: `columns()["sales_1h"]` (N,), `columns()["text"]` (N, 32).

        Beside the features: version (0 where there is no row), as_of, event_time, kafka_time in ms. No copy is made.
        """
        return self.fixed.view(column_dtype(self.view))


@cache
def column_dtype(view: View) -> np.dtype[np.void]:
    """`row.fixed_dtype` with a field for every number of the view in place of the two blocks."""
    fixed = fixed_dtype(view)
    names = ["version", "as_of", "event_time", "kafka_time"]
    formats: list[object] = ["<i8"] * len(names)
    offsets = [_offset(fixed, name) for name in names]
    for field in view.ints:
        names.append(field.name)
        formats.append("<i8")
        offsets.append(_offset(fixed, "ints") + 8 * view.offsets[field.name])
    for field in view.floats:
        names.append(field.name)
        formats.append("<f4" if field.length == 1 else ("<f4", (field.length,)))
        offsets.append(_offset(fixed, "floats") + 4 * view.offsets[field.name])
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": fixed.itemsize})


def _offset(dtype: np.dtype[np.void], name: str) -> int:
    assert dtype.fields is not None
    offset: int = dtype.fields[name][1]
    return offset


def snapshot(view: View, prefix: str, clock: int | None, blobs: Sequence[bytes | None]) -> Snapshot:
    """Decode blobs; a row whose newest event lies more than the view's ttl behind the clock is as missing.

    ValueError for a blob of another format.
    """
    fixed = unpack_fixed(view, blobs)
    there = np.array([blob is not None for blob in blobs], dtype=bool)
    wrong = fixed["format"][there & (fixed["format"] != FORMAT)]
    if wrong.size:
        raise ValueError(f"row of view {view.name} has format {wrong[0]}, expected {FORMAT}")
    kept = list(blobs)
    if clock is not None:
        expired = there & (fixed["event_time"] + view.ttl_ms < clock)
        if expired.any():
            fixed = fixed.copy()
            fixed[expired] = np.zeros((), dtype=fixed.dtype)
            for place in np.flatnonzero(expired):
                kept[place] = None
    return Snapshot(view, prefix, clock, kept, fixed)


class RowReader:
    """Reads the engine's rows. Threads may share it. Raises StoreUnavailable when Redis is away."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client: Redis | None = None

    def close(self) -> None:
        """Give the connections back; the next read makes new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def read(self, view: View, entities: Sequence[str]) -> Snapshot:
        """The rows of `entities` as they are now. ViewNotServed when no engine writes this view."""
        return self.read_views((view,), entities)[0]

    def read_views(self, views: Sequence[View], entities: Sequence[str]) -> list[Snapshot]:
        """The rows of `entities` in several views (≥ 1). ViewNotServed when no engine writes one of them.

        One round trip for a thousand rows; with more, each thousand is of a moment of its own.
        """
        size = max(1, ROWS_PER_READ // len(views))
        chunks = [entities[i : i + size] for i in range(0, len(entities), size)] or [[]]
        while True:
            parts = [self._read_some(views, chunk) for chunk in chunks]
            prefixes, clock, _ = parts[-1]
            # a pointer moved meanwhile: rows of two encoders must not be mixed
            if all(part[0] == prefixes for part in parts):
                return [
                    snapshot(view, prefix, clock, [blob for part in parts for blob in part[2][place]])
                    for place, (view, prefix) in enumerate(zip(views, prefixes, strict=True))
                ]

    def read_arrays(self, view: View, entities: Sequence[str]) -> NDArray[np.void]:
        """The numbers of the rows as `Snapshot.columns()`; int64 fields carry -1 where a value is unknown."""
        return self.read(view, entities).columns()

    def _read_some(
        self, views: Sequence[View], entities: Sequence[str]
    ) -> tuple[list[str], int | None, list[list[bytes | None]]]:
        """Prefix by view, the log's clock, rows by view."""
        keys = [pointer_key(PRODUCT_BEHAVIOR.name), *(pointer_key(view.name) for view in views)]
        packed = msgpack.packb(list(entities), use_bin_type=False)
        markers, found = self._script(keys, [CLOCK_PARTITIONS, packed])
        for view, key, (prefix, _) in zip(views, keys[1:], found, strict=True):
            if prefix is None:
                raise ViewNotServed(f"view {view.name}: Redis has no {key}, so no engine has written rows of it yet")
        clock = max((Marker.decode(marker).clock for marker in markers if marker), default=0)
        return [prefix.decode() for prefix, _ in found], clock or None, [rows for _, rows in found]

    def _script(self, keys: Sequence[str], arguments: Sequence[bytes | int]) -> list:  # type: ignore[type-arg]
        if self._client is None:
            # one retry: a pooled connection may have died since it was last used, and reading twice does no harm
            self._client = Redis.from_url(
                self._url,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 1),
            )
        try:
            try:
                found = self._client.evalsha(_SHA, len(keys), *keys, *arguments)
            except NoScriptError:
                found = self._client.eval(_READ, len(keys), *keys, *arguments)
        except (RedisError, OSError) as error:
            if is_away(error):
                raise StoreUnavailable(str(error)) from error
            raise
        assert isinstance(found, list)
        return found
