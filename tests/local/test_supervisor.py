"""Workers come back, at growing intervals, until they are told to stop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local.process import wait_until
from streams.local.supervisor import Backoff, Supervisor, WorkerStatus

DEADLINE_S = 10.0


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A supervisor with a clock and a record of what it said."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.supervisor = Supervisor(folder, self.said.append, backoff=Backoff(1.0, 4.0, 30.0), clock=self.clock)

    def worker(self, name: str) -> WorkerStatus:
        return next(status for status in self.supervisor.status() if status.name == name)

    def poll_until_said(self, count: int) -> None:
        def said() -> bool:
            self.supervisor.poll()
            return len(self.said) == count

        assert wait_until(said, DEADLINE_S)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.supervisor.stop_all()


def test_a_worker_that_ends_is_started_again_after_its_delay(bench: Bench) -> None:
    bench.supervisor.start("ranking-1", ["sh", "-c", "echo lost the broker; exit 3"])
    bench.poll_until_said(1)
    assert bench.said[0].startswith("worker ranking-1 ended with exit code 3 after 0.0 s; starts again in 1 s (log: ")
    assert bench.said[0].endswith("\n  | lost the broker")
    assert bench.worker("ranking-1").state == "waiting"
    bench.clock.now = 0.9
    bench.supervisor.poll()
    assert bench.worker("ranking-1").restarts == 0
    bench.clock.now = 1.0
    bench.supervisor.poll()
    assert bench.worker("ranking-1").restarts == 1
    assert bench.worker("ranking-1").last_end == "exit code 3"


def test_delays_grow_to_a_limit_and_start_anew_after_a_steady_run() -> None:
    backoff = Backoff(first_s=1.0, longest_s=4.0)
    assert [backoff.delay_s(ends) for ends in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 4.0, 4.0]


def test_an_end_after_a_steady_run_counts_as_the_first(bench: Bench) -> None:
    bench.supervisor.start("product-1", ["sleep", "60"])
    for end, (lived_s, delay_s) in enumerate([(1.0, 1), (1.0, 2), (30.0, 1)], start=1):
        bench.clock.now += lived_s
        bench.supervisor.kill("product-1")
        bench.poll_until_said(end)
        assert f"ended with SIGKILL after {lived_s} s; starts again in {delay_s} s" in bench.said[-1]
        bench.clock.now += delay_s
        bench.supervisor.poll()
        assert bench.worker("product-1").state == "running"


def test_a_frozen_worker_is_shown_as_such_and_thawed(bench: Bench) -> None:
    bench.supervisor.start("content-1", ["sleep", "60"])
    bench.supervisor.freeze("content-1")
    assert bench.worker("content-1").state == "frozen"
    bench.supervisor.thaw("content-1")
    assert bench.worker("content-1").state == "running"


def test_a_worker_gets_its_variables_and_its_own_log(bench: Bench, tmp_path: Path) -> None:
    bench.supervisor.start("a", [sys.executable, "-c", "import os; print(os.environ['ROLE'])"], {"ROLE": "product"})
    bench.poll_until_said(1)
    assert (tmp_path / "a.log").read_text() == "product\n"


def test_a_stopped_worker_does_not_come_back(bench: Bench) -> None:
    bench.supervisor.start("a", ["sleep", "60"])
    bench.supervisor.stop("a")
    bench.clock.now = 100.0
    bench.supervisor.poll()
    assert bench.supervisor.status() == ()
    assert bench.said == []


def test_stop_all_waits_for_the_polite_and_ends_the_deaf(bench: Bench, tmp_path: Path) -> None:
    bench.supervisor.start("polite", ["sh", "-c", "trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.05; done"])
    bench.supervisor.start("deaf", ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"])
    logs = [tmp_path / "polite.log", tmp_path / "deaf.log"]
    assert wait_until(lambda: all(log.exists() and log.read_text() == "up\n" for log in logs), DEADLINE_S)
    pids = [status.pid for status in bench.supervisor.status()]
    bench.supervisor.stop_all(grace_s=1.0)
    assert [log.read_text() for log in logs] == ["up\nbye\n", "up\n"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_name_is_used_once(bench: Bench) -> None:
    bench.supervisor.start("a", ["sleep", "60"])
    with pytest.raises(ValueError, match="a worker a already"):
        bench.supervisor.start("a", ["sleep", "60"])
    with pytest.raises(KeyError):
        bench.supervisor.kill("b")


def test_as_a_context_it_polls_by_itself_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with Supervisor(tmp_path, lambda line: None, backoff=Backoff(first_s=0.01)) as supervisor:
        supervisor.start("a", ["sleep", "60"])
        supervisor.kill("a")
        assert wait_until(lambda: supervisor.status()[0].restarts == 1, DEADLINE_S)
        pid = supervisor.status()[0].pid
        assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
