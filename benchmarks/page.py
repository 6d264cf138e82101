"""docs/performance.md, written by `freshrank bench --write-docs`: every number in it was measured by that run."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from benchmarks.capacity import Measured, Shop, needs
from benchmarks.rows import Finding, markdown, short
from benchmarks.scale import Profile
from benchmarks.suites import SUITES
from benchmarks.surroundings import Surroundings

SHOP = Shop(products=100e6, sets=1e6, events_per_s=100e3)
SKEWS = (1.0, 10.0, 40.0)

HEAD = """# Performance

Written by `freshrank bench --write-docs docs/performance.md`; no number here was typed in.

{where}{rest}

*Ours*, *floor* and *peer* are medians over the runs; × floor and × peer are medians of the ratios of each run, in which
all sides take turns on the same machine and data, with their least and greatest in brackets. Spread is that of ours.
Times: smaller is better, and so are their ratios. Rates: the other way round.
"""

PROFILE = """## What dominates

The ranking side on the whole path but the model, by the functions' own CPU time ({calls} functions of a profile, which
itself slows Python down):
"""

CAPACITY = """## What a shop needs

The first term is the **fan-out**: how many sets must be published for an event. It is skew × sets × candidates ÷
products, where skew says how much more often the products that change lie in sets than products do on average. Every
event is taken to change a row and every set that holds it its order: an upper bound. Coalescing lowers it where events
come faster than rankings can be published.

For {products:,.0f} million products, {sets:,.0f} million live sets of {candidates} and {events:,.0f} events a second,
by the figures above:
"""

LIMITS = """## Where it stops

* **Fan-out.** Sets published per second and core are what a ranking worker can do. More workers share the sets, never
  one set; a product that is in all sets costs all of them, once per round: then coalescing makes rankings coarser.
* **The broadcast.** Every ranking worker reads all of `feature-changes`. What it does not hold costs a hash test, but
  the bytes arrive at each of them: some hundred workers times the change rate is the network's limit. Beyond it sets
  would have to subscribe to products.
* **One Redis.** Rows, agenda and marker of a partition are written by one script, and a Redis runs one script at a
  time. More than one Redis needs rows in hash-tagged buckets with a marker per partition and bucket.
* **Recovery.** A worker that takes partitions over reads their tables and scores every set whole: its time is the rows
  of these sets over Triton's rate.

None of the last three is built.
"""


def page(findings: Mapping[str, Finding], profile: Profile, around: Surroundings, earlier: Collection[str] = ()) -> str:
    """The whole page; `earlier` are suites that another run on this machine measured. Raises NotMeasured without all
    suites."""
    measured = Measured.of(findings)
    rest = f" Earlier than the rest: {', '.join(earlier)}." if earlier else ""
    parts = [HEAD.format(where=where(around), rest=rest)]
    parts += [f"## {name.capitalize()}: {about}\n\n{markdown(findings[name])}\n" for name, about in SUITES.items()]
    parts += [PROFILE.format(calls=len(profile)), _profile_table(profile)]
    told = {"products": SHOP.products / 1e6, "sets": SHOP.sets / 1e6, "candidates": SHOP.candidates}
    parts += [CAPACITY.format(**told, events=SHOP.events_per_s), _needs_table(measured), LIMITS]
    return "\n".join(parts)


def where(around: Surroundings) -> str:
    """The machine, the broker, and how thorough the run was."""
    broker = "Apache Kafka" if around.is_apache else "Tansu, the embedded broker"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    runs = (
        "a quick run on little data: good for nothing but its shape"
        if around.quick
        else f"{around.repeats} interleaved runs"
    )
    return (
        f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GB, Python {platform.python_version()}; {broker}, "
        f"Redis and Triton on the same machine; {runs}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _profile_table(profile: Profile) -> str:
    total = sum(seconds for _, seconds, _ in profile)
    rows = ((f"`{name}`", f"{seconds / total:.0%}", f"{calls:,}") for name, seconds, calls in profile)
    return _table(("function", "share of these", "calls"), rows)


def _needs_table(measured: Measured) -> str:
    shops = [Shop(SHOP.products, SHOP.sets, SHOP.events_per_s, skew) for skew in SKEWS]
    columns = [needs(shop, measured) for shop in shops]
    heads = ("", *(f"skew {short(skew)}" for skew in SKEWS), "from, at skew 1")
    return _table(
        heads, ((row[0].what, *(need.amount for need in row), row[0].because) for row in zip(*columns, strict=True))
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---", *["---:"] * (len(heads) - 2), "---"], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
