"""Killed, frozen, emptied, doubled, shuffled: nothing changes a list. Each test ends equal to the oracle."""

import random
import time

import pytest

from feature_repo.events import Behavior, Product
from streams.client import Connection, RankingsReader
from streams.local.engine import LocalEngine
from streams.local.process import wait_until
from streams.metrics import HEARTBEAT
from tests.parts import kafka_home
from tests.pipeline.conftest import Verify
from tests.pipeline.shop import Shop

pytestmark = [pytest.mark.parts, pytest.mark.timeout(240)]

FROZEN_S = 15.0


def test_quiet_run(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """Nothing goes wrong: the floor of this file."""
    with shop.trading(engine.settings):
        pass
    verify()
    told = {(str(partition),): shop.ends_ms / 1000 for partition in range(engine.settings.partitions)}
    assert wait_until(lambda: engine.snapshot().gauges.get(HEARTBEAT.name) == told, 10.0)


@pytest.mark.parametrize("role", ["product", "content", "ranking"])
def test_worker_killed(engine: LocalEngine, shop: Shop, verify: Verify, role: str) -> None:
    """kill -9 in mid-stream; the supervisor starts it again and it rewinds to its markers."""
    with shop.trading(engine.settings) as trading:
        trading.wait_until(shop.events // 3)
        engine.supervisor.kill(f"{role}-0")
        trading.wait_until(2 * shop.events // 3)
        engine.supervisor.kill(f"{role}-0")
    verify()


@pytest.mark.parametrize("role", ["product", "ranking"])
def test_zombie(engine: LocalEngine, shop: Shop, verify: Verify, role: str) -> None:
    """A worker frozen while another takes its partitions over wakes up and must not spoil anything."""
    second = engine.start_worker(role, 1)
    try:
        engine.wait_until_consuming()
        shop.seconds = FROZEN_S + 8
        with shop.trading(engine.settings) as trading:
            trading.wait_until(shop.events // 6)
            engine.supervisor.freeze(f"{role}-0")
            time.sleep(FROZEN_S)
            engine.supervisor.thaw(f"{role}-0")
        verify()
    finally:
        engine.stop_worker(second)
    engine.wait_until_consuming()


def test_redis_killed_and_started_empty(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """The store forgets everything: the markers are gone, so everything is read again."""
    with shop.trading(engine.settings) as trading:
        trading.wait_until(shop.events // 2)
        engine.stack.redis.kill()
        trading.wait_until(2 * shop.events // 3)
        engine.stack.redis.start()
        engine.stack.redis.ready(30.0)
    verify()


def test_triton_stopped_and_started(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """While the model is away rankings go on, marked degraded; when it is back they are redone."""
    with shop.trading(engine.settings) as trading:
        trading.wait_until(shop.events // 3)
        engine.stack.triton.stop()
        trading.wait_until(2 * shop.events // 3)
        degraded = _is_any_degraded(engine)
        engine.stack.triton.start()
        engine.stack.triton.ready(120.0)
    assert degraded
    verify()
    assert not _is_any_degraded(engine)


@pytest.mark.kafka
def test_broker_killed_and_started(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """kill -9 of the only broker; its log survives, everybody comes back or is started again."""
    assert kafka_home() is not None
    shop.seconds = 25.0
    with shop.trading(engine.settings) as trading:
        trading.wait_until(shop.events // 3)
        engine.stack.broker.kill()
        time.sleep(1.0)
        engine.stack.broker.start()
        engine.stack.broker.ready(60.0)
    verify()


def test_doubled_and_shuffled(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """Events sent twice and out of order by up to five minutes of event time count once."""
    shop.trade(engine.settings, _doubled_and_shuffled)
    verify()


def _doubled_and_shuffled(story: list[Product | Behavior], rng: random.Random) -> list[Product | Behavior]:
    behavior = [event for event in story if isinstance(event, Behavior)]
    doubled = story + rng.sample(behavior, len(behavior) // 2)
    return sorted(doubled, key=lambda event: event.event_time + rng.randrange(0, 300_000))


def _is_any_degraded(engine: LocalEngine) -> bool:
    with RankingsReader(Connection.from_settings(engine.settings)) as reader:
        return any(ranking.degraded for ranking in reader.latest().values())
