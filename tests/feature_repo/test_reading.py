"""Bulk reads on a real Redis: what the writer flushed is what everybody gets, as columns and as rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from feature_repo.reading import ROWS_PER_READ, RowReader, ViewNotServed, column_dtype, snapshot
from feature_repo.row import fixed_dtype, unpack_row
from feature_repo.row_store import Marker, RowStore, Space, StoreUnavailable, pointer_key
from feature_repo.views import (
    DAY_MS,
    EMBEDDING_DIM,
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    PRODUCT_CONTENT,
    USER_BEHAVIOR,
    VIEWS,
    View,
)
from streams.local.redis_server import RedisServer
from tests.feature_repo.rows import BASE, blob_of, new_space, write_of
from tests.parts import running

# --- decoding, without a Redis -------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_columns_are_the_fixed_part_under_the_names_of_the_view(view: View) -> None:
    blobs = [blob_of(view, number) for number in (1, 2, 3)]
    columns = snapshot(view, "", None, blobs).columns()
    assert column_dtype(view).itemsize == fixed_dtype(view).itemsize
    for place, blob in enumerate(blobs):
        row = unpack_row(view, blob)
        assert [columns[name][place] for name in ("version", "as_of", "event_time", "kafka_time")] == [
            row.version, row.as_of, row.event_time, row.kafka_time,
        ]  # fmt: skip
        assert [columns[field.name][place] for field in view.ints] == list(row.ints)
        floats = [np.ravel(columns[field.name][place]) for field in view.floats]
        assert np.array_equal(np.concatenate([*floats, []]), row.floats)


def test_an_embedding_is_one_column() -> None:
    columns = snapshot(PRODUCT_CONTENT, "", None, [blob_of(PRODUCT_CONTENT), None]).columns()
    assert columns["text"].shape == (2, EMBEDDING_DIM)
    assert columns["text"].dtype == np.float32
    assert not columns["text"][1].any(), "a missing row is zeros"


def test_a_row_is_missing_once_its_newest_event_is_older_than_the_ttl() -> None:
    edge = BASE + PRODUCT_BEHAVIOR.ttl_ms
    blobs = [blob_of(PRODUCT_BEHAVIOR, 1, event_time=BASE), None, blob_of(PRODUCT_BEHAVIOR, 2, event_time=BASE + 1)]
    for clock, there in ((None, [True, False, True]), (edge, [True, False, True]), (edge + 1, [False, False, True])):
        found = snapshot(PRODUCT_BEHAVIOR, "", clock, blobs)
        assert [row is not None for row in found.rows()] == there
        assert (found.columns()["version"] > 0).tolist() == there
        assert (found.columns()["sales_1h"] > 0).tolist() == there


def test_another_format_is_refused_by_name() -> None:
    other = b"\x09" + blob_of(PRODUCT_CATALOG)[1:]
    with pytest.raises(ValueError, match="row of view product_catalog has format 9, expected 1"):
        snapshot(PRODUCT_CATALOG, "", None, [None, other])


def test_importing_the_reader_takes_no_feast() -> None:
    code = "import sys, feature_repo.reading; sys.exit('feast' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this file: pointers are one a view and server."""
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
async def store(own_redis: RedisServer) -> AsyncIterator[RowStore]:
    with Redis.from_url(f"redis://{own_redis.address}") as raw:
        raw.flushall()
    opened = RowStore(f"redis://{own_redis.address}")
    yield opened
    await opened.close()


@pytest.fixture
def reader(own_redis: RedisServer) -> Iterator[RowReader]:
    opened = RowReader(f"redis://{own_redis.address}")
    yield opened
    opened.close()


async def serve(
    store: RowStore, view: View, entities: Sequence[str], *, variant: str = "", clock: int = 0, partition: int = 0
) -> Space:
    """Rows 1, 2, 3, ... of the entities, flushed by their writer, and the pointer to them."""
    space = new_space(view, variant)
    rows = [write_of(view, entity, number) for number, entity in enumerate(entities, 1)]
    assert (await store.flush(space, partition, b"", Marker(1, clock).encode(), rows, None)).status == "ok"
    await store.publish_space(space)
    return space


@pytest.mark.parts
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
async def test_what_the_writer_flushed_is_what_is_read(store: RowStore, reader: RowReader, view: View) -> None:
    space = await serve(store, view, ["a", "白色", "c"])
    entities = ["c", "nobody", "a", "a", "白色"]
    found = reader.read(view, entities)
    assert found.prefix == space.prefix
    assert found.blobs == await store.read(space, entities)
    assert found.blobs == [blob_of(view, n) if n else None for n in (3, 0, 1, 1, 2)]
    assert reader.read_arrays(view, entities)["version"].tolist() == [4, 0, 2, 2, 3]
    assert [row and row.strings for row in found.rows()] == [
        unpack_row(view, blob).strings if blob else None for blob in found.blobs
    ]
    assert reader.read_arrays(view, []).shape == (0,)


