"""Exec a command that the kernel kills when the process that asked for it dies: `leash.py PARENT_PID -- COMMAND...`.

It runs under SCHED_BATCH, which needs no rights: who is woken waits for the end of another's turn.

Run as a file under `python -I -S`, so it imports next to nothing. A wrapper and not Popen's preexec_fn, since that
may deadlock in a process with threads; SIGKILL and not SIGTERM, since it also ends a stopped (frozen) process.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Tie this process to PARENT_PID, let it take turns, become the command; returns only when that is impossible."""
    parent, dashes, *command = argv
    if dashes != "--" or not command:
        sys.stderr.write("usage: leash.py PARENT_PID -- COMMAND...\n")
        return 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.stderr.write(f"leash: prctl: {os.strerror(ctypes.get_errno())}\n")
        return 126
    if os.getppid() != int(parent):  # it died before the line above: nobody is left to send the signal
        return 125
    # parts and workers share this machine's cores: a turn that is interrupted by whoever is woken makes every hop of
    # an event wait (see docs/decisions.md); a sandbox that forbids the call only loses this
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"leash: {command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
