"""The real local parts as fixtures, one of each a session. A part that does not come up fails the test, never skips it.

A conftest loads this file with `pytest_plugins = ["tests.parts"]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from streams.local.apache_kafka import ApacheKafka
from streams.local.part import ProcessPart
from streams.local.redis_server import RedisServer
from streams.local.tansu import TansuBroker
from streams.local.triton_server import TritonServer

READY_TIMEOUT_S = 30.0
TRITON_READY_TIMEOUT_S = 120.0
REPOSITORY = Path(__file__).parents[1] / "model_repository"

#: how many tests had no GPU
WITHOUT_GPU = pytest.StashKey[int]()

AnyPart = TypeVar("AnyPart", bound=ProcessPart)


def kafka_home() -> Path | None:
    """The Apache Kafka to test with, if there is one."""
    home = os.environ.get("KAFKA_HOME")
    return Path(home) if home else None


@contextmanager
def running(part: AnyPart, timeout_s: float = READY_TIMEOUT_S) -> Iterator[AnyPart]:
    """The part, ready; stopped at the end."""
    try:
        part.start()
        part.ready(timeout_s)
        yield part
    finally:
        part.stop()


@pytest.fixture(scope="session")
def parts_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's parts keep their logs and data."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="session")
def broker(parts_dir: Path) -> Iterator[TansuBroker]:
    """Tansu, shared: use topics and groups with random names."""
    with running(TansuBroker(parts_dir)) as part:
        yield part


@pytest.fixture(scope="session")
def kafka(parts_dir: Path) -> Iterator[ApacheKafka]:
    """Apache Kafka, shared; only for tests marked `kafka`."""
    home = kafka_home()
    if home is None:
        pytest.fail("KAFKA_HOME is not set: a test that uses Apache Kafka must be marked `kafka`")
    with running(ApacheKafka(parts_dir, home)) as part:
        yield part


@pytest.fixture(scope="session")
def redis_server(parts_dir: Path) -> Iterator[RedisServer]:
    """Redis, shared: use keys of your own."""
    with running(RedisServer(parts_dir)) as part:
        yield part


@pytest.fixture(scope="session")
def model_repository() -> Path:
    """The models that `triton` serves, all of them; override it to serve others."""
    return REPOSITORY


@pytest.fixture(scope="session")
def triton(parts_dir: Path, model_repository: Path) -> Iterator[TritonServer]:
    """Triton, shared, with every model of `model_repository`."""
    models = sorted(config.parent.name for config in model_repository.glob("*/config.pbtxt"))
    with running(TritonServer(model_repository, models, parts_dir), TRITON_READY_TIMEOUT_S) as part:
        yield part


def pytest_report_header() -> str:
    """Says whether Apache Kafka is part of this run."""
    home = kafka_home()
    return f"Apache Kafka: {home}" if home else "Apache Kafka: KAFKA_HOME is not set, tests marked kafka are left out"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this machine cannot: Apache Kafka needs Java and KAFKA_HOME, some tests need a GPU. No other ones
    are opt-in."""
    left_out = [item for item in items if _lacks(item) is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    config.stash[WITHOUT_GPU] = sum(_lacks(item) == "gpu" for item in left_out)


def pytest_report_collectionfinish(config: pytest.Config) -> str | list[str]:
    """Says which tests had no GPU to run on; the header cannot, since asking for one takes torch."""
    left_out = config.stash.get(WITHOUT_GPU, 0)
    return f"GPU: there is none, tests marked gpu are left out: {left_out}" if left_out else []


def _lacks(item: pytest.Item) -> str | None:
    """What the test needs and does not have."""
    if item.get_closest_marker("kafka") and kafka_home() is None:
        return "kafka"
    if item.get_closest_marker("gpu") and not has_gpu():
        return "gpu"
    return None


@cache
def has_gpu() -> bool:
    """Whether torch finds one."""
    import torch

    return torch.cuda.is_available()
