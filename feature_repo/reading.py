"""Bulk reads for everyone but the engine: rows of a view as NumPy columns or as `Row`s. Imports no feast (10 s).

The engine knows where its rows are; these readers do not, and follow the pointer that the engine leaves for each view.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import hiredis
import numpy as np
from numpy.typing import NDArray
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from feature_repo.row import FORMAT, Row, fixed_dtype, unpack_fixed, unpack_row
from feature_repo.row_store import Marker, StoreUnavailable, blobs_key, is_away, marker_key, pointer_key
from feature_repo.views import PRODUCT_BEHAVIOR, View

#: every partition gets the heartbeats of the same minutes, so the markers of a few tell the log's clock
CLOCK_PARTITIONS = 16
#: rows a transaction: keeps Redis's stops short
ROWS_PER_READ = 1000


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
    there = fixed["format"] == FORMAT
    for other in np.flatnonzero(~there).tolist():
        if blobs[other] is not None:
            raise ValueError(f"row of view {view.name} has format {fixed['format'][other]}, expected {FORMAT}")
    kept = list(blobs)
    if clock is not None:
        expired = there & (fixed["event_time"] < clock - view.ttl_ms)
        if expired.any():
            fixed = fixed.copy()
            fixed[expired] = np.zeros((), dtype=fixed.dtype)
            for place in np.flatnonzero(expired):
                kept[place] = None
    return Snapshot(view, prefix, clock, kept, fixed)


class _Packer:
    """Commands by hiredis alone: redis-py's own packer looks at every argument in Python first, for memoryviews."""

    def pack(self, *args: str | int) -> list[bytes]:
        return [hiredis.pack_command(args)]  # type: ignore[arg-type]  # hiredis's own types allow one argument only


class RowReader:
    """Reads the engine's rows. Threads may share it. Raises StoreUnavailable when Redis is away."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client: Redis | None = None
        #: by name of a view: where its rows were when they were last read
        self._prefixes: dict[str, str | None] = {}

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

        One round trip for a thousand rows, and one more when they have moved; with more, each thousand is of a moment
        of its own.
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
        names = [PRODUCT_BEHAVIOR.name, *(view.name for view in views)]
        prefixes = [self._prefixes.get(name) for name in names]
        while True:
            pointers, markers, rows = self._transaction(names, prefixes, entities)
            if pointers == prefixes:
                break
            # the first read, or the rows have moved since the last one
            prefixes = pointers
            self._prefixes.update(zip(names, pointers, strict=True))
        found = []
        for view, prefix in zip(views, prefixes[1:], strict=True):
            if prefix is None:
                key = pointer_key(view.name)
                raise ViewNotServed(f"view {view.name}: Redis has no {key}, so no engine has written rows of it yet")
            found.append(prefix)
        clock = max((Marker.decode(marker).clock for marker in markers if marker), default=0)
        return found, clock or None, rows

    def _transaction(
        self, names: Sequence[str], prefixes: Sequence[str | None], entities: Sequence[str]
    ) -> tuple[list[str | None], list[bytes | None], list[list[bytes | None]]]:
        """Pointers to views, markers of the first, rows of the others (none without a prefix), all of one moment."""
        keys = [pointer_key(name) for name in names]
        beats, *of_rows = prefixes
        if beats is not None:
            keys += [marker_key(beats, partition) for partition in range(CLOCK_PARTITIONS)]
        try:
            with self._connected().pipeline() as together:
                together.mget(keys)
                for prefix in of_rows:
                    if prefix is not None and entities:
                        together.hmget(blobs_key(prefix), list(entities))
                found, *rows = together.execute()
        except (RedisError, OSError) as error:
            if is_away(error):
                raise StoreUnavailable(str(error)) from error
            raise
        pointers = [None if data is None else data.decode() for data in found[: len(names)]]
        return pointers, found[len(names) :], rows if entities else [[] for _ in of_rows]

    def _connected(self) -> Redis:
        if self._client is None:
            # one retry: a pooled connection may have died since it was last used, and reading twice does no harm
            self._client = Redis.from_url(
                self._url,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 1),
                command_packer=_Packer(),
            )
        return self._client
