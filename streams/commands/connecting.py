"""Which engine a command talks to: that of the environment, else the one running in the current folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from streams.local.running import RunningEngine, newest_engine

if TYPE_CHECKING:
    from streams.client import Connection
    from streams.settings import Settings


def local_engine() -> RunningEngine | None:
    """The newest engine that runs below `.freshrank/`; with FRESHRANK_KAFKA set, the one that this names."""
    return newest_engine(Path(), kafka=os.environ.get("FRESHRANK_KAFKA"))


def settings() -> "Settings":
    """Those of the environment; with a local engine its addresses in place of what the environment leaves open."""
    from streams.settings import Settings

    engine = local_engine()
    if engine is None:
        return Settings()
    given = {name: value for name, value in engine.environment.items() if name not in os.environ}
    return Settings(**{name.removeprefix("FRESHRANK_").lower(): value for name, value in given.items()})  # type: ignore[arg-type]


def connection() -> "Connection":
    """To the Kafka of `settings`."""
    from streams.client import Connection

    return Connection.from_settings(settings())
