"""The whole engine on this machine: local parts, topics, the first bundle, workers; started and stopped together.

1. parts: broker, Redis, Triton on a copy of the model repository
2. topics, and a bundle on `models` when there is none
3. workers under a supervisor that restarts them
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from serving.model.bundle import REPOSITORY, default_bundle
from serving.requests import MODELS as SERVED
from streams import models, topics
from streams.local.part import Part, PartFailed
from streams.local.ports import HeldPort
from streams.local.running import Announcement, RunningEngine
from streams.local.stack import LocalStack
from streams.local.supervisor import Supervisor
from streams.records import BEHAVIOR, CATALOG, CONTENT, RESULT_SETS, USER_BEHAVIOR
from streams.settings import Settings
from streams.snapshots import Snapshot, scrape

READY_TIMEOUT_S = 60.0
#: topics whose partitions each role owns
OWNED = {"product": (CATALOG, BEHAVIOR, USER_BEHAVIOR), "content": (CONTENT,), "ranking": (RESULT_SETS,)}

Say = Callable[[str], None]
#: called with a part and after how many seconds it answered
OnReady = Callable[[Part, float], None]


def _nobody_asks(part: Part, seconds: float) -> None:
    """The default of `start`."""


class LocalEngine:
    """`workers` says how many of each role; `heartbeats` as in the settings."""

    def __init__(
        self,
        run_dir: Path,
        kafka_home: Path | None,
        *,
        workers: Mapping[str, int],
        heartbeats: str,
        say: Say,
    ) -> None:
        self.run_dir = run_dir
        self.repository = run_dir / "model_repository"
        self.stack = LocalStack(run_dir, kafka_home, self.repository, SERVED)
        self.supervisor = Supervisor(run_dir / "workers", say)
        self._workers = workers
        self._heartbeats = heartbeats
        self._say = say
        self._metrics: dict[str, HeldPort] = {}
        self._announcement = Announcement(run_dir)

    def start(self, on_ready: OnReady = _nobody_asks) -> None:
        """Parts that answer, and workers on their way: `wait_until_consuming` waits for them. Raises PartFailed.

        Workers begin as soon as broker and Redis are there: they can wait for Triton, which takes longest.
        """

        def proceed(part: Part, seconds: float) -> None:
            on_ready(part, seconds)
            if part is self.stack.broker:  # the last before Triton
                self._start_workers()

        # 1.
        copy_repository(REPOSITORY, self.repository)
        try:
            self.stack.start(on_ready=proceed)
        except BaseException:
            self.stop()
            raise
        self._announcement.publish(self.announced)

    def _start_workers(self) -> None:
        # 2.
        settings = self.settings
        topics.create(settings)
        models.publish_first(settings, default_bundle())
        # 3.
        for role, count in self._workers.items():
            for number in range(count):
                self.start_worker(role, number)

    def start_worker(self, role: str, number: int) -> str:
        """One more worker; its name."""
        name = f"{role}-{number}"
        port = self._metrics[name] = HeldPort()
        port.hold()
        argv = [sys.executable, "-m", "streams", "worker", "--role", role, "--instance", name]
        self.supervisor.start(name, argv, {**self.environment, "FRESHRANK_METRICS_PORT": str(port.number)})
        return name

    def stop_worker(self, name: str) -> None:
        """One worker less; others take its partitions over."""
        self.supervisor.stop(name)
        self._metrics.pop(name).release()

    def wait_until_consuming(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until every partition of every input has an owner that reads it. Raises PartFailed."""
        deadline = time.monotonic() + timeout_s
        while missing := self._without_owner():
            self.supervisor.poll()
            if time.monotonic() > deadline:
                raise PartFailed(
                    f"workers: nobody reads {', '.join(missing)}; see the logs in {self.run_dir / 'workers'}"
                )
            time.sleep(0.1)

    def _without_owner(self) -> list[str]:
        owned = {(row.topic, row.partition) for row in self.snapshot().partitions()}
        many = self.settings.partitions
        wanted = [topic for role, count in self._workers.items() if count for topic in OWNED[role]]
        return [f"{topic}[{p}]" for topic in wanted for p in range(many) if (topic, p) not in owned]

    @property
    def environment(self) -> dict[str, str]:
        """The FRESHRANK_ variables of this engine's workers and clients."""
        return {
            **self.stack.environment(),
            "FRESHRANK_HEARTBEATS": self._heartbeats,
            "FRESHRANK_MEDIA": f"file://{(self.run_dir / 'media').resolve()}",
        }

    @property
    def settings(self) -> Settings:
        """The same as settings of this process."""
        chosen = {name.removeprefix("FRESHRANK_").lower(): value for name, value in self.environment.items()}
        return Settings.model_validate(chosen)

    @property
    def metrics_addresses(self) -> dict[str, str]:
        """Worker name -> host:port of its metrics."""
        return {name: port.address for name, port in self._metrics.items()}

    @property
    def announced(self) -> RunningEngine:
        """What commands in other terminals need to know."""
        return RunningEngine(
            pid=os.getpid(),
            started_ms=time.time_ns() // 1_000_000,
            run_dir=str(self.run_dir.resolve()),
            repository=str(self.repository.resolve()),
            addresses=self.stack.addresses(),
            environment=self.environment,
            metrics=self.metrics_addresses,
        )

    def snapshot(self) -> Snapshot:
        """What all workers measure, merged."""
        return scrape(list(self.metrics_addresses.values()), time.time_ns() // 1_000_000)

    def stop(self) -> None:
        """Workers first, then the parts; no process is left behind."""
        self._announcement.withdraw()
        self.supervisor.stop_all()
        self.stack.stop()
        for port in self._metrics.values():
            port.release()

    @contextmanager
    def running(self, on_ready: OnReady = _nobody_asks) -> Iterator[Self]:
        """Started, its workers watched from a thread, and stopped at the end, whatever happens in between."""
        try:
            self.start(on_ready)
            with self.supervisor:
                yield self
        finally:
            self.stop()


def copy_repository(tracked: Path, copy: Path) -> None:
    """A run-time copy of the model repository: exports go there, never to the tracked folder."""
    if not copy.exists():
        shutil.copytree(tracked, copy, ignore=shutil.ignore_patterns("__pycache__"))
