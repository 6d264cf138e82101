"""The suites by name, each imported when it runs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence

from benchmarks.rows import Finding
from benchmarks.surroundings import Surroundings

#: name -> what it measures
SUITES = {
    "latency": "price event produced → ranking received",
    "ingest": "records a second through one worker",
    "store": "rows written and read",
    "scoring": "rows through Triton",
    "scale": "cost and memory as sets and products grow; workers, starts and kills",
}


def run(names: Sequence[str], around: Surroundings) -> Iterator[Finding]:
    """The suites, one after the other, each in turns with what it starts (see `streams.local.leash`). Raises
    PartFailed."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    for name in names:
        finding: Finding = importlib.import_module(f"benchmarks.{name}").run(around)
        yield finding
