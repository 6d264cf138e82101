"""Commands that start an engine stop it, however they end: no process is left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.local.process import wait_until
from streams.local.running import newest_engine

pytestmark = pytest.mark.parts

PROJECT = Path(__file__).parents[2]
SMALL = ("--events", "60", "--speed", "30", "--sets", "4")


@contextmanager
def freshrank(*arguments: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The command, in a process of its own; killed at the end if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streams", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], mark: str) -> list[str]:
    """Its output up to the line that contains `mark`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if mark in line:
            return lines
    raise AssertionError(f"no {mark!r} in\n{''.join(lines)}")


def rest_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read()


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: set[int] = set()
    below = [pid]
    while below:
        children = parents.get(below.pop(), [])
        found.update(children)
        below += children
    return found


def assert_gone(pids: set[int]) -> None:
    def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    assert wait_until(gone, 10.0), [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_up_prints_addresses_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    with freshrank("up", "--content", "0", cwd=tmp_path) as up:
        lines = read_until(up, "Ctrl-C stops everything")
        started = descendants(up.pid)
        engine = newest_engine(tmp_path)
        up.send_signal(signal.SIGINT)
        # an interrupt that meets the print of the last line makes the console print it once more
        assert rest_of(up).endswith("stopped\n")
        assert up.wait(30) == 0
    assert engine is not None
    exported = dict(line.strip().removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    assert exported == engine.environment
    assert list(engine.metrics) == ["product-0", "ranking-0"]
    assert len(started) >= 5  # three parts, two workers
    assert_gone(started)
    assert newest_engine(tmp_path) is None


def test_up_for_programs_ends_by_sigterm_and_starts_parts_again(tmp_path: Path) -> None:
    nobody = ("--product", "0", "--content", "0", "--ranking", "0")
    with freshrank("up", "--json", *nobody, cwd=tmp_path) as up:
        (line,) = [line for line in read_until(up, '"environment"') if line.startswith("{")]
        told = json.loads(line)
        read_until(up, "Ctrl-C stops everything")
        started = descendants(up.pid)
        (redis,) = [pid for pid in started if "redis-server" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(redis, signal.SIGKILL)
        read_until(up, "redis ended and is started again")
        up.send_signal(signal.SIGTERM)
        assert "stopped" in rest_of(up)
        assert up.wait(30) == 0
    assert set(told["addresses"]) >= {"kafka", "redis", "triton"}
    assert told["pid"] == up.pid
    assert_gone(started)


def test_the_demo_shows_follows_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    with freshrank("demo", "--follow", "--json", *SMALL, cwd=tmp_path) as demo:
        lines = read_until(demo, "new orders as they come")
        started = descendants(demo.pid)
        demo.send_signal(signal.SIGINT)
        assert rest_of(demo).endswith("stopping\n")
        assert demo.wait(30) == 0
    (line,) = [line for line in lines if line.startswith("{")]
    summary = json.loads(line)
    assert summary["ok"]
    assert (summary["sets"], summary["sets_equal"], summary["worker_restarts"]) == (5, 5, 0)
    assert summary["events_replayed"] >= 60
    assert any("verify: 5 of 5 result sets equal to the oracle" in line for line in lines)
    assert_gone(started)
    assert list((tmp_path / ".freshrank").iterdir()) == []  # all went well: nothing to look at


def test_the_demo_can_be_interrupted(tmp_path: Path) -> None:
    with freshrank("demo", *SMALL, cwd=tmp_path) as demo:
        read_until(demo, "redis at ")
        started = descendants(demo.pid)
        demo.send_signal(signal.SIGINT)
        assert rest_of(demo).endswith("stopped\n")
        assert demo.wait(30) == 130
    assert_gone(started)


def test_a_missing_part_is_one_line(tmp_path: Path) -> None:
    with freshrank("up", cwd=tmp_path, FRESHRANK_TRITON_HOME=str(tmp_path)) as up:
        output = rest_of(up)
        assert up.wait(30) == 2
    assert output.startswith(f"Error: triton: no tritonserver in {tmp_path}; install it with: pip install")
    assert output.count("\n") == 1


def test_a_folder_without_kafka_is_one_line(tmp_path: Path) -> None:
    with freshrank("up", "--kafka-home", str(tmp_path), cwd=tmp_path) as up:
        output = rest_of(up)
        assert up.wait(30) == 2
    assert output == (
        f"Error: kafka: {tmp_path}/libs has no Kafka in it; KAFKA_HOME must name an Apache Kafka 4.0 or newer\n"
    )
