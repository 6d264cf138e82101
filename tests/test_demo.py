"""The show: what it sends, how it waits, and what it prints. The engine is played by a fake."""

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from rich.console import Console

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.views import DAY_MS, PRODUCT_CATALOG
from streams import demo, snapshots
from streams.client import ClosedSet, FreshRanking, RankedItem
from streams.demo import SHIRT_SET, DemoError, DemoOptions, Doors, Hooks, Scene, perform, prepare
from streams.metrics import (
    LAG,
    MARKER,
    RANKINGS_OUT,
    READ_TIME,
    RECORDS_IN,
    ROWS_RESCORE,
    ROWS_SCORED,
    ROWS_WRITTEN,
    Histogram,
)
from streams.records import BEHAVIOR, Cause, Ranking
from streams.replay import Speed
from streams.show import Snapshot, list_table, movement, progress, reasons

COUNTERS = (RECORDS_IN, ROWS_WRITTEN, RANKINGS_OUT, ROWS_SCORED, ROWS_RESCORE)
OPTIONS = DemoOptions(sets=8, events=300, speed=Speed(), patience_s=0.2, rest_s=0.05, folded_per_s=math.inf)


@dataclass
class Verdict:
    equal: int = 9
    total: int = 9
    ok: bool = True
    lines: list[str] = field(default_factory=lambda: ["verify: 9 of 9 result sets equal to the oracle"])


@dataclass
class Engine:
    """Stands for the whole engine: ranks the registered sets after each heartbeat, from the second on backwards."""

    sent: list[Product | Behavior] = field(default_factory=list)
    beats: list[int] = field(default_factory=list)
    registered: list[ResultSet] = field(default_factory=list)
    seen: int = 0
    degraded: bool = False
    ranked: int = 1_000_000
    backwards: bool = True

    def publish(self, record: Product | Behavior) -> None:
        self.sent.append(record)

    def publish_many(self, records: Iterable[Product | Behavior]) -> int:
        self.sent.extend(records)
        return 1

    def heartbeat(self, event_time: int) -> None:
        self.beats.append(event_time)

    def register(self, result_set: ResultSet) -> None:
        self.registered.append(result_set)

    def flush(self) -> None: ...

    def follow(self, idle_s: float | None = None) -> Iterator[FreshRanking | ClosedSet]:
        beats = len(self.beats)
        if beats == self.seen:
            return
        self.seen = beats
        for result_set in self.registered[: self.ranked]:
            ids = [product_id for product_id, _ in result_set.candidates]
            turned = self.backwards and beats > 1
            yield FreshRanking.of(self.ranking(result_set.result_set_id, ids[::-1] if turned else ids))

    def ranking(self, name: str, ids: Sequence[str]) -> Ranking:
        return Ranking(
            result_set_id=name,
            version=self.seen,
            product_ids=tuple(ids),
            scores=np.linspace(1, 0, len(ids), dtype=np.float32),
            previous_ranks=np.full(len(ids), -1, np.int16),
            contributions=None,
            model_version="1",
            caused_by=Cause(PRODUCT_CATALOG.name, ids[0], 3, 5),
            feature_age_ms={},
            scored_at=0,
            published_at=1009,
            degraded=self.degraded,
            cause_kafka_time=1000,
        )


def measured(count: int, latencies_ms: Sequence[int]) -> snapshots.Snapshot:
    """What workers tell that have counted so far and taken so long."""
    histogram = Histogram()
    for latency_ms in latencies_ms:
        histogram.observe(latency_ms)
    counters: dict[str, dict[tuple[str, ...], float]] = {
        spec.name: {("",) * len(spec.labels): float(count)} for spec in COUNTERS
    }
    gauges: dict[str, dict[tuple[str, ...], float]] = {
        LAG.name: {(BEHAVIOR, "0"): 7.0},
        READ_TIME.name: {(BEHAVIOR, "0"): 0.0},
    }
    gauges[MARKER.name] = {(BEHAVIOR, "0"): 5.0}
    return snapshots.Snapshot(0, {("ranking", PRODUCT_CATALOG.name): histogram}, counters, gauges, {})


