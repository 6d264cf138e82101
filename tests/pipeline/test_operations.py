"""What happens in the life of a shop: a store that forgets a second, another model, a slow one, a worker that lags,
lists that end, a quiet partition. Each test ends equal to the oracle."""

import random
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis import Redis

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.views import MINUTE_MS
from serving.model.export import export
from serving.model.versions import bundle_at
from serving.requests import MODELS
from serving.settings import ServingSettings
from streams import models
from streams.client import Connection, RankingsReader, Registrar
from streams.local.engine import LocalEngine
from streams.records import partition_for
from tests.pipeline.conftest import Verify
from tests.pipeline.shop import Shop
from tests.serving.test_versions import changed_weights

pytestmark = [pytest.mark.parts, pytest.mark.timeout(240)]

FORGOTTEN_S = 1.0
#: longer than a scoring call may take
SLOW_S = 3.0
#: shorter than the session's time
LAG_S = 4.0
SETS = 6

Story = list[Product | Behavior]


def test_redis_killed_and_started_with_a_second_less(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """What a store loses that syncs each second: the markers go back, and the workers with them."""
    redis = engine.stack.redis
    with shop.trading(engine.settings) as trading:
        trading.wait_until(shop.events // 2)
        with Redis.from_url(engine.settings.redis.get_secret_value()) as client:
            client.save()
        time.sleep(FORGOTTEN_S)
        redis.kill()
        redis.start()
        redis.ready(30.0)
        (redis.folder / "dump.rdb").unlink()
    verify()


@pytest.mark.parametrize("changed", [("ranker",), MODELS], ids=["ranker", "encoders too"])
def test_another_model_in_mid_stream(
    engine: LocalEngine, shop: Shop, verify: Verify, tmp_path: Path, changed: tuple[str, ...]
) -> None:
    """Workers switch while events flow; each list ends scored by the new model, after a rollback by the old."""
    settings, serving = engine.settings, ServingSettings(triton=engine.stack.triton.address)
    before = models.in_force(settings)
    assert before is not None
    weights = changed_weights(tmp_path / "weights", *changed, by=0.9, repository=engine.repository)
    versions = export(weights, engine.repository)
    newer = bundle_at(engine.repository, max(versions.values()))
    encoded: list[tuple[int, int]] = []
    with shop.trading(settings) as trading:
        trading.wait_until(shop.events // 3)
        models.put_in_force(settings, serving, engine.repository, newer, lambda *at: encoded.append(at))
    verify()
    if "product_encoder" in changed:
        assert encoded[-1][0] == encoded[-1][1] >= shop.products
    assert _models_that_rank(engine, shop) == {f"{newer.bundle}/{newer.version}"}
    models.put_in_force(settings, serving, engine.repository, before)
    verify()
    assert _models_that_rank(engine, shop) == {f"{before.bundle}/{before.version}"}


def _models_that_rank(engine: LocalEngine, shop: Shop) -> set[str]:
    with RankingsReader(Connection.from_settings(engine.settings)) as reader:
        latest = reader.latest()
    return {ranking.model_version for name, ranking in latest.items() if name.startswith(f"{shop.name}-")}


def test_slow_triton(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """A server that stops for longer than a call may take, again and again: degraded in between, right in the end."""
    shop.seconds = 30.0
    with shop.trading(engine.settings) as trading:
        for part in (2, 3, 4):
            trading.wait_until(part * shop.events // 6)
            engine.stack.triton.freeze()
            time.sleep(SLOW_S)
            engine.stack.triton.thaw()
    verify()


@pytest.mark.parametrize("role", ["product", "content", "ranking"])
def test_a_worker_that_lags(engine: LocalEngine, shop: Shop, verify: Verify, role: str) -> None:
    """Frozen for less than the session's time: nobody takes over, what has piled up is caught up with."""
    with shop.trading(engine.settings) as trading:
        trading.wait_until(shop.events // 3)
        engine.supervisor.freeze(f"{role}-0")
        time.sleep(LAG_S)
        engine.supervisor.thaw(f"{role}-0")
    verify()


def test_sets_that_expire_and_sets_that_are_closed(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """A list that has ended stands no more, whatever changes afterwards; one that is registered again does."""
    connection = Connection.from_settings(engine.settings)
    ends = shop.begins_ms + 60 * MINUTE_MS
    with Registrar(connection) as registrar:
        for number in range(SETS):
            registrar.register(_a_set(shop, f"ending{number}", expires_at=ends))
            registrar.register(_a_set(shop, f"closed{number}"))
        with shop.trading(engine.settings) as trading:
            trading.wait_until(shop.events // 3)
            for number in range(SETS):
                registrar.unregister(_a_set(shop, f"closed{number}").result_set_id)
            trading.wait_until(2 * shop.events // 3)
            registrar.register(_a_set(shop, "closed0"))
    verify()
    with RankingsReader(connection) as reader:
        standing = [name for name in reader.latest() if name.startswith(f"{shop.name}-")]
    assert [name for name in standing if "ending" in name or "closed" in name] == [f"{shop.name}-closed0"]
    assert len(standing) == shop.sets + 1


def _a_set(shop: Shop, name: str, expires_at: int | None = None) -> ResultSet:
    return ResultSet(
        result_set_id=f"{shop.name}-{name}",
        event_time=shop.begins_ms,
        kind="recommendation",
        candidates=[(shop.product_id(number), 1.0) for number in range(shop.candidates)],
        expires_at=expires_at,
    )


def test_a_partition_without_traffic(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """Everything happens to products of one partition: the others are quiet, not late, and hold nothing up."""
    many = engine.settings.partitions
    busy = [n for n in range(shop.products) if partition_for(shop.product_id(n), many) == 0]
    assert busy
    quiet = [shop.product_id(n) for n in range(shop.products) if n not in busy]

    def to_one_partition(story: Story, rng: random.Random) -> Story:
        return [replace(e, product_id=shop.product_id(rng.choice(busy))) if e.product_id in quiet else e for e in story]

    shop.trade(engine.settings, to_one_partition)
    verify()
