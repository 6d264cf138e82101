"""Topics that change under a running engine, on a broker of their own: more partitions, topics made anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from feature_repo.views import DAY_MS
from streams import topics
from streams.local.engine import LocalEngine
from streams.local.process import wait_until
from streams.metrics import REPAIRS
from streams.oracle import verify
from streams.records import BEHAVIOR, CATALOG, CONTENT, FEATURE_CHANGES, USER_BEHAVIOR
from streams.settings import Settings
from tests.parts import kafka_home
from tests.pipeline.conftest import engine_on
from tests.pipeline.shop import START_MS, Shop

pytestmark = [pytest.mark.parts, pytest.mark.timeout(240)]

MORE = 6


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """One that no other test sees."""
    running = engine_on(tmp_path, kafka_home())
    with running.running():
        running.wait_until_consuming()
        yield running


@contextmanager
def admin_of(settings: Settings) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        yield admin
    finally:
        admin.close()


def assert_all_is_right(engine: LocalEngine, sets: int) -> None:
    """Equal to the oracle, no event lost or counted twice, nothing repaired."""
    report = verify(engine.settings, timeout_s=120.0)
    assert report.ok, report.to_json()
    assert report.result_sets == sets
    assert report.events_doubled == 0
    assert engine.snapshot().total(REPAIRS) == 0


@pytest.mark.kafka
def test_topics_that_get_more_partitions(engine: LocalEngine) -> None:
    """Products move to other partitions: their rows then hold events of two, and nothing is lost or counted twice."""
    settings = engine.settings
    shop = Shop("before")
    shop.open(settings)
    with shop.trading(settings) as trading:
        trading.wait_until(shop.events // 2)
        with admin_of(settings) as admin:
            admin.create_partitions(dict.fromkeys((CATALOG, BEHAVIOR), MORE))
    # the same products, by a publisher that knows all partitions
    later = replace(shop, seed=2, begins_ms=START_MS + DAY_MS)
    later.open(settings)
    later.trade(settings)
    found = topics.check(settings)
    assert found.partitions[CATALOG] == found.partitions[BEHAVIOR] == MORE
    assert_all_is_right(engine, shop.sets)


def test_topics_that_are_made_anew(engine: LocalEngine) -> None:
    """The rows of the old topics are not those of the new ones, though their offsets begin at 0 again."""
    settings = engine.settings
    shop = Shop("old")
    shop.open(settings)
    shop.trade(settings)
    assert verify(settings, timeout_s=120.0).ok
    anew = [CATALOG, BEHAVIOR, CONTENT, USER_BEHAVIOR, FEATURE_CHANGES]
    before = topics.check(settings)
    with admin_of(settings) as admin:
        admin.delete_topics(anew)
    assert wait_until(lambda: topics.create(settings) == [], 30.0)
    assert all(topics.check(settings).topics[name] != before.topics[name] for name in anew)
    again = Shop("old", seed=2, products=shop.products // 2)
    again.open(settings)
    again.trade(settings)
    assert_all_is_right(engine, shop.sets)


def test_an_internal_topic_of_an_older_input_is_refused(engine: LocalEngine) -> None:
    """A catalog made anew beside the contents of the old one: workers say so and do not start."""
    settings = engine.settings
    Shop("shop", events=10, seconds=1.0).open(settings)
    assert verify(settings, timeout_s=120.0).ok
    with admin_of(settings) as admin:
        admin.delete_topics([CATALOG])
    assert wait_until(lambda: topics.create(settings) == [], 30.0)
    logs = [engine.supervisor.log_dir / f"{role}-0.log" for role in ("product", "content", "ranking")]
    sentence = "topic content holds what came from another catalog"
    assert wait_until(lambda: all(sentence in log.read_text() for log in logs), 60.0)
