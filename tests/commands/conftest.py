"""The command line as a user has it: `invoke` calls it in this process, `engine` runs for the tests that need one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streams.cli import root
from streams.local.engine import LocalEngine
from tests.parts import kafka_home

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """`invoke("publish", "-", input=...)`: what `freshrank publish -` does."""

    def call(*arguments: str | Path, input: str | None = None) -> Result:
        return CliRunner().invoke(root, [str(argument) for argument in arguments], input=input)

    return call


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine, and a folder without engines."""
    for name in os.environ:
        if name.startswith("FRESHRANK_") and name != "FRESHRANK_TRITON_HOME":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which an engine runs as `freshrank up` would have started it."""
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="package")
def engine(shop: Path) -> Iterator[LocalEngine]:
    """One engine for all verbs; live heartbeats. What its supervisor says would mix with what a verb prints."""
    said: list[str] = []
    workers = {"product": 1, "content": 1, "ranking": 1}
    local = LocalEngine(shop / ".freshrank" / "run", kafka_home(), workers=workers, heartbeats="owner", say=said.append)
    with local.running():
        local.wait_until_consuming()
        yield local


@pytest.fixture
def in_shop(engine: LocalEngine, shop: Path, monkeypatch: pytest.MonkeyPatch) -> LocalEngine:
    """The current folder is that of the engine."""
    monkeypatch.chdir(shop)
    return engine
