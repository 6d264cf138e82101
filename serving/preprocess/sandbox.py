"""A child process in which strangers' bytes are decoded: when they crash the decoder, nobody else dies.

    parent                                         child (`sandbox_child.py`)
    call ── function and arguments, pickled ──►    runs it under limits of memory and processor time,
         ◄── the array's bytes, or a reason ──     unable to open a file, a socket or an address

The parent believes nothing that the child says: an answer is a reason, cut short, or bytes of the expected length. A
child that dies, or runs out of memory, is judged once more by a fresh one, so that neither a kill from outside nor what
an earlier medium left behind condemns a good one.
"""

import atexit
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import BadMedia

#: what an answer begins with: its kind, and the length of what follows
HEADER = struct.Struct("<cQ")
ARRAY, REASON, NO_MEMORY, READY = b"A", b"B", b"M", b"R"

#: between the end of what a child says and its own end, seconds
_LAST_BREATH_S = 1.0
#: bytes of a reason
LONGEST_REASON = 1000
_MODULES = ("serving.preprocess.frames", "serving.preprocess.sound")


class _Died(Exception):
    """The child ended before it answered."""


@dataclass(slots=True)
class Sandbox:
    """One child, started when first needed. Threads take turns; a fork of this process gets a child of its own."""

    #: modules of the functions that it runs: they are imported before the child locks itself up
    modules: Sequence[str] = _MODULES
    #: memory that one call may take, bytes
    memory: int = 1 << 30
    #: processor time that one call may take, seconds; work is bounded by the functions themselves, this is for defects
    processor_s: int = 60
    #: time that one call may take, seconds: the last resort against a child that hangs without working
    patience_s: float = 300.0

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _child: subprocess.Popen[bytes] | None = None

    def call(
        self,
        function: str,
        *arguments: object,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> NDArray[Any]:
        """What `function`, a dotted name in one of `modules`, gives. Raises BadMedia: its own, or of a child's end."""
        request = pickle.dumps((function, arguments))
        size = dtype.itemsize * int(np.prod(shape))
        with self._lock:
            for _ in range(2):
                try:
                    kind, body = self._ask(request, size)
                except _Died as death:
                    failure = str(death)
                    continue
                if kind == ARRAY:
                    return np.frombuffer(bytearray(body), dtype).reshape(shape)
                if kind == REASON:
                    raise BadMedia(body.decode("utf-8", "replace"))
                self._stop()
                failure = f"takes more than {self.memory} bytes of memory"
        raise BadMedia(f"decoding it {failure}")

    def close(self) -> None:
        """End the child; the next call starts another."""
        with self._lock:
            self._stop()

    def _ask(self, request: bytes, size: int) -> tuple[bytes, bytes]:
        """One answer to one request. Raises _Died, or BadMedia when the time is over."""
        child = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        late = threading.Event()
        watchdog = threading.Timer(self.patience_s, _kill, (child, late))
        watchdog.start()
        try:
            child.stdin.write(struct.pack("<Q", len(request)))
            child.stdin.write(request)
            child.stdin.flush()
            return _answer(child.stdout, size)
        except (_Died, BrokenPipeError):
            status = self._ended()
            if late.is_set():
                raise BadMedia(f"decoding it takes more than {self.patience_s} s") from None
            if status == -signal.SIGXCPU:
                raise BadMedia(f"decoding it takes more than {self.processor_s} s of processor time") from None
            raise _Died(f"ends the decoder ({_name(status)})") from None
        except BaseException:
            self._stop()  # the answer is still to come, and would be taken for that of the next request
            raise
        finally:
            watchdog.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = _start(self.modules, self.memory, self.processor_s)
        return self._child

    def _ended(self) -> int:
        """How the child ended, which has closed its side; what it is still up to is not waited for."""
        assert self._child is not None
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_LAST_BREATH_S)
        child = self._child
        self._stop()
        return child.returncode

    def _stop(self) -> None:
        """Kill the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _forget(self) -> None:
        """After a fork: the child belongs to the parent."""
        self._lock = threading.Lock()
        self._child = None


def _start(modules: Sequence[str], memory: int, processor_s: int) -> subprocess.Popen[bytes]:
    """A child that is ready. It gets none of this process's environment: there may be secrets in it."""
    environment = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    libraries = os.environ.get("LD_LIBRARY_PATH")
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "serving.preprocess.sandbox_child", str(memory), str(processor_s), *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment if libraries is None else environment | {"LD_LIBRARY_PATH": libraries},
    )
    assert child.stdout is not None
    try:
        kind, _ = _answer(child.stdout, 0)
    except _Died:
        with child:
            raise RuntimeError(f"the process that decodes media does not start: {_name(child.wait())}") from None
    assert kind == READY
    return child


def _answer(pipe: IO[bytes], size: int) -> tuple[bytes, bytes]:
    """Kind and body of the next answer; an array's body has the size. Raises _Died when it ends early, or lies."""
    header = pipe.read(HEADER.size)
    if len(header) < HEADER.size:
        raise _Died
    kind, length = HEADER.unpack(header)
    if kind not in (ARRAY, REASON, NO_MEMORY, READY) or (length != size if kind == ARRAY else length > LONGEST_REASON):
        raise _Died
    body = pipe.read(length)
    if len(body) < length:
        raise _Died
    return kind, body


def _kill(child: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    child.kill()


def _name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


#: the sandbox of this process
SANDBOX = Sandbox()
atexit.register(SANDBOX.close)
os.register_at_fork(after_in_child=SANDBOX._forget)
