"""What every suite is given: where it runs, how long it may take, and children that are asked and tell in JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streams.local.apache_kafka import ApacheKafka
from streams.local.part import PartFailed, ProcessPart
from streams.local.process import Process
from streams.local.redis_server import RedisServer
from streams.local.tansu import TansuBroker
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PART_READY_S = 60.0
CHILD_READY_S = 120.0
POLL_S = 0.02

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`kafka_home` None means the embedded broker; `quick` runs everything once, on little."""

    folder: Path
    kafka_home: Path | None
    quick: bool
    say: Say

    @property
    def is_apache(self) -> bool:
        return self.kafka_home is not None

    @property
    def repeats(self) -> int:
        """How many interleaved runs."""
        return 1 if self.quick else 3

    def broker(self, folder: Path) -> TansuBroker | ApacheKafka:
        """The broker of this run, not started."""
        return ApacheKafka(folder, self.kafka_home) if self.kafka_home else TansuBroker(folder)

    @contextmanager
    def broker_and_redis(self, name: str) -> Iterator[Parts]:
        """Both, ready, in a folder of their own."""
        folder = self.folder / name
        broker, redis = self.broker(folder), RedisServer(folder)
        with running(broker), running(redis):
            yield Parts(folder, broker, redis)


@dataclass(frozen=True, slots=True)
class Parts:
    """A broker and a Redis that run."""

    folder: Path
    broker: TansuBroker | ApacheKafka
    redis: RedisServer

    @property
    def redis_url(self) -> str:
        return f"redis://{self.redis.address}/0"

    @property
    def environment(self) -> dict[str, str]:
        """The FRESHRANK_ variables of workers and children; heartbeats come from the benchmark, if at all."""
        return {
            "FRESHRANK_KAFKA": self.broker.address,
            "FRESHRANK_KAFKA_KIND": self.broker.kind,
            "FRESHRANK_REDIS": self.redis_url,
            "FRESHRANK_HEARTBEATS": "external",
            "FRESHRANK_MEDIA": f"file://{(self.folder / 'media').resolve()}",
        }

    @property
    def settings(self) -> Settings:
        """The same for this process."""
        return Settings.model_validate(
            {name.removeprefix("FRESHRANK_").lower(): value for name, value in self.environment.items()}
        )


@contextmanager
def running(part: ProcessPart, timeout_s: float = PART_READY_S) -> Iterator[None]:
    """A part, ready; stopped at the end."""
    try:
        part.start()
        part.ready(timeout_s)
        yield
    finally:
        part.stop()


class Child:
    """A module of this package in a process of its own; it tells by lines of JSON on its standard output."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Mapping[str, object],
        folder: Path,
        environment: Mapping[str, str],
        packages: Path | None = None,
    ) -> None:
        """`packages` come before this environment's own; `arguments` reach the child's `arguments()`."""
        self.name = name
        path = os.pathsep.join(str(place) for place in (packages, ROOT) if place is not None)
        argv = [sys.executable, "-m", module, json.dumps(arguments)]
        self.process = Process(argv, folder / f"{name}.log", {**environment, "PYTHONPATH": path})

    def start(self) -> None:
        """Run it; its log begins anew."""
        self.process.log.unlink(missing_ok=True)
        self.process.start()

    def told(self, key: str) -> Any:
        """The value of the last line that has the key; None while there is none."""
        if not self.process.log.exists():
            return None
        found = None
        for line in self.process.log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                found = json.loads(line).get(key, found)
        return found

    def wait_for(self, key: str, timeout_s: float = CHILD_READY_S) -> Any:
        """The value that it tells by the key. Raises PartFailed when it ends before, or takes too long."""
        deadline = time.monotonic() + timeout_s
        while (found := self.told(key)) is None:
            ended = not self.process.alive()
            if ended and (found := self.told(key)) is not None:
                break
            if ended or time.monotonic() > deadline:
                why = "ended" if ended else f"did not tell {key} within {timeout_s:g} s"
                raise PartFailed(f"{self.name} {why}; the end of {self.process.log}:\n{self.process.tail()}")
            time.sleep(POLL_S)
        return found

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.stop(2.0)
