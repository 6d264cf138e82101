"""The child of `sandbox.py`: imports what it runs, locks itself up, then answers requests until its input ends."""

import importlib
import os
import pickle
import resource
import signal
import struct
import sys
from typing import IO

import numpy as np

from serving.errors import BadMedia
from serving.preprocess.sandbox import ARRAY, HEADER, LONGEST_REASON, NO_MEMORY, READY, REASON

_LENGTH = struct.Struct("<Q")


def main(argv: list[str]) -> int:
    """MEMORY, PROCESSOR_S and the modules of the functions.

    Each module warms up first: NumPy, Pillow and PyAV import some of themselves late, which needs files.
    """
    memory, processor_s, *modules = argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is ours
    for module in modules:
        importlib.import_module(module).warm_up()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    _lock_up(int(memory))
    _send(answers, READY, b"")
    while header := requests.read(_LENGTH.size):
        _limit_processor(int(processor_s))
        _send(answers, *_run(requests.read(*_LENGTH.unpack(header))))
    return 0


def _run(request: bytes) -> tuple[bytes, bytes]:
    """Kind and body of the answer."""
    try:
        function, arguments = pickle.loads(request)
        module, _, name = function.rpartition(".")
        return ARRAY, np.ascontiguousarray(getattr(sys.modules[module], name)(*arguments)).tobytes()
    except BadMedia as error:
        return REASON, error.reason.encode("utf-8", "replace")[:LONGEST_REASON]
    except MemoryError:
        return NO_MEMORY, b""


def _send(answers: IO[bytes], kind: bytes, body: bytes) -> None:
    answers.write(HEADER.pack(kind, len(body)))
    answers.write(body)
    answers.flush()


def _lock_up(memory: int) -> None:
    """From now on: no more memory than that, no file or socket opened or written, no dump, nothing said."""
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, sys.stdout.fileno())  # libraries print
    os.dup2(quiet, sys.stderr.fileno())
    os.close(quiet)
    with open("/proc/self/statm", "rb") as sizes:
        now = int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _limit_processor(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    total = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (total, resource.RLIM_INFINITY))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
