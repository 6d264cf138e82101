"""Topics that are made anew under a running engine, on an Apache Kafka of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from streams import topics
from streams.local.engine import LocalEngine
from streams.local.process import wait_until
from streams.oracle import verify
from streams.records import CATALOG
from streams.settings import Settings
from tests.parts import kafka_home
from tests.pipeline.conftest import engine_on
from tests.pipeline.shop import Shop

pytestmark = [pytest.mark.parts, pytest.mark.kafka, pytest.mark.timeout(240)]


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
