"""What every local part can do: start, ready, stop, and be shot at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from streams.local.ports import HeldPort, PortTaken
from streams.local.process import Process, describe_exit, wait_until


class PartFailed(RuntimeError):
    """A part cannot be started or does not come up; says which and why, with the tail of its log if it has one."""


class Part(Protocol):
    """One outside system, run on this machine. Its constructor does nothing; its address stays for its whole life."""

    name: str
    log: Path

    @property
    def address(self) -> str:
        """`host:port` that clients connect to; known after the first start()."""

    def start(self) -> None:
        """Spawn it and return at once. Raises PartFailed when something that it needs is missing."""

    def ready(self, timeout_s: float) -> None:
        """Wait until it answers a request of its own protocol. Raises PartFailed."""

    def stop(self) -> None:
        """End it in order; does nothing when it does not run."""

    def kill(self) -> None:
        """End it with SIGKILL; start() brings it back on the same address."""

    def freeze(self) -> None:
        """SIGSTOP: it is there, holds its connections, and answers nothing."""

    def thaw(self) -> None:
        """SIGCONT."""

    def alive(self) -> bool:
        """Whether its process runs."""


@dataclass(frozen=True)
class Command:
    """What to execute, and the variables to set beside the inherited ones."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


class ProcessPart(ABC):
    """The common half of all parts: one leashed process, its log, its held ports. The rest is two questions."""

    name: str
    grace_s = 5.0  # from SIGTERM to SIGKILL

    def __init__(self, folder: Path, *ports: HeldPort) -> None:
        self.folder = folder
        self.log = folder / f"{self.name}.log"
        self._ports = ports
        self._process: Process | None = None

    @abstractmethod
    def _command(self) -> Command:
        """How to run it; the ports are held and the folder exists. Raises PartFailed."""

    @abstractmethod
    def _answers(self) -> bool:
        """Ask it once, in its own protocol, whether it serves; False also when it cannot be reached."""

    @property
    def address(self) -> str:
        """`host:port` that clients connect to; known after the first start()."""
        return self._ports[0].address

    @property
    def pid(self) -> int | None:
        """Its process id, None before the first start()."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Spawn it on its ports. Raises PartFailed when one of them or a file is missing."""
        if self.alive():
            raise PartFailed(f"{self.name} is running already")
        with ExitStack() as undo:
            undo.callback(self._release_ports)
            try:
                for port in self._ports:
                    port.hold()
            except PortTaken as error:
                raise PartFailed(f"{self.name}: {error.strerror}") from None
            self.folder.mkdir(parents=True, exist_ok=True)
            command = self._command()
            self._process = Process(command.argv, self.log, command.env)
            self._process.start()
            undo.pop_all()

    def ready(self, timeout_s: float) -> None:
        """Wait until it answers. Raises PartFailed with the tail of its log when it ends or takes too long."""
        process = self._process
        if process is None:
            raise PartFailed(f"{self.name} was not started")
        if wait_until(lambda: not process.alive() or self._answers(), timeout_s) and process.alive():
            return
        if process.returncode is not None:
            raise PartFailed(self._with_log(f"{self.name} ended with {describe_exit(process.returncode)}"))
        raise PartFailed(self._with_log(f"{self.name} does not answer on {self.address} after {timeout_s:g} s"))

    def stop(self) -> None:
        """End it in order, and let its ports go; does nothing when it does not run."""
        if self._process is not None:
            self._process.stop(self.grace_s)
        self._release_ports()

    def kill(self) -> None:
        """End it with SIGKILL; its ports stay held for the next start()."""
        self._running().kill()

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self._running().freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().thaw()

    def alive(self) -> bool:
        """Whether its process runs; a frozen one does."""
        return self._process is not None and self._process.alive()

    def _release_ports(self) -> None:
        for port in self._ports:
            port.release()

    def _running(self) -> Process:
        if self._process is None:
            raise PartFailed(f"{self.name} was not started")
        return self._process

    def _with_log(self, sentence: str) -> str:
        tail = self._process.tail() if self._process else ""
        quoted = "\n".join(f"  | {line}" for line in tail.splitlines()) or "  | (nothing)"
        return f"{sentence}; the end of {self.log}:\n{quoted}"
