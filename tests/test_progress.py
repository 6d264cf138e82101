"""Read your writes: a marker that has passed an offset says so, whoever asks."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest
from pydantic import SecretStr

from feature_repo.row_store import Marker, RowStore, Space
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, View
from streams import topics
from streams.client import Unreachable
from streams.local.redis_server import RedisServer
from streams.local.tansu import TansuBroker
from streams.progress import NotTakenIn, Progress
from streams.records import BEHAVIOR, CATALOG, RESULT_SETS
from streams.settings import Settings
from tests.parts import running

Markers = dict[tuple[View, int], int]


@pytest.fixture
def settings(broker: TansuBroker, redis_server: RedisServer) -> Settings:
    """The parts of the session, with all topics; markers are those of this cluster."""
    redis = SecretStr(f"redis://{redis_server.address}/{uuid.uuid4().int % 16}")
    found = Settings(kafka=broker.address, kafka_kind="tansu", redis=redis)
    topics.create(found)
    return found


def flush(settings: Settings, markers: Markers) -> None:
    """Move markers as product workers do."""
    ids = topics.check(settings)

    async def move() -> None:
        store = RowStore(settings.redis.get_secret_value())
        try:
            for (view, partition), offset in markers.items():
                space = Space(ids.cluster, ids.topics[view.topic], view.name)
                (before,) = await store.markers(space, [partition])
                expected = b"" if before is None else before.encode()
                flushed = await store.flush(space, partition, expected, Marker(offset).encode(), [], None)
                assert flushed.status == "ok"
        finally:
            await store.close()

    asyncio.run(move())


@pytest.mark.parts
def test_an_offset_is_taken_in_once_the_marker_is_above_it(settings: Settings) -> None:
    progress = Progress(settings)
    flush(settings, {(PRODUCT_CATALOG, 1): 8, (PRODUCT_CATALOG, 2): 8, (PRODUCT_BEHAVIOR, 1): 3})
    progress.wait_for({}, timeout_s=0)
    progress.wait_for({(CATALOG, 1): 7, (CATALOG, 2): 2, (BEHAVIOR, 1): 2}, timeout_s=0)
    for behind, text in (
        ({(CATALOG, 1): 7, (CATALOG, 2): 8}, r"catalog\[2\]: taken in below offset 8, offset 8 was published"),
        ({(BEHAVIOR, 1): 3}, r"behavior\[1\]: taken in below offset 3, offset 3"),
        ({(CATALOG, 0): 0}, r"catalog\[0\]: taken in below offset 0, offset 0"),
    ):
        with pytest.raises(NotTakenIn, match=text):
            progress.wait_for(behind, timeout_s=0)
    later = threading.Timer(0.2, flush, (settings, {(PRODUCT_CATALOG, 2): 9}))
    later.start()
    progress.wait_for({(CATALOG, 2): 8}, timeout_s=20)
    later.join()


@pytest.mark.parts
def test_what_cannot_be_waited_for_is_told(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ValueError, match="offsets: expected those of catalog and behavior, got result-sets"):
        Progress(settings).wait_for({(RESULT_SETS, 0): 1, (CATALOG, 0): 1})
    away = settings.model_copy(update={"redis": SecretStr("redis://127.0.0.1:1/0")})
    with pytest.raises(NotTakenIn, match="the store does not answer"):
        Progress(away).wait_for({(CATALOG, 0): 1}, timeout_s=0)
    with running(TansuBroker(tmp_path_factory.mktemp("empty"))) as empty:
        bare = settings.model_copy(update={"kafka": empty.address})
        with pytest.raises(Unreachable, match="catalog"):
            Progress(bare).wait_for({(CATALOG, 0): 1})
    with pytest.raises(Unreachable):
        Progress(settings.model_copy(update={"kafka": "127.0.0.1:1"})).wait_for({(CATALOG, 0): 1})
