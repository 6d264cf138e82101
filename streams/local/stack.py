"""All local parts together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from streams.local.apache_kafka import ApacheKafka
from streams.local.part import Part
from streams.local.redis_server import RedisServer
from streams.local.tansu import TansuBroker
from streams.local.triton_server import TritonServer

READY_TIMEOUT_S = 120.0  # Triton imports torch once a model, which takes long on a busy machine with cold files


class LocalStack:
    """Broker, Redis and Triton of one run, in one folder: Apache Kafka when kafka_home is given, else Tansu."""

    def __init__(self, run_dir: Path, kafka_home: Path | None, repository: Path, models: Sequence[str]) -> None:
        self.run_dir = run_dir
        self.broker: TansuBroker | ApacheKafka = (
            ApacheKafka(run_dir, kafka_home) if kafka_home else TansuBroker(run_dir)
        )
        self.redis = RedisServer(run_dir)
        self.triton = TritonServer(repository, models, run_dir)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The slowest to come up first."""
        return (self.triton, self.broker, self.redis)

    def start(
        self, timeout_s: float = READY_TIMEOUT_S, on_ready: Callable[[Part, float], None] = lambda part, seconds: None
    ) -> None:
        """Start all parts at once and wait until each answers; `on_ready` is told which did, and after how long.

        Raises PartFailed, and then none is left running.
        """
        began = time.monotonic()
        deadline = began + timeout_s
        with ExitStack() as undo:
            undo.callback(self.stop)
            for part in self.parts:
                part.start()
            for part in reversed(self.parts):
                part.ready(max(deadline - time.monotonic(), 0.0))
                on_ready(part, time.monotonic() - began)
            undo.pop_all()

    def addresses(self) -> dict[str, str]:
        """Name → `host:port` (Triton's is gRPC; its metrics a URL)."""
        return {
            "kafka": self.broker.address,
            "redis": self.redis.address,
            "triton": self.triton.address,
            "triton-http": self.triton.http_address,
            "triton-metrics": self.triton.metrics_url,
        }

    def environment(self) -> dict[str, str]:
        """The same as the FRESHRANK_ variables that workers and clients are configured by."""
        return {
            "FRESHRANK_KAFKA": self.broker.address,
            "FRESHRANK_KAFKA_KIND": self.broker.kind,
            "FRESHRANK_REDIS": f"redis://{self.redis.address}/0",
            "FRESHRANK_TRITON": self.triton.address,
            "FRESHRANK_TRITON_SHARED_MEMORY": "true",
        }

    def stop(self) -> None:
        """Stop every part, also when stopping one fails."""
        with ExitStack() as stops:
            for part in self.parts:
                stops.callback(part.stop)

    def __enter__(self) -> LocalStack:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def new_run_dir(root: Path, pid: int) -> Path:
    """`ROOT/.freshrank/run-PID`, made now."""
    folder = root / ".freshrank" / f"run-{pid}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