def hooks(verdict: Verdict | None = None) -> Hooks:
    told = iter((measured(100, [4000]), measured(300, [4000, 12]), measured(400, [4000, 12, 12])))

    asked = iter((3.0, 9.0))

    def features(product_ids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        sales = next(asked)
        return {product_id: {"price": 425 - 10 * sales, "sales_7d": sales} for product_id in product_ids}

    return Hooks(lambda: next(told), lambda: verdict or Verdict(), features)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return prepare(OPTIONS)


def played(scene: Scene, engine: Engine, verdict: Verdict | None = None) -> tuple[demo.DemoSummary, str]:
    out = io.StringIO()
    console = Console(file=out, width=140)
    return perform(scene, console, OPTIONS, hooks(verdict), Doors(engine, engine, engine)), out.getvalue()


def test_the_scene_is_a_function_of_the_options(scene: Scene) -> None:
    assert prepare(OPTIONS) == scene


def test_the_scene_has_real_lists_and_the_shirts(scene: Scene) -> None:
    assert len(scene.result_sets) == OPTIONS.sets + 1
    assert all(len(result_set.candidates) == 100 for result_set in scene.result_sets)
    assert sum(result_set.user_id is not None for result_set in scene.result_sets) == 2
    known = {product.product_id for product in scene.catalog}
    assert {product_id for result_set in scene.result_sets for product_id, _ in result_set.candidates} <= known
    assert scene.result_sets[-1].result_set_id == SHIRT_SET
    assert set(scene.heroes) < known


def test_the_scene_splits_past_and_replay(scene: Scene) -> None:
    assert all(event.event_time < scene.start_ms for event in scene.past)
    assert all(product.event_time < scene.start_ms for product in scene.catalog)
    assert all(scene.start_ms <= event.event_time < scene.end_ms for event in scene.events)
    assert min(event.event_time for event in scene.past) < scene.start_ms - 7 * DAY_MS
    times = [event.event_time for event in scene.events]
    assert times == sorted(times)
    assert len(times) == 300 + len(scene.story.events)


def test_everything_is_sent_and_the_clock_ends_with_the_scene(scene: Scene) -> None:
    engine = Engine()
    summary, _ = played(scene, engine)
    assert engine.sent == [*scene.catalog, *scene.past, *scene.events]
    assert engine.beats[0] == scene.start_ms
    assert engine.beats[-1] == scene.end_ms
    assert engine.registered == list(scene.result_sets)
    assert summary.events_replayed == len(scene.events)


def test_the_summary_counts_the_replay_alone(scene: Scene) -> None:
    summary, text = played(scene, Engine())
    told = summary.to_json()
    for name in ("events_in", "rows_written", "rankings_published", "rows_scored", "rows_full_rescore"):
        assert told[name] == 300
    assert (told["latency_p50_ms"], told["latency_p99_ms"], told["price_latency_p50_ms"]) == (11.0, 12.0, 9.0)
    assert (told["messages_behind"], told["sets_moved"]) == (7, 9)
    assert summary.ok
    assert json.loads(json.dumps(told)) == told
    assert "verify: 9 of 9 result sets equal to the oracle" in text


def test_lists_that_are_wrong_are_told(scene: Scene) -> None:
    lines = ["verify: 8 of 9 result sets equal to the oracle", "search:mug: degraded"]
    summary, text = played(scene, Engine(), Verdict(equal=8, ok=False, lines=lines))
    assert not summary.ok
    assert "search:mug: degraded" in text


def test_lists_that_never_move_are_no_show(scene: Scene) -> None:
    summary, _ = played(scene, Engine(backwards=False))
    assert (summary.sets_moved, summary.verified, summary.ok) == (0, True, False)


def test_the_lists_show_what_moved_and_why(scene: Scene) -> None:
    _, text = played(scene, Engine())
    assert SHIRT_SET in text
    assert "▲ 99" in text
    assert "price 3.95 → 3.35, sales_7d 3 → 9" in text
    assert all(scene.titles[hero] in text for hero in scene.heroes)


def test_without_a_terminal_there_are_plain_lines(scene: Scene) -> None:
    _, text = played(scene, Engine())
    assert "\x1b" not in text
    assert "\r" not in text
    assert "first order of each list: 9 of 9" in text
    assert f"replay: {len(scene.events)} of {len(scene.events)}" in text


def test_a_list_that_nobody_ranks_is_named(scene: Scene) -> None:
    with pytest.raises(DemoError, match=r"1 of 9 lists have no order by the model .* among them search:白色T恤"):
        played(scene, Engine(ranked=8))


def test_degraded_lists_are_waited_for(scene: Scene) -> None:
    with pytest.raises(DemoError, match="9 of 9 lists have no order by the model"):
        played(scene, Engine(degraded=True))


def test_more_lists_than_the_titles_give() -> None:
    with pytest.raises(DemoError, match="100000 lists were asked for"):
        prepare(replace(OPTIONS, sets=100_000))


# --- what a terminal shows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"price": 425, "sales_1h": 3}, {"price": 375, "sales_1h": 9}, "price 4.25 → 3.75, sales_1h 3 → 9"),
        ({"stock": 26, "price": 100}, {"stock": 0, "price": 100}, "stock 26 → 0"),
        ({"sales_1h": 0, "sales_7d": 100}, {"sales_1h": 5, "sales_7d": 105}, "sales_1h 0 → 5, sales_7d 100 → 105"),
        (
            {"sales_1h": 5, "sales_24h": 5, "sales_7d": 9},
            {"sales_1h": 0, "sales_24h": 4, "sales_7d": 9},
            "sales_1h 5 → 0, sales_24h 5 → 4",
        ),
        ({"price": 1}, {"price": 1}, ""),
        ({}, {"price": 1}, ""),
        ({"price": 1}, {}, ""),
    ],
)
def test_reasons(before: dict[str, float], after: dict[str, float], text: str) -> None:
    assert reasons(before, after) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(5, 2, "[green]▲ 3[/]"), (2, 5, "[red]▼ 3[/]"), (2, 2, "[dim]=[/]"), (None, 1, "[cyan]new[/]")],
)
def test_movement(before: int | None, after: int, text: str) -> None:
    assert movement(before, after) == text


def test_a_list_shows_its_top_and_who_else_matters() -> None:
    before = [RankedItem(rank, f"p{rank}", 0.5, None) for rank in range(1, 21)]
    after = [RankedItem(rank, f"p{21 - rank}", 0.5, None) for rank in range(1, 21)]
    table = list_table("t", Snapshot(before, {}), Snapshot(after, {}), {"p20": "Mug"}, also=["p1"], top=3)
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    lines = out.getvalue()
    assert table.row_count == 4
    assert "Mug" in lines
    assert "p18" in lines
    assert "p17" not in lines
    assert "▼ 19" in lines


def test_a_bar_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with progress(console, "replay") as report:
        report(5, 10, 1_322_265_600_000)
    assert "5/10" in out.getvalue()
    assert "Sat 26 Nov 2011 00:00" in out.getvalue()
