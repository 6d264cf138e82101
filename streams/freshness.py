"""How fresh things are: latencies as histograms, progress of partitions, counts; exposed, scraped and merged.

Two different times. *Latency* is wall time since the Kafka timestamp of an event: how late we are. *Age* is by the
log's clock (heartbeats): how old a feature is, which says nothing bad of a product that nobody buys.

The values live in plain objects here, not in prometheus_client's: those move into mapped files when another library of
the process (Feast's metrics) sets PROMETHEUS_MULTIPROCESS_DIR first, and cost microseconds each.
"""

from __future__ import annotations

import urllib.request
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from threading import Thread
from typing import Any, Literal, TypeVar, get_args
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from feature_repo.views import MINUTE_MS, VIEW_BY_NAME, VIEWS
from streams.validation import Decoded

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
_OF_PARTITIONS = (MARKER, LAG, READ_TIME, HEARTBEAT)

Labels = tuple[str, ...]
Key = TypeVar("Key")


# --- pure ----------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class RankingsSent:
    """Rankings that were sent together: how many by (view, Kafka timestamp in ms) of the event that caused them, and by
    (view, monotonic ms) of its row's coming; ages (youngest, oldest) in ms by view of the last one."""

    count: int
    degraded: int
    causes: Mapping[tuple[str, int], int]
    heard: Mapping[tuple[str, int], int]
    ages: Mapping[str, tuple[int, int]]


def is_late(lag: int, read_age_ms: float, slo_ms: int) -> bool:
    """Whether a partition is behind: there are messages to read, and the newest one read is older than the SLO.

    Age alone says nothing: a partition without lag has nothing newer to tell.
    """
    return lag > 0 and read_age_ms > slo_ms


PartitionState = Literal["current", "quiet", "late"]


def partition_state(lag: int, read_age_ms: float, slo_ms: int) -> PartitionState:
    """`quiet`: nothing to read, and nothing came for two minutes, heartbeats neither."""
    if is_late(lag, read_age_ms, slo_ms):
        return "late"
    return "quiet" if lag == 0 and read_age_ms > 2 * MINUTE_MS else "current"


# --- measure and expose --------------------------------------------------------------------------------------------


