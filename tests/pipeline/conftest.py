"""One engine for the pipeline tests: on Apache Kafka when KAFKA_HOME names one, else on the embedded broker.

Every test adds a shop of its own to it and ends with the oracle looking at everything that was ever published.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feature_repo.views import DAY_MS
from streams.local.engine import LocalEngine
from streams.metrics import REPAIRS
from tests.parts import kafka_home
from tests.pipeline.shop import START_MS, Shop


def engine_on(folder: Path, home: Path | None, product_workers: int = 1) -> LocalEngine:
    """An engine with one worker of each role, its clock driven by the test."""
    workers = {"product": product_workers, "content": 1, "ranking": 1}
    return LocalEngine(folder, home, workers=workers, heartbeats="external", say=print)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """Started once; what a test breaks it also mends."""
    running = engine_on(tmp_path_factory.mktemp("engine"), kafka_home())
    try:
        running.start()
        with running.supervisor:
            running.wait_until_consuming()
            yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def shop(engine: LocalEngine, _numbers: Iterator[int], request: pytest.FixtureRequest) -> Shop:
    """A new shop, opened; the log's clock is a day later than the last one's."""
    number = next(_numbers)
    opened = Shop(f"shop{number}", seed=number + 1, begins_ms=START_MS + number * DAY_MS)
    opened.open(engine.settings)
    return opened


Verify = Callable[[], None]
#: what the oracle said after each test: (test, line)
verdicts: list[tuple[str, str]] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the oracle said after each fault."""
    if verdicts:
        terminalreporter.section("the oracle after each fault")
        for test, line in verdicts:
            terminalreporter.write_line(f"{test:<45} {line}")


@pytest.fixture
def verify(engine: LocalEngine, request: pytest.FixtureRequest) -> Verify:
    """Assert that every list, row and dead letter is what the offline replay says."""
    from streams.oracle import verify as ask

    def check() -> None:
        report = ask(engine.settings, timeout_s=120.0, repository=engine.repository)
        events = f"{report.events_counted} events counted, {report.events_doubled} doubled"
        rows = f"rows {report.rows_equal} of {report.rows_compared}"
        letters = f"dead letters {report.dead_letters_found} of {report.dead_letters_expected}"
        repairs = engine.snapshot().total(REPAIRS)
        verdicts.append((request.node.name, f"{report.line}; {events}; {rows}; {letters}; repairs {repairs}"))
        assert report.ok, report.to_json()
        assert report.result_sets > 0
        assert repairs == 0

    return check
