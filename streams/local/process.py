"""A process that dies with its parent, in a process group of its own, writing to a log file."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
TAIL_LINES = 15


class Process:
    """A command under the leash; may be started again after it ended. Nothing runs before start()."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = tuple(argv)
        self.log = log
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Spawn the command; its output is appended to the log. RuntimeError when it is running already."""
        if self.alive():
            raise RuntimeError(f"{self.argv[0]} is running already, as process {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = _in_spawner_thread(self._spawn)

    def _spawn(self) -> subprocess.Popen[bytes]:
        leashed = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), "--", *self.argv]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            return subprocess.Popen(
                leashed,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # a Ctrl-C is for the parent, and a group can be killed as a whole. No session of its own: Linux
                # shares the processor out by sessions first, and the busiest part would wait for all others
                process_group=0,
            )

    @property
    def pid(self) -> int | None:
        """Process id of the last start, None before the first one; also the id of its process group."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the signal's number if one ended it; None while it runs or before the first start.

        A command that has ended leaves nothing behind: the rest of its process group is killed before it is reaped.
        """
        if self._process is None:
            return None
        if self.has_ended():
            self._signal(signal.SIGKILL)
        return self._process.poll()

    def alive(self) -> bool:
        """True from start() until the command has ended; a frozen one is alive."""
        return self._process is not None and self.returncode is None

    def has_ended(self) -> bool:
        """not alive(), but without reaping, so that kill() still reaches what is left of the process group."""
        if self._process is None or self._process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # another thread has reaped it meanwhile
            return True

    def terminate(self) -> None:
        """SIGTERM to the command, which is thawed if it was frozen; does nothing when it does not run."""
        if self._process is not None and self.alive():
            self._process.terminate()
            self._signal(signal.SIGCONT)

    def stop(self, grace_s: float) -> None:
        """terminate(), then kill() after grace_s; returns once the command has ended."""
        if self.alive():
            self.terminate()
            wait_until(self.has_ended, grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group; returns once the command has ended."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def freeze(self, *, group: bool = True) -> None:
        """SIGSTOP to the whole process group, or to the command alone; returns once every thread of the command stands.

        RuntimeError when it does not run.
        """
        self._require_alive()
        self._signal(signal.SIGSTOP, group=group)
        assert self._process is not None
        # on a busy machine its threads go on answering until the one that takes the signal gets its turn
        with suppress(ChildProcessError):  # it has ended instead, and another thread has reaped it
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """SIGCONT to the whole process group. RuntimeError when it does not run."""
        self._require_alive()
        self._signal(signal.SIGCONT)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines that the command has logged since its last start."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, self.log.stat().st_size - 64 * 1024))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _require_alive(self) -> None:
        if not self.alive():
            raise RuntimeError(f"{self.argv[0]} is not running")

    def _signal(self, number: signal.Signals, *, group: bool = True) -> None:
        """To the group, children of the command included; nothing once it was reaped, when its id may be another's."""
        assert self._process is not None
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # another thread has reaped it meanwhile
                (os.killpg if group else os.kill)(self._process.pid, number)


def describe_exit(returncode: int) -> str:
    """`exit code 3` or `SIGKILL`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    return signal.Signals(-returncode).name


def wait_until(done: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Ask `done` until it says yes or timeout_s has passed; returns its last answer."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True


# The kernel's "parent died" is the death of the *thread* that made the child. Callers may start parts from threads
# that end (an executor's, a test's), so one thread that lives as long as the process makes all children.


def _in_spawner_thread(spawn: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    future: Future[subprocess.Popen[bytes]] = Future()
    _spawner(os.getpid()).put((spawn, future))
    return future.result()


_Job = tuple[Callable[[], "subprocess.Popen[bytes]"], "Future[subprocess.Popen[bytes]]"]


@cache
def _spawner(pid: int) -> queue.SimpleQueue[_Job]:
    """The queue of this process's spawner thread; by pid, since a forked child has no thread of its parent's."""
    jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
    threading.Thread(target=_spawn_for_ever, args=(jobs,), name=f"spawner-{pid}", daemon=True).start()
    return jobs


def _spawn_for_ever(jobs: queue.SimpleQueue[_Job]) -> None:
    while True:
        spawn, future = jobs.get()
        try:
            future.set_result(spawn())
        except BaseException as error:
            future.set_exception(error)
