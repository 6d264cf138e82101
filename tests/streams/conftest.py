"""Tests of this folder run on a virtual clock, but for those that talk to a real part."""

import asyncio
import uuid
from collections.abc import Callable, Mapping

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from streams.settings import Settings
from tests.streams.loops import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Loops of the async tests and fixtures of this folder."""
    if item.get_closest_marker("parts"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualLoop}


@pytest.fixture(params=["tansu", pytest.param("apache", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Of each broker there is."""
    part = request.getfixturevalue({"tansu": "broker", "apache": "kafka"}[request.param])
    return Settings(kafka=part.address, kafka_kind=request.param)


@pytest.fixture
def topic(settings: Settings) -> str:
    """A new topic of two partitions."""
    name = f"tested-{uuid.uuid4()}"
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    admin.create_topics([NewTopic(name, 2, 1)])
    admin.close()
    return name