@pytest.mark.parts
async def test_views_are_read_together(store: RowStore, reader: RowReader) -> None:
    """More rows than one transaction takes, some of them missing: each view's are those that it gives alone."""
    entities = [f"p{n}" for n in range(ROWS_PER_READ)]
    views = (PRODUCT_CATALOG, PRODUCT_BEHAVIOR)
    for place, view in enumerate(views):
        space = new_space(view)
        writes = [write_of(view, entity, n + 1) for n, entity in enumerate(entities) if n % 3 != place]
        await store.flush(space, 0, b"", Marker(ROWS_PER_READ).encode(), writes, None)
        await store.publish_space(space)
    for view, found in zip(views, reader.read_views(views, entities), strict=True):
        assert found.view is view
        assert found.blobs == reader.read(view, entities).blobs
        assert sum(blob is None for blob in found.blobs) in (333, 334)


@pytest.mark.parts
async def test_many_rows_are_read_in_order(store: RowStore, reader: RowReader) -> None:
    entities = [f"p{n}" for n in range(1, 2 * ROWS_PER_READ + 50)]
    await serve(store, PRODUCT_CATALOG, entities)
    backwards = reader.read_arrays(PRODUCT_CATALOG, entities[::-1])
    assert backwards["price"].tolist() == [100 * n for n in range(len(entities), 0, -1)]


@pytest.mark.parts
async def test_the_pointer_is_followed_when_it_moves(store: RowStore, reader: RowReader) -> None:
    """A new encoder fills rows of its own; its readers move to them in one step."""
    await serve(store, PRODUCT_CONTENT, ["a", "b"], variant="1")
    assert reader.read_arrays(PRODUCT_CONTENT, ["a", "b"])["version"].tolist() == [2, 3]
    await serve(store, PRODUCT_CONTENT, ["b"], variant="2")
    assert reader.read_arrays(PRODUCT_CONTENT, ["a", "b"])["version"].tolist() == [0, 2]


@pytest.mark.parts
async def test_a_redis_that_was_emptied_serves_nobody_until_an_engine_is_back(
    store: RowStore, reader: RowReader, own_redis: RedisServer
) -> None:
    await serve(store, PRODUCT_CATALOG, ["a"])
    assert reader.read_arrays(PRODUCT_CATALOG, ["a"])["version"].tolist() == [2]
    with Redis.from_url(f"redis://{own_redis.address}") as raw:
        raw.flushall()
    with pytest.raises(ViewNotServed):
        reader.read(PRODUCT_CATALOG, ["a"])
    await serve(store, PRODUCT_CATALOG, ["b", "a"])
    assert reader.read_arrays(PRODUCT_CATALOG, ["a"])["version"].tolist() == [3]


@pytest.mark.parts
async def test_the_clock_is_that_of_the_topic_in_force(store: RowStore, reader: RowReader) -> None:
    await serve(store, USER_BEHAVIOR, ["u"])
    await serve(store, PRODUCT_BEHAVIOR, ["a"], clock=BASE + DAY_MS)
    assert reader.read(USER_BEHAVIOR, ["u"]).clock == BASE + DAY_MS
    await serve(store, PRODUCT_BEHAVIOR, ["a"], clock=BASE)
    assert reader.read(USER_BEHAVIOR, ["u"]).clock == BASE


@pytest.mark.parts
async def test_a_view_that_nobody_serves_is_named(store: RowStore, reader: RowReader) -> None:
    with pytest.raises(ViewNotServed, match=r"view user_behavior: Redis has no freshrank:\d+:view:user_behavior"):
        reader.read(USER_BEHAVIOR, ["a"])


@pytest.mark.parts
async def test_the_clock_is_the_newest_heartbeat_of_the_log(store: RowStore, reader: RowReader) -> None:
    """Users have no heartbeats of their own: every view's ttl is judged by the clock of behavior's markers."""
    await serve(store, USER_BEHAVIOR, ["u"])
    assert reader.read(USER_BEHAVIOR, ["u"]).clock is None, "no behaviour was ever written"
    behavior = await serve(store, PRODUCT_BEHAVIOR, ["a"], clock=0)
    assert reader.read(USER_BEHAVIOR, ["u"]).clock is None, "no heartbeat yet"
    await store.flush(behavior, 3, b"", Marker(9, BASE + DAY_MS).encode(), [], None)
    await store.flush(behavior, 1, b"", Marker(9, BASE).encode(), [], None)
    assert reader.read(USER_BEHAVIOR, ["u"]).clock == BASE + DAY_MS
    assert reader.read(PRODUCT_BEHAVIOR, ["a"]).clock == BASE + DAY_MS


@pytest.mark.parts
async def test_an_expired_row_is_not_read(store: RowStore, reader: RowReader) -> None:
    await serve(store, PRODUCT_BEHAVIOR, ["a"], clock=BASE + USER_BEHAVIOR.ttl_ms + 1)
    await serve(store, USER_BEHAVIOR, ["u"])
    assert reader.read(USER_BEHAVIOR, ["u"]).blobs == [None]
    assert reader.read(PRODUCT_BEHAVIOR, ["a"]).blobs == [blob_of(PRODUCT_BEHAVIOR, 1)], "products have a longer ttl"


@pytest.mark.parts
def test_a_redis_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with running(RedisServer(tmp_path)) as server:
        url = f"redis://{server.address}"
        reader = RowReader(url, timeout_s=1.0)
        with Redis.from_url(url) as raw:
            raw.set(pointer_key("product_catalog"), "prefix")
        assert reader.read(PRODUCT_CATALOG, ["a"]).blobs == [None]
        server.kill()
        with pytest.raises(StoreUnavailable):
            reader.read(PRODUCT_CATALOG, ["a"])
        reader.close()
