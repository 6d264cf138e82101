"""What is measured: the names of the metrics, and times as histograms. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal, get_args

#: event -> row readable in the store; event -> row acknowledged on `feature-changes`; event -> ranking acknowledged
Stage = Literal["row", "change", "ranking"]
STAGES: tuple[Stage, ...] = get_args(Stage)

# fmt: off
#: upper bounds (ms) of the buckets; the SLOs of the views are among them, so that shares within an SLO are exact
BOUNDS_MS = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750,
    1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 300_000,
)
# fmt: on
#: buckets as Prometheus names them, in seconds
BOUNDS = (*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf")


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric: its name, its labels, what it says. Counters end in `_total`, times are in seconds."""

    name: str
    labels: tuple[str, ...]
    about: str


_PARTITION = ("topic", "partition")
LATENCY = Spec(
    "freshrank_freshness_seconds", ("stage", "view", "partition"), "from an event's Kafka timestamp to the stage"
)
RERANK = Spec(
    "freshrank_rerank_seconds", ("view",), "from a changed row's coming to a worker to its rankings' going to Kafka"
)
#: what is measured as times, not as values
HISTOGRAMS = (LATENCY, RERANK)
MARKER = Spec("freshrank_marker_offset", _PARTITION, "offset below which everything is in the store")
LAG = Spec("freshrank_lag_messages", _PARTITION, "messages of the log that are not below the marker yet")
READ_TIME = Spec("freshrank_read_time_seconds", _PARTITION, "Kafka timestamp of the newest message that was read")
HEARTBEAT = Spec(
    "freshrank_heartbeat_time_seconds", ("partition",), "event time of the newest heartbeat: the log's clock"
)
AGE = Spec(
    "freshrank_feature_age_seconds",
    ("view", "edge"),
    "age by the log's clock of the rows of the newest ranking: youngest, oldest",
)
RECORDS_IN = Spec("freshrank_records_total", ("topic",), "records that came in, good and bad")
REJECTED = Spec("freshrank_rejected_total", ("topic", "reason"), "records, or whole messages, that went to dead-letter")
UNKNOWN_FIELDS = Spec("freshrank_unknown_fields_total", ("topic",), "fields ignored because nobody knows them")
ROWS_WRITTEN = Spec("freshrank_rows_written_total", ("view",), "rows written to the store")
ROWS_EMITTED = Spec("freshrank_rows_emitted_total", ("view",), "rows acknowledged on feature-changes")
CONFLICTS = Spec("freshrank_conflicts_total", ("view",), "rows that another writer had changed: read and applied again")
REWINDS = Spec("freshrank_rewinds_total", (), "times that the cache was dropped and reading resumed from the markers")
RANKINGS_OUT = Spec("freshrank_rankings_total", (), "rankings acknowledged on rankings")
DEGRADED = Spec("freshrank_degraded_total", (), "those of the rankings that were made without the model")
ROWS_SCORED = Spec("freshrank_rows_scored_total", (), "rows that the ranker scored")
ROWS_RESCORE = Spec(
    "freshrank_rows_full_rescore_total", (), "rows it would have scored, had each touched set been scored whole"
)
REPAIRS = Spec(
    "freshrank_repairs_total", ("view",), "values that differed from the store for more than a minute: must stay 0"
)
METRICS = (
    *HISTOGRAMS,
    MARKER,
    LAG,
    READ_TIME,
    HEARTBEAT,
    AGE,
    RECORDS_IN,
    REJECTED,
    UNKNOWN_FIELDS,
    ROWS_WRITTEN,
    ROWS_EMITTED,
    CONFLICTS,
    REWINDS,
    RANKINGS_OUT,
    DEGRADED,
    ROWS_SCORED,
    ROWS_RESCORE,
    REPAIRS,
)  # fmt: skip
OF_PARTITIONS = (MARKER, LAG, READ_TIME, HEARTBEAT)

Labels = tuple[str, ...]


@dataclass(slots=True)
class Histogram:
    """Counts by bucket of `BOUNDS_MS`, the last one for what is beyond, and the sum of all values (ms)."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))
    sum_ms: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, value_ms: float, times: int = 1) -> None:
        """Clocks that differ make an event look as if it came from the future: it counts as 0."""
        value_ms = max(0.0, value_ms)
        self.counts[bisect_left(BOUNDS_MS, value_ms)] += times
        self.sum_ms += times * value_ms

    def add(self, other: Histogram, sign: int = 1) -> None:
        """Merge another one into this, or with -1 take it out."""
        self.counts = [mine + sign * theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum_ms += sign * other.sum_ms

    def quantile(self, q: float) -> float | None:
        """The value (ms) below which a share q lies, by straight lines within buckets; None without any value.

        Beyond the last bound nothing is known but that: the last bound is the answer.
        """
        rank = q * self.count
        if not self.count:
            return None
        below = 0
        for bucket, count in enumerate(self.counts[:-1]):
            if count and below + count >= rank:
                lower = BOUNDS_MS[bucket - 1] if bucket else 0
                return lower + (BOUNDS_MS[bucket] - lower) * (rank - below) / count
            below += count
        return float(BOUNDS_MS[-1])

    def share_within(self, bound_ms: int) -> float | None:
        """The share of values at or below one of `BOUNDS_MS`; None without any value."""
        return sum(self.counts[: BOUNDS_MS.index(bound_ms) + 1]) / self.count if self.count else None
