"""`freshrank bench`: rows, worlds and capacity by hand; every suite once, on little, on real parts."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.capacity import BUSY, Measured, NotMeasured, Shop, needs
from benchmarks.page import page
from benchmarks.rows import COLUMNS, Finding, Row, Sample, Target, findings_of, markdown, short, table
from benchmarks.suites import SUITES
from benchmarks.surroundings import Child, Surroundings
from benchmarks.world import World
from streams.commands.bench import NAMES, _to_json
from streams.local.part import PartFailed
from streams.records import CATALOG, RESULT_SETS, Record, encode_record
from streams.settings import Limits
from streams.validation import decode
from tests.commands.conftest import Invoke
from tests.parts import kafka_home

PROJECT = Path(__file__).parents[2]
KEYS = {"name", "value", "unit", "floor", "peer", "ratio_to_floor", "ratio_to_peer", "spread", "target", "met"}
THREE_RUNS = (Sample(10.0, 5.0, 100.0), Sample(30.0, 10.0, 200.0), Sample(20.0, 20.0, 400.0))


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_row_is_the_median_of_its_runs() -> None:
    row = Row("a", "ms", THREE_RUNS)
    assert (row.value, row.floor, row.peer) == (20.0, 10.0, 200.0)
    assert row.spread("value") == (10.0, 30.0)


def test_a_ratio_is_made_of_one_run() -> None:
    """2, 3 and 1 by run; the medians of the sides alone would give 2 as well, those of the peer another one."""
    row = Row("a", "ms", THREE_RUNS)
    assert row.ratio("floor") == 2.0
    assert row.spread("floor") == (1.0, 3.0)
    assert row.ratio("peer") == 0.1
    assert row.spread("peer") == (0.05, 0.15)


@pytest.mark.parametrize(
    ("targets", "met"),
    [
        ((), None),
        ((Target(20.0),), True),
        ((Target(19.9),), False),
        ((Target(20.0, at_most=False),), True),
        ((Target(2.0, "floor"), Target(0.1, "peer")), True),
        ((Target(2.0, "floor"), Target(0.09, "peer")), False),
    ],
)
def test_a_target_is_met_or_not(targets: tuple[Target, ...], met: bool | None) -> None:
    assert Row("a", "ms", THREE_RUNS, targets).met is met


def test_a_target_without_its_peer_is_neither() -> None:
    assert Row("a", "ms", (Sample(1.0),), (Target(2.0, "peer"),)).met is None


def test_json_has_every_key() -> None:
    told = Row("a", "ms", THREE_RUNS, (Target(1.6, "floor"), Target(0.1, "peer"))).to_json()
    assert set(told) == KEYS
    assert told["target"] == "≤ 1.6 × floor, ≤ 0.1 × peer"
    assert told["met"] is False
    assert told["spread"] == {"value": (10.0, 30.0), "ratio_to_floor": (1.0, 3.0), "ratio_to_peer": (0.05, 0.15)}
    alone = Row("b", "s", (Sample(1.0),)).to_json()
    assert [alone[key] for key in ("floor", "peer", "ratio_to_floor", "target", "met")] == [None] * 5
    assert set(alone["spread"]) == {"value"}


def test_tables_show_every_row() -> None:
    found = Finding(
        "store", (Row("write", "ms", THREE_RUNS, (Target(1.0),)), Row("read", "ms", (Sample(1.5),))), ("x",)
    )
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table(found))
    shown = console.export_text()
    assert all(word in shown for word in (*COLUMNS, "write", "20 ms", "2 (1 – 3)", "≤ 1", "no", "read", "1.5 ms"))
    lines = markdown(found).splitlines()
    assert lines[0] == "* x"
    assert {line.count("|") for line in lines[2:]} == {len(COLUMNS) + 1}
    assert "| write | 20 ms | 10 | 200 | 2 (1 – 3) | 0.1 (0.05 – 0.15) | 10 – 30 | ≤ 1 | no |" in lines


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (0.012345, "0.0123"), (7.7, "7.7"), (999.4, "999"), (25e3, "25,000")]
)
def test_figures_are_short(number: float, text: str) -> None:
    assert short(number) == text


# --- worlds --------------------------------------------------------------------------------------------------------


def test_a_world_is_a_function_of_its_seed() -> None:
    one, same, other = World(50, 8, 5), World(50, 8, 5), World(50, 8, 5, seed=2)
    assert np.array_equal(one.members, same.members)
    assert not np.array_equal(one.members, other.members)
    assert one.changed(20, seed=3) == same.changed(20, seed=3)


@pytest.mark.parametrize("skewed", [False, True])
def test_sets_have_no_doubles_and_are_held(skewed: bool) -> None:
    world = World(50, 8, 5, skewed=skewed)
    assert all(len(set(products)) == 5 for products in world.members.tolist())
    assert world.holders.sum() == 8 * 5


def test_skewed_candidates_are_those_that_change() -> None:
    """Sets that hold the product of an event, on average: many times more when candidates are drawn as events are."""
    even, skewed = (World(1_000, 100, 20, skewed=skewed) for skewed in (False, True))
    assert float(even.weights @ even.holders) < 4.0
    assert float(skewed.weights @ skewed.holders) > 8.0


def test_a_world_is_valid_input() -> None:
    world = World(50, 8, 5)
    products = [*world.catalog(1_000), *world.price_events(30, seed=1)]
    found: list[tuple[str, str, Record]] = [(CATALOG, product.product_id, product) for product in products]
    found += [(RESULT_SETS, one.result_set_id, one) for one in world.result_sets(1_000)]
    for topic, key, record in found:
        value = encode_record(record)
        limits = Limits()
        decoded = decode(topic, key.encode(), value, kafka_time=2**41, partition=0, partitions=1, limits=limits)
        assert len(decoded.records) == 1
        assert not decoded.rejected


def test_every_event_changes_the_price() -> None:
    prices = [event.price for event in World(50, 8, 5).price_events(200, seed=1)]
    assert len(set(prices)) == 200


# --- capacity ------------------------------------------------------------------------------------------------------

MEASURED = Measured(10_000.0, 20_000.0, 100_000.0, 50_000.0, 7_000.0, 1_000.0, 3_000.0)


def test_the_fan_out_is_the_first_term() -> None:
    assert Shop(products=100e6, sets=1e6, events_per_s=1.0).fan_out == 1.0
    assert Shop(products=5_000, sets=2_000, events_per_s=1.0).fan_out == 40.0
    assert Shop(products=5_000, sets=2_000, events_per_s=1.0, skew=10.0).fan_out == 400.0


def test_needs_follow_from_what_was_measured() -> None:
    found = {need.what: need.amount for need in needs(Shop(100e6, 1e6, 100e3), MEASURED)}
    assert found["sets published"] == "100,000 a second"
    assert found["ranking workers"] == f"{int(np.ceil(100_000 / (20_000 * BUSY)))}"
    assert found["product workers"] == f"{int(np.ceil(100_000 / (10_000 * BUSY)))}"
    assert found["partitions of the inputs"] == "34"
    assert found["Redis: memory"] == "300 GB"


def test_more_skew_needs_more_ranking_workers_only() -> None:
    even, skewed = (
        {need.what: need.amount for need in needs(Shop(100e6, 1e6, 100e3, skew), MEASURED)} for skew in (1.0, 10.0)
    )
    differing = {what for what in even if even[what] != skewed[what]}
    assert differing == {
        "sets published", "ranking workers", "memory of each", "partitions of the inputs", "Triton instances"
    }  # fmt: skip


def test_a_model_without_figures_says_which() -> None:
    with pytest.raises(NotMeasured, match="ingest: behaviour events"):
        Measured.of({})


# --- the page ------------------------------------------------------------------------------------------------------


def finding(suite: str, *rows: Row) -> Finding:
    return Finding(suite, rows, ("about it",))


def test_the_page_has_every_suite_and_what_follows(tmp_path: Path) -> None:
    findings = some_findings()
    around = Surroundings(tmp_path, None, False, print)
    text = page(findings, PROFILE, around)
    assert all(f"## {suite.capitalize()}: {about}" in text for suite, about in SUITES.items())
    assert "| 50/s, p50 | 20 ms | 10 | 200 | 2 (1 – 3) | 0.1 (0.05 – 0.15) | 10 – 30 | ≤ 1.6 × floor | no |" in text
    assert "| `streams/a.py: b` | 75% | 10 |" in text
    assert "| Redis: memory | 300 GB | 300 GB | 300 GB |" in text
    assert "Tansu, the embedded broker" in text


def test_the_page_takes_the_rest_of_an_earlier_run(tmp_path: Path) -> None:
    """What JSON tells of a row makes the same line as the row itself."""
    findings, around = some_findings(), Surroundings(tmp_path, None, False, print)
    told = json.loads(json.dumps(_to_json(findings, "here")))
    known = findings_of(told)
    text = page(known | {"scale": findings["scale"]}, PROFILE, around, [name for name in known if name != "scale"])
    assert "Earlier than the rest: latency, ingest, store, scoring." in text
    assert text.replace(" Earlier than the rest: latency, ingest, store, scoring.", "") == page(
        findings, PROFILE, around
    )


PROFILE = [("streams/a.py: b", 3.0, 10), ("c", 1.0, 2)]


def some_findings() -> dict[str, Finding]:
    findings = [
        finding("latency", Row("50/s, p50", "ms", THREE_RUNS, (Target(1.6, "floor"),))),
        finding("ingest", Row("behaviour events, single records", "records/s", (Sample(10_000.0),))),
        finding(
            "store",
            Row("write 1,000 rows, compare-and-set", "ms", (Sample(20.0),)),
            Row("memory of a product in Redis, all views", "KB", (Sample(3.0),)),
        ),
        finding("scoring", Row("100 rows, rows a second", "rows/s", (Sample(100_000.0),))),
        finding(
            "scale",
            Row("published sets, a second and core, whole path but the model", "sets/s", (Sample(20_000.0),)),
            Row("memory of a live set of 100, beyond product rows", "KB", (Sample(7.0),)),
            Row("memory of a product that some set holds", "KB", (Sample(1.0),)),
        ),
    ]
    return {found.suite: found for found in findings}


# --- children ------------------------------------------------------------------------------------------------------


def test_a_child_that_ends_without_a_word_is_told_with_its_log(tmp_path: Path) -> None:
    child = Child("broken", "benchmarks.peers.hops", {"nonsense": 1}, tmp_path, {})
    with child, pytest.raises(PartFailed, match=r"(?s)broken ended; .*TypeError"):
        child.wait_for("ready")


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_knows_every_suite() -> None:
    assert tuple(SUITES) == NAMES


def test_kafka_wants_its_home(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    result = invoke("bench", "--kafka", "--quick")
    assert result.exit_code == 2
    assert "KAFKA_HOME is not set" in result.output


def test_the_page_wants_all_suites(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("bench", "--suite", "store", "--write-docs", tmp_path / "page.md")
    assert result.exit_code == 2
    assert "expected --suite all or --rest, got store" in result.output


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "got Expecting"), ("[]", "got 'list'"), ('{"rows": []}', "without about, where"),
     ('{"rows": [], "about": {}, "where": "elsewhere"}', "got one on 'elsewhere'")],
)  # fmt: skip
def test_the_rest_is_of_an_earlier_run_here(invoke: Invoke, tmp_path: Path, text: str, why: str) -> None:
    rest = tmp_path / "rest.json"
    rest.write_text(text)
    result = invoke("bench", "--suite", "store", "--write-docs", tmp_path / "page.md", "--rest", rest)
    assert result.exit_code == 2
    assert "--rest: expected" in result.output
    assert why in " ".join(result.output.split())


# --- the suites ----------------------------------------------------------------------------------------------------

#: a row that each suite must have, and whom it is measured beside
SOME_ROWS = {
    "latency": ("50/s, p50", ("floor", "peer")),
    "ingest": ("behaviour events, single records", ("floor", "peer")),
    "store": ("read 100 candidates, all ranker features, to NumPy", ("floor", "peer")),
    "scoring": ("100 rows", ("floor",)),
    "scale": ("kill -9 and restart → next event of its partitions", ()),
}


@pytest.mark.parts
@pytest.mark.timeout(400)
@pytest.mark.parametrize("suite", NAMES)
def test_a_suite_runs_end_to_end(suite: str, tmp_path: Path) -> None:
    """Quickly, in a process of its own. The figures are what they may be, but they are all there."""
    file = tmp_path / "rows.json"
    command = [sys.executable, "-m", "streams", "bench", "--suite", suite, "--quick", "--dir", str(tmp_path / "run")]
    command += ["--json", str(file), *(["--kafka"] if kafka_home() else [])]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    assert all(set(row) == KEYS for row in found)
    assert all(row["value"] > 0 for row in found)
    name, beside = SOME_ROWS[suite]
    (row,) = (row for row in found if row["name"] == f"{suite}: {name}")
    assert all(row[who] > 0 and row[f"ratio_to_{who}"] > 0 for who in beside)
    assert name.partition(",")[0] in first_column(done.stdout)


def first_column(table: str) -> str:
    """The names of a printed table in one line: a long one is broken into lines of its cell."""
    return " ".join(re.split(r"\s{2,}", line.strip())[0] for line in table.splitlines())
