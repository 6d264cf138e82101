"""Free TCP ports on loopback, held for as long as a part may want them."""

from __future__ import annotations

import errno
import socket
from types import TracebackType

LOOPBACK = "127.0.0.1"


class PortTaken(OSError):
    """Somebody else listens on the wanted port."""


class HeldPort:
    """A loopback port that no other process is given while it is held, though the part it is for may listen on it.

    Held = bound with SO_REUSEADDR but not listening: Linux then lets a server that sets SO_REUSEADDR too (all of ours
    do) bind and listen, while "any free port" and outgoing connections avoid the number. So a killed part finds its
    port again. `number` 0 asks for any free one. Raises PortTaken.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self._socket: socket.socket | None = None

    def hold(self) -> int:
        """Take the port (again) and return its number; does nothing when it is held already."""
        if self._socket is None:
            holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind((LOOPBACK, self.number))
            except OSError as error:
                holder.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                raise PortTaken(error.errno, f"port {self.number} on {LOOPBACK} is used by another process") from None
            self._socket = holder
            self.number = holder.getsockname()[1]
        return self.number

    def release(self) -> None:
        """Let the port go; the number stays, for the next hold()."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def address(self) -> str:
        """`host:port`; an error before the first hold() of a port that was not chosen by the caller."""
        if not self.number:
            raise RuntimeError("the port has not been chosen yet: call hold() first")
        return f"{LOOPBACK}:{self.number}"

    def __enter__(self) -> HeldPort:
        self.hold()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
