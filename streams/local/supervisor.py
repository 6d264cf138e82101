"""Worker processes, started again when they end: workers crash rather than limp, so something must bring them back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from streams.local.process import Process, describe_exit, wait_until

GRACE_S = 10.0  # from SIGTERM to SIGKILL: a worker flushes in 4


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a worker is started again.

    Short at first, since every second without an owner is a second of staleness; growing, so that a worker that
    cannot start does not eat the machine; short again for one that has run for `steady_s`.
    """

    first_s: float = 0.2
    longest_s: float = 10.0
    steady_s: float = 30.0

    def delay_s(self, quick_ends: int) -> float:
        """Delay after the given number of ends in a row (≥ 1), none of which came after `steady_s`."""
        return float(min(self.first_s * 2.0 ** (quick_ends - 1), self.longest_s))


@dataclass(frozen=True)
class WorkerStatus:
    """One worker now: `waiting` = ended and soon to be started again."""

    name: str
    state: Literal["running", "frozen", "waiting"]
    pid: int | None
    restarts: int
    last_end: str | None
    log: Path


class _Worker:
    def __init__(self, name: str, process: Process, started_at: float) -> None:
        self.name = name
        self.process = process
        self.started_at = started_at
        self.due_at: float | None = None  # set while waiting
        self.quick_ends = 0
        self.restarts = 0
        self.frozen = False
        self.last_end: str | None = None


class Supervisor:
    """Runs workers by name and starts each again when it ends, however it ended. Thread-safe.

    Either call poll() regularly, or use it as a context manager, which polls in a thread and stops all at the end.
    `say` is given one line (and the log's tail) each time a worker ends; `clock` is monotonic seconds.
    """

    def __init__(
        self,
        log_dir: Path,
        say: Callable[[str], None],
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log_dir = log_dir
        self._say = say
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._workers: dict[str, _Worker] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Run a command as worker `name`, logging to `LOG_DIR/NAME.log`. ValueError when the name is used already."""
        with self._lock:
            if name in self._workers:
                raise ValueError(f"there is a worker {name} already")
            process = Process(argv, self.log_dir / f"{name}.log", env)
            process.start()
            self._workers[name] = _Worker(name, process, self._clock())

    def poll(self) -> None:
        """Notice workers that have ended, and start those again whose delay is over."""
        with self._lock:
            for worker in self._workers.values():
                if worker.due_at is not None:
                    self._start_when_due(worker)
                elif (returncode := worker.process.returncode) is not None:
                    self._notice_end(worker, returncode)

    def _notice_end(self, worker: _Worker, returncode: int) -> None:
        now = self._clock()
        lived_s = now - worker.started_at
        worker.quick_ends = 1 if lived_s >= self._backoff.steady_s else worker.quick_ends + 1
        delay_s = self._backoff.delay_s(worker.quick_ends)
        worker.due_at = now + delay_s
        worker.frozen = False
        worker.last_end = describe_exit(returncode)
        tail = "\n".join(f"  | {line}" for line in worker.process.tail().splitlines())
        self._say(
            f"worker {worker.name} ended with {worker.last_end} after {lived_s:.1f} s; starts again in {delay_s:g} s"
            f" (log: {worker.process.log})" + (f"\n{tail}" if tail else "")
        )

    def _start_when_due(self, worker: _Worker) -> None:
        now = self._clock()
        if worker.due_at is None or now < worker.due_at:
            return
        try:
            worker.process.start()
        except OSError as error:  # no memory, no process: what lacks may come back, as after any other end
            worker.due_at = now + self._backoff.longest_s
            self._say(f"worker {worker.name} cannot be started: {error}; next try in {self._backoff.longest_s:g} s")
            return
        worker.started_at, worker.due_at = now, None
        worker.restarts += 1

    def status(self) -> tuple[WorkerStatus, ...]:
        """All workers, in the order of their start."""
        with self._lock:
            return tuple(
                WorkerStatus(
                    name=worker.name,
                    state=_state(worker),
                    pid=worker.process.pid if worker.process.alive() else None,
                    restarts=worker.restarts,
                    last_end=worker.last_end,
                    log=worker.process.log,
                )
                for worker in self._workers.values()
            )

    def kill(self, name: str) -> None:
        """SIGKILL; like any other end it is followed by a restart. KeyError when there is no such worker."""
        self._process(name).kill()

    def freeze(self, name: str) -> None:
        """SIGSTOP. KeyError when there is no such worker, RuntimeError when it does not run."""
        with self._lock:
            self._process(name).freeze()
            self._workers[name].frozen = True

    def thaw(self, name: str) -> None:
        """SIGCONT. KeyError when there is no such worker, RuntimeError when it does not run."""
        with self._lock:
            self._process(name).thaw()
            self._workers[name].frozen = False

    def stop(self, name: str, grace_s: float = GRACE_S) -> None:
        """SIGTERM, after grace_s SIGKILL, and no restart; the name is free again. KeyError when there is none."""
        with self._lock:
            worker = self._workers.pop(name)
        worker.process.stop(grace_s)

    def stop_all(self, grace_s: float = GRACE_S) -> None:
        """stop() for all workers at once: SIGTERM to each, SIGKILL to those that are there after grace_s."""
        with self._lock:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.process.terminate()
        wait_until(lambda: all(worker.process.has_ended() for worker in workers), grace_s)
        for worker in workers:
            worker.process.kill()

    def _process(self, name: str) -> Process:
        with self._lock:
            return self._workers[name].process

    def __enter__(self) -> Supervisor:
        self._ending.clear()
        self._thread = threading.Thread(target=self._poll_until_the_end, name="supervisor", daemon=True)
        self._thread.start()
        return self

    def _poll_until_the_end(self) -> None:
        while not self._ending.wait(0.05):
            self.poll()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self.stop_all()


def _state(worker: _Worker) -> Literal["running", "frozen", "waiting"]:
    if worker.due_at is not None or not worker.process.alive():
        return "waiting"
    return "frozen" if worker.frozen else "running"
