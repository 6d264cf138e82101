"""Which engines run on this machine: each leaves a file in its folder, so that commands in other terminals find it.

The file is locked while its engine lives, and a lock dies with its process, however it ends: a file without one is what
a killed engine left.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

#: where commands look for engines: below the current folder
ROOT = ".freshrank"
NAME = "engine.json"


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """`addresses` of the parts by name, `environment` of its clients, `metrics` worker -> host:port; `repository` holds
    the models that its Triton serves."""

    pid: int
    started_ms: int
    run_dir: str
    repository: str
    addresses: Mapping[str, str]
    environment: Mapping[str, str]
    metrics: Mapping[str, str]


class Announcement:
    """The file of one engine; `withdraw` or the end of the process takes it back."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / NAME
        self._file: IO[str] | None = None

    def publish(self, engine: RunningEngine) -> None:
        """Write the file (again), in one step."""
        fresh = self._path.with_suffix(f".{os.getpid()}")
        file = fresh.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(asdict(engine), file, indent=2)
        file.flush()
        fresh.replace(self._path)
        self._let_go()
        self._file = file

    def withdraw(self) -> None:
        """Remove the file; does nothing when it was not published."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def newest_engine(folder: Path, kafka: str | None = None) -> RunningEngine | None:
    """The engine that was started last, of those that run below `FOLDER/.freshrank` (with that broker); None when none
    does."""
    found = (_read(path) for path in folder.glob(f"{ROOT}/*/{NAME}"))
    running = [engine for engine in found if engine is not None and kafka in (None, engine.addresses["kafka"])]
    return max(running, key=lambda engine: engine.started_ms, default=None)


def _read(path: Path) -> RunningEngine | None:
    try:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return RunningEngine(**json.load(file))
    except FileNotFoundError:  # it ended at this moment
        pass
    return None
