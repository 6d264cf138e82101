"""Engines are found while they live, and only then."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from streams.local.running import Announcement, RunningEngine, newest_engine

ENGINE = RunningEngine(
    pid=1, started_ms=10, run_dir="/r", repository="/r/m", addresses={"kafka": "h:1"}, environment={}, metrics={}
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / ".freshrank" / "run-1"
    folder.mkdir(parents=True)
    return folder


def test_an_engine_is_found_until_it_withdraws(tmp_path: Path, run_dir: Path) -> None:
    announcement = Announcement(run_dir)
    assert newest_engine(tmp_path) is None
    announcement.publish(ENGINE)
    assert newest_engine(tmp_path) == ENGINE
    announcement.publish(replace(ENGINE, metrics={"product-0": "h:2"}))
    found = newest_engine(tmp_path)
    assert found is not None
    assert found.metrics == {"product-0": "h:2"}
    announcement.withdraw()
    assert newest_engine(tmp_path) is None
    assert list(run_dir.iterdir()) == []


def test_the_newest_one_is_found_or_that_with_the_broker_asked_for(tmp_path: Path, run_dir: Path) -> None:
    other_dir = run_dir.with_name("run-2")
    other_dir.mkdir()
    newer = replace(ENGINE, started_ms=20, addresses={"kafka": "h:9"})
    first, second = Announcement(run_dir), Announcement(other_dir)
    first.publish(ENGINE)
    second.publish(newer)
    assert newest_engine(tmp_path) == newer
    assert newest_engine(tmp_path, kafka="h:1") == ENGINE
    assert newest_engine(tmp_path, kafka="h:3") is None
    first.withdraw()
    second.withdraw()


def test_a_killed_engine_is_not_found(tmp_path: Path, run_dir: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from streams.local.running import *\n"
        "announcement = Announcement(Path(sys.argv[1]))\n"
        "announcement.publish(RunningEngine(1, 2, '', '', {'kafka': ''}, {}, {}))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(run_dir)], stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == b"up\n"
        found = newest_engine(tmp_path)
        os.kill(engine.pid, signal.SIGKILL)
    assert found is not None
    assert (run_dir / "engine.json").exists()
    assert newest_engine(tmp_path) is None
