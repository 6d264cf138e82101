"""How fresh things are, as one process measures it: latencies as histograms, progress of partitions, counts; exposed
to Prometheus and to `streams.snapshots`.

Two different times. *Latency* is wall time since the Kafka timestamp of an event: how late we are. *Age* is by the
log's clock (heartbeats): how old a feature is, which says nothing bad of a product that nobody buys.

The values live in plain objects here, not in prometheus_client's: those move into mapped files when another library of
the process (Feast's metrics) sets PROMETHEUS_MULTIPROCESS_DIR first, and cost microseconds each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.metrics import (
    AGE,
    BOUNDS,
    CONFLICTS,
    DEGRADED,
    HEARTBEAT,
    HISTOGRAMS,
    LAG,
    MARKER,
    METRICS,
    OF_PARTITIONS,
    RANKINGS_OUT,
    READ_TIME,
    RECORDS_IN,
    REJECTED,
    REPAIRS,
    REWINDS,
    ROWS_EMITTED,
    ROWS_RESCORE,
    ROWS_SCORED,
    ROWS_WRITTEN,
    UNKNOWN_FIELDS,
    Histogram,
    Labels,
    Spec,
    Stage,
)
from streams.validation import Decoded


@dataclass(frozen=True, slots=True)
class RankingsSent:
    """Rankings that were sent together: how many by (view, Kafka timestamp in ms) of the event that caused them, and by
    (view, monotonic ms) of its row's coming; ages (youngest, oldest) in ms by view of the last one."""

    count: int
    degraded: int
    causes: Mapping[tuple[str, int], int]
    heard: Mapping[tuple[str, int], int]
    ages: Mapping[str, tuple[int, int]]


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
        for spec in OF_PARTITIONS:
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
                times.add_metric(labels, list(zip(BOUNDS, cumulated, strict=True)), histogram.sum_ms / 1000)
            yield times
        for spec, values in self._values.items():
            family = CounterMetricFamily if spec.name.endswith("_total") else GaugeMetricFamily
            metric = family(spec.name, spec.about, labels=spec.labels)
            for labels, value in list(values.items()):
                metric.add_metric(labels, value)
            yield metric