class Freshness(Collector):
    """What one process measures. Time is passed in; `serve` exposes it to Prometheus."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or CollectorRegistry()
        self._latency: defaultdict[Labels, Histogram] = defaultdict(Histogram)
        self._rerank: defaultdict[Labels, Histogram] = defaultdict(Histogram)
        self._values: dict[Spec, defaultdict[Labels, float]] = {
            spec: defaultdict(float, {} if spec.labels else {(): 0.0}) for spec in METRICS if spec not in HISTOGRAMS
        }
        self._server: tuple[WSGIServer, Thread] | None = None
        self._registry.register(self)

    def observe(self, stage: Stage, view: str, partition: int | None, latency_ms: float) -> None:
        """One event has reached a stage, so long after its Kafka timestamp."""
        self._latency[stage, view, "" if partition is None else str(partition)].observe(latency_ms)

    def on_change_sent(self, now_ms: Callable[[], int]) -> Callable[[str, int], None]:
        """To be called with (view, Kafka timestamp in ms) of each row that `feature-changes` has acknowledged."""

        def sent(view: str, kafka_time: int) -> None:
            self._values[ROWS_EMITTED][(view,)] += 1
            if kafka_time > 0:
                self.observe("change", view, None, now_ms() - kafka_time)

        return sent

    def on_rows_written(self, now_ms: Callable[[], int]) -> Callable[[str, int, Iterable[int]], None]:
        """To be called with (view, partition, Kafka timestamps in ms) of rows that the store now holds."""

        def written(view: str, partition: int, kafka_times: Iterable[int]) -> None:
            now, rows = now_ms(), Counter(kafka_times)
            histogram = self._latency["row", view, str(partition)]
            for kafka_time, count in rows.items():
                if kafka_time > 0:
                    histogram.observe(now - kafka_time, count)
            self._values[ROWS_WRITTEN][(view,)] += rows.total()

        return written

    def count_in(self, topic: str, decoded: Decoded) -> None:
        """Records of a message, good and bad."""
        self._values[RECORDS_IN][(topic,)] += decoded.count
        if decoded.unknown_fields:
            self._values[UNKNOWN_FIELDS][(topic,)] += decoded.unknown_fields
        for rejected in decoded.rejected:
            self._values[REJECTED][topic, rejected.reason] += 1

    def count_scored(self, rows: int, whole_rows: int) -> None:
        """Rows of a scoring call, and how many it would have been had every touched set been scored whole."""
        self._values[ROWS_SCORED][()] += rows
        self._values[ROWS_RESCORE][()] += whole_rows

    def count_rankings(self, sent: RankingsSent, now_ms: int) -> None:
        """Rankings that were acknowledged at `now_ms`."""
        self._values[RANKINGS_OUT][()] += sent.count
        self._values[DEGRADED][()] += sent.degraded
        for (view, kafka_time), count in sent.causes.items():
            self._latency["ranking", view, ""].observe(now_ms - kafka_time, count)
        ages = self._values[AGE]
        for view, (youngest, oldest) in sent.ages.items():
            ages[view, "youngest"], ages[view, "oldest"] = youngest / 1000, oldest / 1000

    def count_reranked(self, told: Iterable[RankingsSent], monotonic_ms: int) -> None:
        """Rankings that Kafka's client has taken by now."""
        for sent in told:
            for (view, heard), count in sent.heard.items():
                self._rerank[(view,)].observe(monotonic_ms - heard, count)

    def count_conflicts(self, view: str, rows: int) -> None:
        """Rows that another writer had changed."""
        self._values[CONFLICTS][(view,)] += rows

    def count_repairs(self, view: str, values: int) -> None:
        """Values of live sets that differed from the store for more than a minute."""
        self._values[REPAIRS][(view,)] += values

    def count_rewind(self) -> None:
        """The cache was dropped."""
        self._values[REWINDS][()] += 1

    def set_partition(self, topic: str, partition: int, *, marker: int, lag: int, read_ms: int) -> None:
        """Progress of an owned partition; `read_ms` is the Kafka timestamp of the newest message read."""
        labels = (topic, str(partition))
        self._values[MARKER][labels] = marker
        self._values[LAG][labels] = lag
        self._values[READ_TIME][labels] = read_ms / 1000

    def set_heartbeat(self, partition: int, event_time: int) -> None:
        """The newest heartbeat (ms) of a partition of `behavior`."""
        self._values[HEARTBEAT][(str(partition),)] = event_time / 1000

    def forget_partitions(self) -> None:
        """Partitions were taken away: another process tells of them now."""
        for spec in _OF_PARTITIONS:
            self._values[spec].clear()

    def serve(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Expose /metrics from a thread; the address. Port 0 takes a free one. OSError: it is taken."""
        try:
            self._server = start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:
            raise OSError(error.errno, f"metrics port {port}: {error.strerror}") from None
        return f"{host}:{self._server[0].server_port}"

    def close(self) -> None:
        """Stop exposing."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = None

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for, from its own thread: copies come first."""
        for spec, histograms in zip(HISTOGRAMS, (self._latency, self._rerank), strict=True):
            times = HistogramMetricFamily(spec.name, spec.about, labels=spec.labels)
            for labels, histogram in list(histograms.items()):
                cumulated = accumulate(list(histogram.counts))
                times.add_metric(labels, list(zip(_BOUNDS, cumulated, strict=True)), histogram.sum_ms / 1000)
            yield times
        for spec, values in self._values.items():
            family = CounterMetricFamily if spec.name.endswith("_total") else GaugeMetricFamily
            metric = family(spec.name, spec.about, labels=spec.labels)
            for labels, value in list(values.items()):
                metric.add_metric(labels, value)
            yield metric


#: buckets as Prometheus names them, in seconds
_BOUNDS = (*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf")


# --- read and merge ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FreshnessRow:
    """One view at one stage. Times in ms, None without any event; `within_slo` is the share within `slo_ms`."""

    view: str
    stage: str
    events: int
    p50_ms: float | None
    p99_ms: float | None
    slo_ms: int
    within_slo: float | None


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """Progress of one partition, told by its owner."""

    topic: str
    partition: int
    marker: int
    lag: int
    read_age_ms: float
    state: PartitionState


@dataclass(frozen=True)
class Snapshot:
    """What all workers measured up to `taken_ms`. `unreachable`: address -> why it could not be read."""

    taken_ms: int
    latency: Mapping[tuple[str, str], Histogram]
    counters: Mapping[str, Mapping[Labels, float]]
    gauges: Mapping[str, Mapping[Labels, float]]
    unreachable: Mapping[str, str]
    #: by view, from a changed row's coming to a worker to its rankings' going to Kafka
    rerank: Mapping[str, Histogram] = field(default_factory=dict)

    def rows(self) -> list[FreshnessRow]:
        """By view and stage, in the order of the data."""
        return [
            FreshnessRow(
                view,
                stage,
                histogram.count,
                histogram.quantile(0.5),
                histogram.quantile(0.99),
                VIEW_BY_NAME[view].slo_ms,
                histogram.share_within(VIEW_BY_NAME[view].slo_ms),
            )
            for view in VIEW_BY_NAME
            for stage in STAGES
            if (histogram := self.latency.get((stage, view))) is not None
        ]

    def partitions(self) -> list[PartitionRow]:
        """Every partition of the input topics that somebody owns."""
        rows = []
        for labels, lag in sorted(self.gauges.get(LAG.name, {}).items()):
            topic, partition = labels
            age = self.taken_ms - self.gauges[READ_TIME.name][labels] * 1000
            state = partition_state(int(lag), age, _SLO_OF_TOPIC.get(topic, MINUTE_MS))
            rows.append(
                PartitionRow(topic, int(partition), int(self.gauges[MARKER.name][labels]), int(lag), age, state)
            )
        return rows

    def total(self, spec: Spec, **labels: str) -> int:
        """A counter, summed over what `labels` leaves open."""
        wanted = [(spec.labels.index(name), value) for name, value in labels.items()]
        return int(
            sum(
                value
                for found, value in self.counters.get(spec.name, {}).items()
                if all(found[place] == expected for place, expected in wanted)
            )
        )

    def latency_of(self, stage: Stage) -> Histogram:
        """All views of a stage in one."""
        return _merged(histogram for (found, _), histogram in self.latency.items() if found == stage)

    def reranking(self) -> Histogram:
        """All views in one."""
        return _merged(self.rerank.values())

    def since(self, earlier: Snapshot) -> Snapshot:
        """What was measured after `earlier`; progress stays as it is now. Workers must not have restarted between."""
        counters = {
            name: {key: value - earlier.counters.get(name, {}).get(key, 0.0) for key, value in found.items()}
            for name, found in self.counters.items()
        }
        return replace(
            self,
            latency=_since(self.latency, earlier.latency),
            rerank=_since(self.rerank, earlier.rerank),
            counters=counters,
        )

    def to_json(self) -> dict[str, Any]:
        """For programs: rows, partitions, counters summed over their labels, rejections by reason."""
        rejected: defaultdict[str, int] = defaultdict(int)
        for (_, reason), value in self.counters.get(REJECTED.name, {}).items():
            rejected[reason] += int(value)
        reranking = self.reranking()
        return {
            "taken_ms": self.taken_ms,
            "freshness": [asdict(row) for row in self.rows()],
            "rerank": {
                "rankings": reranking.count,
                "p50_ms": reranking.quantile(0.5),
                "p99_ms": reranking.quantile(0.99),
            },
            "partitions": [asdict(row) for row in self.partitions()],
            "counters": {spec.name: self.total(spec) for spec in METRICS if spec.name.endswith("_total")},
            "rejected": dict(rejected),
            "unreachable": dict(self.unreachable),
        }


def _merged(histograms: Iterable[Histogram]) -> Histogram:
    merged = Histogram()
    for histogram in histograms:
        merged.add(histogram)
    return merged


def _since(now: Mapping[Key, Histogram], earlier: Mapping[Key, Histogram]) -> dict[Key, Histogram]:
    """What came to the histograms after `earlier`."""
    found = {}
    for key, histogram in now.items():
        found[key] = _merged([histogram])
        if key in earlier:
            found[key].add(earlier[key], -1)
    return found


_SLO_OF_TOPIC = {view.topic: view.slo_ms for view in VIEWS}


def scrape(addresses: Sequence[str], now_ms: int, timeout_s: float = 2.0) -> Snapshot:
    """Read /metrics of every worker at `host:port` and merge them. One that does not answer is named in the result."""
    texts, unreachable = [], {}
    for address in addresses:
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=timeout_s) as answer:
                texts.append(answer.read().decode())
        except (OSError, ValueError) as error:
            unreachable[address] = str(error)
    return merge(texts, now_ms, unreachable)


def merge(texts: Iterable[str], now_ms: int, unreachable: Mapping[str, str] | None = None) -> Snapshot:
    """Expositions of several workers as one: histograms and counters add up, the furthest of two gauges counts."""
    latency: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
    rerank: defaultdict[str, Histogram] = defaultdict(Histogram)
    counters: defaultdict[str, defaultdict[Labels, float]] = defaultdict(lambda: defaultdict(float))
    gauges: defaultdict[str, dict[Labels, float]] = defaultdict(dict)
    for text in texts:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        for (stage, view, _), histogram in _histograms(LATENCY, samples):
            latency[stage, view].add(histogram)
        for (view,), histogram in _histograms(RERANK, samples):
            rerank[view].add(histogram)
        for sample in samples:
            spec = _BY_NAME.get(sample.name)
            if spec is None:
                continue
            labels = tuple(sample.labels[name] for name in spec.labels)
            if spec.name.endswith("_total"):
                counters[spec.name][labels] += sample.value
            else:
                gauges[spec.name][labels] = max(sample.value, gauges[spec.name].get(labels, sample.value))
    return Snapshot(now_ms, dict(latency), counters, gauges, unreachable or {}, dict(rerank))


_BY_NAME = {spec.name: spec for spec in METRICS if spec not in HISTOGRAMS}


def _histograms(spec: Spec, samples: Iterable[Sample]) -> Iterable[tuple[Labels, Histogram]]:
    """Histograms of a metric by their labels: bucket counts come cumulated, in the order of the bounds."""
    found: defaultdict[Labels, Histogram] = defaultdict(Histogram)
    below: defaultdict[Labels, float] = defaultdict(float)
    for sample in samples:
        if not sample.name.startswith(spec.name):
            continue
        labels = tuple(sample.labels.get(name, "") for name in spec.labels)
        if sample.name == f"{spec.name}_bucket":
            found[labels].counts[_BUCKET_OF[float(sample.labels["le"])]] += int(sample.value - below[labels])
            below[labels] = sample.value
        elif sample.name == f"{spec.name}_sum":
            found[labels].sum_ms += sample.value * 1000
    return found.items()


_BUCKET_OF = {float(bound): bucket for bucket, bound in enumerate(_BOUNDS)}
