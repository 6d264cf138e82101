"""Feast over the engine's rows, on a real Redis: `get_online_features` returns what the writer flushed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from redis import Redis

from feature_repo.reading import RowReader, ViewNotServed, snapshot
from feature_repo.row import pack_row, pack_stamps, unpack_row
from feature_repo.row_store import Marker, RowStore, RowWrite, StoreUnavailable, pack_stored
from feature_repo.views import (
    MODALITIES,
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    PRODUCT_CONTENT,
    PRODUCT_FIELDS,
    UNKNOWN,
    USER_BEHAVIOR,
    VIEWS,
    View,
    input_hash,
)
from streams.local.redis_server import RedisServer
from tests.feature_repo.rows import BASE, blob_of, new_space, write_of
from tests.parts import running

if TYPE_CHECKING:
    from feast import FeatureStore

pytestmark = pytest.mark.parts

FEATURE_REPO = Path(__file__).parents[2] / "feature_repo"


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this file: pointers are one a view and server."""
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def raw(own_redis: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(f"redis://{own_redis.address}") as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def feast_store(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The definitions, applied to a registry of this file."""
    from feature_repo.definitions import apply, feature_store

    registry = tmp_path_factory.mktemp("registry") / "registry.db"
    store = feature_store(redis=f"redis://{own_redis.address}", registry=str(registry))
    apply(store)
    return store


@pytest.fixture
def served(own_redis: RedisServer, raw: Redis) -> Serving:
    return Serving(f"redis://{own_redis.address}")


class Serving:
    """Writes rows as the engine does."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def rows(self, view: View, rows: Sequence[RowWrite], *, clock: int = 0) -> None:
        store = RowStore(self.url)
        space = new_space(view)
        assert (await store.flush(space, 0, b"", Marker(1, clock).encode(), rows, None)).status == "ok"
        await store.publish_space(space)
        await store.close()

    async def numbered(self, view: View, *entities: str, clock: int = 0) -> None:
        """Rows 1, 2, 3, ... of the entities."""
        await self.rows(view, [write_of(view, e, n) for n, e in enumerate(entities, 1)], clock=clock)


def ask(store: FeatureStore, view: View, entities: Sequence[str], *names: str) -> dict[str, list[Any]]:
    """The features of a view, all unless named, for entities."""
    key = f"{view.entity}_id"
    features = [f"{view.name}:{name}" for name in names or [field.name for field in view.fields]]
    answer: dict[str, list[Any]] = store.get_online_features(features, [{key: e} for e in entities]).to_dict()
    assert answer.pop(key) == list(entities)
    return answer


def by_name(view: View, blob: bytes) -> dict[str, object]:
    """Values of a row by feature name, as Python has them."""
    row = unpack_row(view, blob)
    values: dict[str, object] = dict(zip([field.name for field in view.ints], row.ints, strict=True))
    values |= dict(zip([field.name for field in view.strings], row.strings, strict=True))
    for field in view.floats:
        start = view.offsets[field.name]
        block = row.floats[start : start + field.length].tolist()
        values[field.name] = block if field.length > 1 else block[0]
    return values


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
async def test_feast_and_the_bulk_read_return_what_was_flushed(
    feast_store: FeatureStore, served: Serving, view: View
) -> None:
    await served.numbered(view, "a", "白色", "c")
    entities = ["c", "a", "白色", "a"]
    rows = [by_name(view, blob_of(view, number)) for number in (3, 1, 2, 1)]

    answer = ask(feast_store, view, entities)
    assert answer == {field.name: [row[field.name] for row in rows] for field in view.fields}

    reader = RowReader(served.url)
    columns = reader.read_arrays(view, entities)
    for field in (*view.ints, *view.floats):
        assert np.array_equal(columns[field.name], np.array(answer[field.name], dtype=columns[field.name].dtype))
    assert [row.strings for row in reader.read(view, entities).rows() if row] == [
        tuple(row[field.name] for field in view.strings) for row in rows
    ]
    reader.close()


async def test_a_missing_entity_is_not_found(feast_store: FeatureStore, served: Serving) -> None:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    await served.numbered(PRODUCT_CATALOG, "a")
    response = feast_store.get_online_features(["product_catalog:price"], [{"product_id": e} for e in ("a", "nobody")])
    assert response.to_dict()["price"] == [100, None]
    assert list(response.proto.results[-1].statuses) == [FieldStatus.PRESENT, FieldStatus.NOT_FOUND]


async def test_an_unknown_price_or_stock_is_null(feast_store: FeatureStore, served: Serving) -> None:
    blob = pack_row(
        PRODUCT_CATALOG, as_of=BASE, event_time=BASE, kafka_time=BASE,
        ints=[UNKNOWN, UNKNOWN, UNKNOWN, 0], floats=[], strings=["", "", "", ""], stamps={0: 1},
    )  # fmt: skip
    state = pack_stored(0, pack_stamps({0: 1}), BASE, BASE, b"")
    await served.rows(PRODUCT_CATALOG, [RowWrite("a", b"", blob, state, None)])
    answer = ask(feast_store, PRODUCT_CATALOG, ["a"], "price", "price_usual", "stock", "delisted", "brand")
    assert answer == {"price": [None], "price_usual": [None], "stock": [None], "delisted": [0], "brand": [""]}


async def test_only_what_is_asked_for_comes_back(feast_store: FeatureStore, served: Serving) -> None:
    await served.numbered(PRODUCT_BEHAVIOR, "a")
    assert ask(feast_store, PRODUCT_BEHAVIOR, ["a"], "ctr_24h", "sales_1h") == {
        "ctr_24h": [1 + 11 / 8], "sales_1h": [1 + 1 / 8],
    }  # fmt: skip


async def test_the_event_time_is_exact_to_the_millisecond(feast_store: FeatureStore, served: Serving) -> None:
    await served.rows(PRODUCT_BEHAVIOR, [write_of(PRODUCT_BEHAVIOR, "a", 1, event_time=BASE + 123)])
    response = feast_store.get_online_features(["product_behavior:sales_1h"], [{"product_id": "a"}])
    stamp = response.proto.results[-1].event_timestamps[0]
    assert stamp.seconds * 1000 + stamp.nanos // 1_000_000 == BASE + 123


async def test_the_ttl_is_honoured_by_the_clock_of_the_log(feast_store: FeatureStore, served: Serving) -> None:
    """A history of 2011 is not fifteen years stale; a row is when the log itself has gone on for the ttl."""
    edge = BASE + PRODUCT_BEHAVIOR.ttl_ms
    for clock, sales in ((0, [1.0]), (edge, [1.0]), (edge + 1, [None])):
        await served.numbered(PRODUCT_BEHAVIOR, "a", clock=clock)
        assert ask(feast_store, PRODUCT_BEHAVIOR, ["a"], "sales_10m") == {"sales_10m": sales}


async def test_a_service_reads_all_that_the_ranker_reads(feast_store: FeatureStore, served: Serving) -> None:
    for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT):
        await served.numbered(view, "a")
    service = feast_store.get_feature_service("ranker_v1")
    answer = feast_store.get_online_features(service, [{"product_id": "a"}]).to_dict()
    assert set(answer) == {"product_id", *PRODUCT_FIELDS, "stock", "delisted", *MODALITIES, "likeness", "mask"}
    assert service.tags == {"input_hash": input_hash()}


async def test_reading_off_the_event_loop(feast_store: FeatureStore, served: Serving) -> None:
    await served.numbered(USER_BEHAVIOR, "u")
    response = await feast_store.get_online_features_async(["user_behavior:clicks_total"], [{"user_id": "u"}])
    assert response.to_dict() == {"user_id": ["u"], "clicks_total": [1.125]}


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_view_that_no_engine_writes_is_named(feast_store: FeatureStore, raw: Redis) -> None:
    with pytest.raises(ViewNotServed, match=r"view product_content: Redis has no freshrank:\d+:view:product_content"):
        ask(feast_store, PRODUCT_CONTENT, ["a"], "mask")


def test_an_entity_key_is_one_string(feast_store: FeatureStore) -> None:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    from feature_repo.online_store import entity_id

    key = EntityKey(join_keys=["product_id"], entity_values=[Value(int64_val=7)])
    with pytest.raises(ValueError, match="expected one string as entity key"):
        entity_id(key)


def test_a_row_has_one_writer(feast_store: FeatureStore) -> None:
    import pandas as pd  # type: ignore[import-untyped]
    from feast.data_source import PushMode

    from feature_repo.online_store import RowHasOneWriter

    values = {field.name: [1.0] for field in PRODUCT_BEHAVIOR.fields}
    frame = pd.DataFrame({"product_id": ["a"], "event_time": [datetime.now(tz=UTC)], **values})
    refused = r"a row has one writer: rows of product_behavior are made by the engine from the topic 'behavior'"
    with pytest.raises(RowHasOneWriter, match=refused):
        feast_store.write_to_online_store("product_behavior", frame)
    with pytest.raises(RowHasOneWriter, match=refused):
        feast_store.push("product_behavior_rows", frame, to=PushMode.ONLINE)


def test_materializing_is_refused_as_well(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    from feature_repo.definitions import HISTORY, apply, feature_store
    from feature_repo.online_store import RowHasOneWriter

    monkeypatch.chdir(tmp_path)
    Path(HISTORY).mkdir(parents=True)
    time = datetime(2011, 11, 1, tzinfo=UTC)
    values = {field.name: np.array([1.0], dtype=np.float32) for field in PRODUCT_BEHAVIOR.fields}
    pd.DataFrame({"product_id": ["a"], "event_time": [time], **values}).to_parquet(
        f"{HISTORY}/product_behavior.parquet"
    )
    store = feature_store(redis=f"redis://{own_redis.address}")
    apply(store)
    day = timedelta(days=1)
    with pytest.raises(RowHasOneWriter):
        store.materialize(time - day, time + day, ["product_behavior"])


def test_a_view_of_somebody_else_has_no_place_here(tmp_path: Path) -> None:
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import String

    from feature_repo.definitions import feature_store
    from feature_repo.online_store import UnknownView

    entity = Entity(name="basket", join_keys=["basket_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name="baskets",
        entities=[entity],
        schema=[Field(name="basket_id", dtype=String), Field(name="note", dtype=String)],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_time"),
    )
    with pytest.raises(UnknownView, match="feature view baskets is not one of the engine's"):
        feature_store(registry=str(tmp_path / "registry.db")).apply([entity, view])


def test_a_feature_that_the_row_has_not_asks_for_the_definitions(feast_store: FeatureStore) -> None:
    """A registry of another release may name features that these rows do not carry."""
    from feature_repo.definitions import product_behavior
    from feature_repo.online_store import UnknownView, feast_rows, view_of

    found = snapshot(view_of(product_behavior), "", None, [blob_of(PRODUCT_BEHAVIOR)])
    with pytest.raises(UnknownView, match="feature view product_behavior has no sales_2h: apply its definition again"):
        feast_rows(found, ["sales_1h", "sales_2h"])


def test_a_redis_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    from feature_repo.definitions import apply, feature_store

    store = feature_store(redis="redis://127.0.0.1:1", registry=str(tmp_path / "registry.db"))
    apply(store)
    with pytest.raises(StoreUnavailable):
        ask(store, PRODUCT_CATALOG, ["a"], "price")


async def test_teardown_leaves_the_rows_of_the_engine_alone(
    own_redis: RedisServer, served: Serving, tmp_path: Path, raw: Redis
) -> None:
    from feature_repo.definitions import apply, feature_store

    await served.numbered(PRODUCT_CATALOG, "a")
    before = sorted(raw.keys())
    store = feature_store(redis=served.url, registry=str(tmp_path / "registry.db"))
    apply(store)
    ask(store, PRODUCT_CATALOG, ["a"], "price")
    store.teardown()  # type: ignore[no-untyped-call]
    assert sorted(raw.keys()) == before
