"""What a shop of any size needs, from what was measured. Its first term is the fan-out: sets published per event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from benchmarks.rows import Finding

#: share of a core or a process that is planned with: the rest is for peaks, recovery and rebalances
BUSY = 0.6
#: partitions a worker: one that dies leaves its own to several others
PARTITIONS_A_WORKER = 2
#: bytes of a changed row on `feature-changes`: hash, keys and the widest of the rows that change often
CHANGE_BYTES = 200
KB, MB, GB = 1e3, 1e6, 1e9


class NotMeasured(LookupError):
    """A figure that the model needs is not among the findings."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one core, process or row does on the machine that was measured; rates are a second."""

    ingested: float
    published: float
    scored: float
    written: float
    set_bytes: float
    row_bytes: float
    redis_bytes: float

    @classmethod
    def of(cls, findings: Mapping[str, Finding]) -> Measured:
        """From the suites' rows. Raises NotMeasured."""

        def value(suite: str, beginning: str) -> float:
            rows = findings[suite].rows if suite in findings else ()
            found = [row.value for row in rows if row.name.startswith(beginning)]
            if not found:
                raise NotMeasured(f"{suite}: {beginning}")
            return found[-1]

        return cls(
            ingested=value("ingest", "behaviour events, single records"),
            published=value("scale", "published sets, a second and core"),
            scored=max(row.value for row in findings["scoring"].rows if row.unit == "rows/s"),
            written=1_000 / value("store", "write 1,000 rows") * 1_000,
            set_bytes=value("scale", "memory of a live set") * KB,
            row_bytes=value("scale", "memory of a product that") * KB,
            redis_bytes=value("store", "memory of a product in Redis") * KB,
        )


@dataclass(frozen=True, slots=True)
class Shop:
    """`skew`: how many times more sets hold a product that changes than an average one; 1 = changes fall evenly."""

    products: float
    sets: float
    events_per_s: float
    skew: float = 1.0
    candidates: int = 100

    @property
    def fan_out(self) -> float:
        """Sets that an event's product is in, on average over events."""
        return self.skew * self.sets * self.candidates / self.products


@dataclass(frozen=True, slots=True)
class Need:
    """One thing to provide, and how it came about."""

    what: str
    amount: str
    because: str


def needs(shop: Shop, measured: Measured) -> tuple[Need, ...]:
    """Every event is taken to change a row and every touched set its order: an upper bound, before coalescing."""
    published = shop.events_per_s * shop.fan_out
    ranking = ceil(published / (measured.published * BUSY))
    product = ceil(shop.events_per_s / (measured.ingested * BUSY))
    triton = ceil(published / (measured.scored * BUSY))
    redis = ceil(shop.events_per_s / (measured.written * BUSY))
    held = min(shop.products, shop.sets * shop.candidates)
    # products that several sets of a worker hold are there once; at worst every worker has all that are held
    sets_gb = shop.sets * measured.set_bytes / GB
    rows_gb = min(held, shop.sets * shop.candidates / ranking) * measured.row_bytes / GB
    return (
        Need("sets published", f"{published:,.0f} a second", f"{shop.fan_out:,.3g} sets an event × events"),
        Need("ranking workers", f"{ranking:,}", f"published ÷ {measured.published:,.0f} a core, {BUSY:.0%} busy"),
        Need(
            "memory of each",
            f"{sets_gb / ranking + rows_gb:,.3g} GB",
            f"its sets × {measured.set_bytes / KB:.3g} KB + products they hold × {measured.row_bytes / KB:.3g} KB",
        ),
        Need("product workers", f"{product:,}", f"events ÷ {measured.ingested:,.0f} a process, {BUSY:.0%} busy"),
        Need(
            "partitions of the inputs",
            f"{max(product, ranking) * PARTITIONS_A_WORKER:,}",
            f"{PARTITIONS_A_WORKER} a worker of the larger role",
        ),
        Need("Triton instances", f"{triton:,}", f"rows ÷ {measured.scored:,.0f} an instance of one thread"),
        Need("Redis: cores that write", f"{redis:,}", f"rows ÷ {measured.written:,.0f} a second by one connection"),
        Need(
            "Redis: memory",
            f"{shop.products * measured.redis_bytes / GB:,.3g} GB",
            f"products × {measured.redis_bytes / KB:.3g} KB of all views",
        ),
        Need(
            "`feature-changes`, read by every ranking worker",
            f"{shop.events_per_s * CHANGE_BYTES / MB:,.3g} MB/s",
            f"events × {CHANGE_BYTES} bytes",
        ),
    )
