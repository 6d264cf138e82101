"""Exec a command that the kernel kills when the process that asked for it dies: `leash.py PARENT_PID -- COMMAND...`.

Run as a file under `python -I -S`, so it imports next to nothing. A wrapper and not Popen's preexec_fn, since that
may deadlock in a process with threads; SIGKILL and not SIGTERM, since it also ends a stopped (frozen) process.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Tie this process to PARENT_PID and become the command; returns only when that is impossible."""
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
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"leash: {command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
