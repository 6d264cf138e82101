"""More workers, fewer workers, workers killed at any moment: no list changes. Each test ends equal to the oracle."""

import random

import pytest

from streams.local.engine import LocalEngine
from tests.pipeline.conftest import Verify
from tests.pipeline.shop import Shop

pytestmark = [pytest.mark.parts, pytest.mark.timeout(240)]

ROLES = ("product", "content", "ranking")
KILLS = 10


def test_workers_killed_at_random_moments(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """kill -9 ten times, whichever role and moment the seed says; some meet a worker that is just coming back."""
    rng = random.Random(shop.seed)
    shop.seconds = 30.0
    with shop.trading(engine.settings) as trading:
        for moment in sorted(rng.sample(range(shop.events // 20, shop.events), KILLS)):
            trading.wait_until(moment)
            engine.supervisor.kill(f"{rng.choice(ROLES)}-0")
    verify()


@pytest.mark.parametrize("role", ["product", "ranking"])
def test_one_worker_then_three_then_two(engine: LocalEngine, shop: Shop, verify: Verify, role: str) -> None:
    """Partitions move to new workers and on again while events flow."""
    started: list[str] = []
    shop.seconds = 30.0
    try:
        with shop.trading(engine.settings) as trading:
            trading.wait_until(shop.events // 6)
            started += [engine.start_worker(role, number) for number in (1, 2)]
            trading.wait_until(3 * shop.events // 5)
            engine.stop_worker(started.pop())
        verify()
    finally:
        for name in started:
            engine.stop_worker(name)
    engine.wait_until_consuming()
