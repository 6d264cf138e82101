"""Latencies, progress and counts: measured, exposed, scraped, merged."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from feature_repo.views import VIEWS
from streams.freshness import Freshness, RankingsSent
from streams.metrics import (
    BOUNDS_MS,
    CONFLICTS,
    DEGRADED,
    METRICS,
    RANKINGS_OUT,
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
)
from streams.snapshots import Snapshot, is_late, merge, partition_state, scrape
from streams.validation import Decoded, Rejected

NOW = 1_700_000_000_000


def measured() -> tuple[Freshness, CollectorRegistry]:
    registry = CollectorRegistry()
    return Freshness(registry), registry


def exposed(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def snapshot(*registries: CollectorRegistry) -> Snapshot:
    return merge([exposed(registry) for registry in registries], NOW)


# --- histograms ----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 299_999), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    true = sorted(values)[max(0, int(np.ceil(q * len(values))) - 1)]
    upper = next(bound for bound in BOUNDS_MS if true <= bound)
    lower = max((bound for bound in BOUNDS_MS if bound < true), default=0)
    found = histogram.quantile(q)
    assert found is not None
    assert lower <= found <= upper


def test_nothing_measured_is_none_and_not_zero() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().share_within(1_000) is None


def test_beyond_the_last_bound_the_last_bound_is_all_that_is_known() -> None:
    histogram = Histogram()
    histogram.observe(10_000_000)
    assert histogram.quantile(0.5) == BOUNDS_MS[-1]


def test_clocks_that_differ_make_no_negative_latency() -> None:
    histogram = Histogram()
    histogram.observe(-500)
    assert (histogram.counts[0], histogram.sum_ms) == (1, 0.0)


def test_the_share_within_an_slo_is_exact_at_its_edge() -> None:
    histogram = Histogram()
    for value in (999, 1_000, 1_000.5, 5_000):
        histogram.observe(value)
    assert histogram.share_within(1_000) == 0.5


def test_every_slo_is_a_bound() -> None:
    assert {view.slo_ms for view in VIEWS} <= set(BOUNDS_MS)


# --- late or quiet -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lag", "read_age_ms", "late", "state"),
    [
        (0, 0, False, "current"),
        (0, 119_000, False, "current"),
        (0, 10_000_000, False, "quiet"),
        (500, 900, False, "current"),
        (1, 1_001, True, "late"),
        (1, 10_000_000, True, "late"),
    ],
)
def test_quiet_is_not_late(lag: int, read_age_ms: float, late: bool, state: str) -> None:
    assert is_late(lag, read_age_ms, 1_000) is late
    assert partition_state(lag, read_age_ms, 1_000) == state


def test_partitions_are_told_by_lag_and_age() -> None:
    worker, registry = measured()
    worker.set_partition("catalog", 0, marker=10, lag=0, read_ms=NOW - 3_600_000)
    worker.set_partition("behavior", 1, marker=20, lag=7, read_ms=NOW - 3_000)
    worker.set_partition("content", 2, marker=30, lag=7, read_ms=NOW - 3_000)
    worker.set_heartbeat(1, NOW - 60_000)
    found = {(row.topic, row.partition): (row.marker, row.lag, row.state) for row in snapshot(registry).partitions()}
    assert found == {
        ("catalog", 0): (10, 0, "quiet"),
        ("behavior", 1): (20, 7, "late"),
        ("content", 2): (30, 7, "current"),  # within its SLO of ten seconds
    }
    worker.forget_partitions()
    assert snapshot(registry).partitions() == []


# --- measured, exposed, merged -------------------------------------------------------------------------------------


def test_latencies_by_stage_and_view() -> None:
    worker, registry = measured()
    written = worker.on_rows_written(lambda: NOW)
    written("product_catalog", 0, [NOW - 10, NOW - 1_500])
    written("product_catalog", 3, [NOW - 10, NOW - 20])
    sent = worker.on_change_sent(lambda: NOW)
    sent("product_behavior", NOW - 5)
    worker.count_rankings(RankingsSent(3, 0, {("product_catalog", NOW - 8): 2}, {}, {}), NOW)
    rows = {(row.view, row.stage): row for row in snapshot(registry).rows()}
    assert set(rows) == {("product_catalog", "row"), ("product_catalog", "ranking"), ("product_behavior", "change")}
    row = rows["product_catalog", "row"]
    assert (row.events, row.slo_ms, row.within_slo) == (4, 1_000, 0.75)
    assert row.p50_ms == 10
    assert 1_000 < (row.p99_ms or 0) <= 2_000
    assert rows["product_catalog", "ranking"].p50_ms == pytest.approx(7.5)
    found = snapshot(registry)
    assert found.latency["row", "product_catalog"].sum_ms == pytest.approx(1_540)
    assert found.latency_of("row").count == 4
    assert (found.total(ROWS_WRITTEN), found.total(ROWS_EMITTED)) == (4, 1)


def test_re_ranking_is_measured_from_the_rows_coming() -> None:
    (one, its_registry), (two, other_registry) = measured(), measured()
    one.count_reranked([RankingsSent(3, 0, {}, {("product_catalog", 5_000): 3}, {})], 5_008)
    earlier = snapshot(its_registry, other_registry)
    one.count_reranked([RankingsSent(1, 0, {}, {("product_behavior", 5_000): 1}, {})], 5_040)
    two.count_reranked([RankingsSent(1, 0, {}, {("product_catalog", 5_000): 1}, {})], 5_001)
    found = snapshot(its_registry, other_registry)
    assert {view: histogram.count for view, histogram in found.rerank.items()} == {
        "product_catalog": 4,
        "product_behavior": 1,
    }
    assert found.reranking().sum_ms == pytest.approx(3 * 8 + 40 + 1)
    since = found.since(earlier).reranking()
    assert since.count == 2
    assert since.sum_ms == pytest.approx(41)
    assert found.to_json()["rerank"]["rankings"] == 5
    assert found.latency == {}


def test_what_no_event_caused_has_no_latency() -> None:
    worker, registry = measured()
    worker.on_rows_written(lambda: NOW)("product_behavior", 0, [0])
    worker.on_change_sent(lambda: NOW)("product_behavior", 0)
    worker.count_rankings(RankingsSent(1, 0, {}, {}, {}), NOW)
    found = snapshot(registry)
    assert sum(histogram.count for histogram in found.latency.values()) == 0
    assert (found.total(ROWS_WRITTEN), found.total(ROWS_EMITTED), found.total(RANKINGS_OUT)) == (1, 1, 1)


def test_everything_is_counted() -> None:
    worker, registry = measured()
    rejected = [Rejected(0, "bad_time", ""), Rejected(1, "bad_time", ""), Rejected(2, "wrong_type", "")]
    worker.count_in("catalog", Decoded(rejected=rejected, unknown_fields=4, count=10))
    worker.count_in("behavior", Decoded(count=5))
    worker.count_scored(3, 100)
    worker.count_rankings(RankingsSent(5, 2, {}, {}, {"product_catalog": (250, 90_000)}), NOW)
    worker.count_conflicts("product_catalog", 2)
    worker.count_repairs("product_catalog", 1)
    worker.count_rewind()
    found = snapshot(registry)
    assert (found.total(RECORDS_IN), found.total(RECORDS_IN, topic="catalog")) == (15, 10)
    assert (found.total(REJECTED), found.total(REJECTED, reason="bad_time")) == (3, 2)
    assert found.total(REJECTED, topic="behavior") == 0
    assert found.total(UNKNOWN_FIELDS) == 4
    assert (found.total(ROWS_SCORED), found.total(ROWS_RESCORE)) == (3, 100)
    assert (found.total(RANKINGS_OUT), found.total(DEGRADED)) == (5, 2)
    assert (found.total(CONFLICTS), found.total(REPAIRS), found.total(REWINDS)) == (2, 1, 1)
    assert 'freshrank_feature_age_seconds{edge="oldest",view="product_catalog"} 90.0' in exposed(registry)


def test_workers_add_up() -> None:
    (one, its_registry), (two, other_registry) = measured(), measured()
    for worker, latency in ((one, 3), (one, 3), (two, 700)):
        worker.observe("row", "product_catalog", 0, latency)
    one.count_scored(1, 2)
    two.count_scored(10, 20)
    two.set_partition("catalog", 0, marker=5, lag=0, read_ms=NOW)
    found = snapshot(its_registry, other_registry)
    [row] = found.rows()
    assert (row.events, row.within_slo) == (3, 1.0)
    assert found.latency["row", "product_catalog"].sum_ms == pytest.approx(706)
    assert found.total(ROWS_SCORED) == 11
    assert [(p.topic, p.state) for p in found.partitions()] == [("catalog", "current")]


def test_a_later_snapshot_less_an_earlier_one() -> None:
    worker, registry = measured()
    worker.observe("row", "product_catalog", 0, 700)
    worker.count_scored(1, 2)
    earlier = snapshot(registry)
    worker.observe("row", "product_catalog", 0, 3)
    worker.observe("row", "user_behavior", 0, 3)
    worker.count_scored(10, 20)
    between = snapshot(registry).since(earlier)
    assert {(row.view, row.events, row.p50_ms) for row in between.rows()} == {
        ("product_catalog", 1, 2.5),
        ("user_behavior", 1, 2.5),
    }
    assert between.total(ROWS_SCORED) == 10
    assert earlier.latency["row", "product_catalog"].count == 1


def test_a_snapshot_is_json() -> None:
    worker, registry = measured()
    worker.observe("row", "product_catalog", 0, 3)
    worker.count_in("catalog", Decoded(rejected=[Rejected(0, "bad_time", "")], count=1))
    worker.set_partition("catalog", 0, marker=5, lag=1, read_ms=NOW)
    found = json.loads(json.dumps(snapshot(registry).to_json(), allow_nan=False))
    assert found["freshness"][0]["events"] == 1
    assert found["partitions"][0]["state"] == "current"
    assert found["counters"]["freshrank_records_total"] == 1
    assert found["rejected"] == {"bad_time": 1}


def test_scraping_names_those_that_do_not_answer() -> None:
    worker, _ = measured()
    worker.observe("change", "product_content", None, 3)
    address = worker.serve()
    try:
        found = scrape([address, "127.0.0.1:1"], NOW)
        with pytest.raises(OSError, match=r"metrics port \d+: Address already in use"):
            Freshness().serve(int(address.rpartition(":")[2]))
    finally:
        worker.close()
    assert [(row.view, row.stage) for row in found.rows()] == [("product_content", "change")]
    assert set(found.unreachable) == {"127.0.0.1:1"}
    assert address.startswith("127.0.0.1:")


MEASURE = """
from streams.freshness import Freshness
from streams.metrics import REWINDS
from streams.snapshots import scrape
worker = Freshness()
worker.count_rewind()
print(scrape([worker.serve()], 0).total(REWINDS))
"""


def test_values_do_not_depend_on_prometheus_multiprocess_mode(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROCESS_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []


def test_the_documented_metrics_are_those_that_are_exposed() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "metrics.md").read_text()
    documented = dict(re.findall(r"^\| `(freshrank_\w+)` \|(.*)$", page, re.MULTILINE))
    assert list(documented) == [spec.name for spec in METRICS]
    for spec in METRICS:
        assert all(f"`{label}`" in documented[spec.name] for label in spec.labels)
        assert spec.about in documented[spec.name]
    _, registry = measured()
    families = set(re.findall(r"^# TYPE (\w+) ", exposed(registry), re.MULTILINE))
    assert families == set(documented)
