"""What `up` and `demo` share: an engine on this machine, shown while it starts, stopped however the command ends."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from streams.local.engine import LocalEngine

Command = Callable[..., Any]


class Terminated(SystemExit):
    """SIGTERM: an orderly end, as with Ctrl-C."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


#: what ends a command that runs until it is told to stop
STOPPED = (KeyboardInterrupt, Terminated)


def engine_options(command: Command) -> Command:
    """--kafka-home and --dir."""
    folder = click.Path(file_okay=False, path_type=Path)
    kafka = click.Path(exists=True, file_okay=False, path_type=Path)
    for option in (
        click.option("--dir", "folder", type=folder, help="Folder for logs and data.  [default: .freshrank/run-PID]"),
        click.option("--kafka-home", type=kafka, envvar="KAFKA_HOME", show_envvar=True,
                     help="An Apache Kafka (4.0 or newer, with Java 17) to run in Tansu's place."),
    ):  # fmt: skip
        command = option(command)
    return command


def run_dir(folder: Path | None) -> Path:
    """The chosen folder, else a new one below the current folder, where commands in other terminals look."""
    from streams.local.stack import new_run_dir

    if folder is None:
        return new_run_dir(Path(), os.getpid())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def started(engine: "LocalEngine", console: "Console") -> Iterator[float]:
    """A running engine whose workers read; gives the seconds that took. SIGTERM within raises `Terminated`."""
    from streams.local.part import Part
    from streams.show import starting

    began = time.monotonic()
    names = [part.name for part in engine.stack.parts]
    with _terminable(), starting(console, [*reversed(names), "workers"]) as tell:

        def tell_part(part: Part, seconds: float) -> None:
            tell(part.name, part.address, seconds)

        with engine.running(tell_part):
            engine.wait_until_consuming()
            tell("workers", ", ".join(engine.metrics_addresses), time.monotonic() - began)
            yield time.monotonic() - began


@contextmanager
def _terminable() -> Iterator[None]:
    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
