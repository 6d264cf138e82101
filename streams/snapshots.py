"""What all workers measured at one moment: read from each of them, merged, judged."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from feature_repo.views import MINUTE_MS, VIEW_BY_NAME, VIEWS
from streams.metrics import (
    BOUNDS,
    HISTOGRAMS,
    LAG,
    LATENCY,
    MARKER,
    METRICS,
    READ_TIME,
    REJECTED,
    RERANK,
    STAGES,
    Histogram,
    Labels,
    Spec,
    Stage,
)

Key = TypeVar("Key")

_SLO_OF_TOPIC = {view.topic: view.slo_ms for view in VIEWS}
_BY_NAME = {spec.name: spec for spec in METRICS if spec not in HISTOGRAMS}
_BUCKET_OF = {float(bound): bucket for bucket, bound in enumerate(BOUNDS)}


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
