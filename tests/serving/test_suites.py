"""Suites: features of a replay are causal, leaks are found, tables and figures say what was measured."""

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import torch

from feature_repo.events import Behavior, Product
from feature_repo.views import HISTORY_EVENTS, MODALITIES, NUMERIC_FIELDS
from serving.datasets import ranklens as events_of_films
from serving.errors import ServingError
from serving.model.config import DEFAULT, FusionForm
from serving.model.dataset import RankedList
from serving.model.metrics import Interval
from serving.model.suites import clothing, device, floors, freshness, luma, ranklens
from serving.model.suites.asking import Asking
from serving.model.suites.drawing import draw
from serving.model.suites.judging import Judged
from serving.model.suites.page import write
from serving.model.suites.plain import Plain
from serving.model.suites.replaying import Late, LeakError, check, lists, without_positions
from serving.model.suites.rows import COLUMNS, Bars, Figure, Finding, Line, Row, Target, quality
from serving.model.suites.shops import AS_TRAINED
from serving.model.training.fitting import new_nets
from tests.datasets.shelves import luma_row, write_clothing, write_luma

VIEWS, CLICKS, RATE = (NUMERIC_FIELDS.index(name) for name in ("views_24h", "clicks_24h", "ctr_24h"))
CATALOGUE = tuple(f"film-{n}" for n in range(12))
CLICK_AFTER_MS = 5_000
START_MS = 1_636_907_100_000


def log(seed: int = 1, shown: int = 60) -> list[Behavior]:
    """A list of six films every second or two to one of four users, who click two of them five seconds later."""
    random = Random(seed)
    events, time = [], START_MS
    for number in range(shown):
        time += random.choice((0, 1_000, 2_000))
        user, films = f"user-{random.randrange(4)}", random.sample(CATALOGUE, 6)
        for position, film in enumerate(films):
            events.append(_event("impression", f"{number}-{position}", film, time, user, number, position))
        for film in random.sample(films, 2):
            events.append(_event("click", f"{number}-{film}", film, time + CLICK_AFTER_MS, user, number, None))
    return sorted(events, key=lambda event: event.event_time)


def _event(kind: Any, name: str, film: str, time: int, user: str, number: int, position: int | None) -> Behavior:
    return Behavior(
        type=kind,
        event_id=f"{kind}-{name}",
        product_id=film,
        event_time=time,
        user_id=user,
        result_set_id=f"list-{number}",
        position=position,
    )


def test_counters_are_those_of_brute_force() -> None:
    events = log()
    for one in lists(CATALOGUE, events).values():
        before = [event for event in events if event.event_time < one.time_ms]
        for row, item in enumerate(one.items):
            kinds = [event.type for event in before if event.product_id == CATALOGUE[item]]
            views, clicks = kinds.count("impression"), kinds.count("click")
            assert one.numeric[row, [VIEWS, CLICKS]].tolist() == [views, clicks]
            assert one.numeric[row, RATE] == pytest.approx((clicks + 1) / (views + 20), rel=5e-3)


def test_a_click_is_not_known_before_it_is_made() -> None:
    events = log()
    found = lists(CATALOGUE, events)
    assert [one.time_ms for one in found.values()] == sorted(one.time_ms for one in found.values())
    known = 0
    for one in found.values():
        assert all(time < one.time_ms for _, _, _, time in one.history)
        clicks = [time - CLICK_AFTER_MS for kind, _, _, time in one.history if kind == "click"]
        assert all(time + CLICK_AFTER_MS < one.time_ms for time in clicks)
        known += len(clicks)
    assert known > 100


def test_a_history_is_the_users_own_events_with_positions() -> None:
    events = log()
    users = {str(event.result_set_id): event.user_id for event in events}
    for name, one in lists(CATALOGUE, events).items():
        own = [event for event in events if event.user_id == users[name] and event.event_time < one.time_ms]
        wanted = [(e.type, e.product_id, -1 if e.position is None else e.position, e.event_time) for e in own]
        assert list(one.history) == wanted[-HISTORY_EVENTS:]


def test_a_list_tells_what_was_shown_where_and_clicked() -> None:
    events = log()
    for name, one in lists(CATALOGUE, events).items():
        films = [CATALOGUE[item] for item in one.items]
        assert films == sorted(films)
        positions = {e.product_id: e.position for e in events if e.result_set_id == name and e.type == "impression"}
        assert [round(6 / value) - 1 for value in one.retrieval] == [positions[film] for film in films]
        clicked = {e.product_id for e in events if e.result_set_id == name and e.type == "click"}
        assert {film for film, was in zip(films, one.bought, strict=True) if was} == clicked
        assert not without_positions(one).retrieval.any()


def test_late_features_are_those_of_fewer_events() -> None:
    events = log()
    fresh, late = lists(CATALOGUE, events), lists(CATALOGUE, events, Late(products=40))
    for name, one in late.items():
        assert one.history == fresh[name].history
        known = [event for event in events if event.event_time < one.time_ms]
        known = known[: max(0, len(known) - 40)]
        views = [sum(e.type == "impression" and e.product_id == CATALOGUE[n] for e in known) for n in one.items]
        assert one.numeric[:, VIEWS].tolist() == views
    of_users = lists(CATALOGUE, events, Late(users=40))
    assert any(len(one.history) < len(fresh[name].history) for name, one in of_users.items())
    assert all(np.array_equal(one.numeric, fresh[name].numeric) for name, one in of_users.items())


def test_lists_since_a_moment_are_the_same_lists() -> None:
    events = log()
    whole = lists(CATALOGUE, events)
    since = list(whole.values())[30].time_ms
    for name, one in lists(CATALOGUE, events, since_ms=since).items():
        assert one.time_ms >= since
        np.testing.assert_array_equal(one.numeric, whole[name].numeric)


def moments(events: Sequence[Behavior]) -> list[int]:
    return [one.time_ms for one in list(lists(CATALOGUE, events).values())[10::17]]


def test_what_is_built_here_does_not_leak() -> None:
    events = log()
    check(lists, CATALOGUE, events, moments(events))


def peeking_counters(catalogue: Sequence[str], behavior: Sequence[Behavior]) -> Mapping[str, RankedList]:
    """Clicks count from the moment in which their list is shown: five seconds too soon."""
    early = [replace_time(event) if event.type == "click" else event for event in behavior]
    ahead = lists(catalogue, sorted(early, key=lambda event: event.event_time))
    return {name: replace(one, numeric=ahead[name].numeric) for name, one in lists(catalogue, behavior).items()}


def replace_time(event: Behavior) -> Behavior:
    return msgspec.structs.replace(event, event_time=event.event_time - CLICK_AFTER_MS)


def peeking_history(catalogue: Sequence[str], behavior: Sequence[Behavior]) -> Mapping[str, RankedList]:
    """A user's history that ends with what they will click in this very list."""
    return {
        name: replace(
            one,
            history=(
                *one.history,
                *(("click", CATALOGUE[item], None, one.time_ms) for item in one.items[one.bought > 0]),
            ),
        )
        for name, one in lists(catalogue, behavior).items()
    }


@pytest.mark.parametrize(
    ("build", "told"), [(peeking_counters, "numeric of list"), (peeking_history, "history of list")]
)
def test_a_planted_leak_is_found(build: Any, told: str) -> None:
    events = log()
    with pytest.raises(LeakError, match=told):
        check(build, CATALOGUE, events, moments(events))


def test_a_moment_without_a_list_shows_nothing() -> None:
    with pytest.raises(ValueError, match="nothing can be seen there"):
        check(lists, CATALOGUE, log(), [START_MS - 1])


def films() -> list[Product]:
    return [
        Product(
            product_id=film,
            event_time=0,
            attributes={"genre": "drama|war" if n % 2 else "comedy", "actor": f"actor {n % 3}", "budget": 10.0 * n},
        )
        for n, film in enumerate(CATALOGUE)
    ]


def test_plain_features_are_named_and_counted() -> None:
    plain, events = Plain(films()), log()
    assert plain.names == (
        "position", "views_24h", "clicks_1h", "clicks_24h", "ctr_24h", "place by ctr_24h", "budget", "number of genre",
        "number of actor", "user_views", "user_clicks", "user_ctr", "actor clicked", "genre clicked",
        "actor passed by", "genre passed by",
    )  # fmt: skip
    one = list(lists(CATALOGUE, events).values())[-1]
    table = plain.table(one)
    assert table.shape == (6, len(plain.names))
    clicked = {product for kind, product, _, _ in one.history if kind == "click"}
    passed = [product for kind, product, _, _ in one.history if kind == "impression" and product not in clicked]
    genres = {film.product_id: str(film.attributes["genre"]).split("|") for film in films()}  # type: ignore[index]
    for row, item in enumerate(one.items):
        shared = {
            name: dict(zip(plain.names, table[row], strict=True))[f"genre {name}"] for name in ("clicked", "passed by")
        }
        own = genres[CATALOGUE[item]]
        assert shared["clicked"] == sum(genre in genres[film] for film in clicked for genre in own)
        assert shared["passed by"] == sum(genre in genres[film] for film in passed for genre in own)
        assert table[row, plain.names.index("budget")] == 10 * item


def test_boosted_trees_learn_an_order() -> None:
    random = np.random.default_rng(1)
    features = random.random((4_000, 3))
    gains = (features[:, 1] > 0.8).astype(np.float64)
    sizes = np.full(200, 20)
    scores = floors.boosted(floors.Table(features, gains, sizes), features, seed=0)
    assert scores[gains > 0].min() > scores[gains == 0].max() - 1e-9
    np.testing.assert_array_equal(scores, floors.boosted(floors.Table(features, gains, sizes), features, seed=0))


def test_a_missing_benchmark_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ServingError, match=re.escape("lightgbm is not installed: pip install 'freshrank[bench]'")):
        floors.boosted(floors.Table(np.zeros((1, 1)), np.zeros(1), np.ones(1, np.int64)), np.zeros((1, 1)), seed=0)


def test_where_data_is_has_to_be_said(tmp_path: Path) -> None:
    def asking(data: Path | None) -> Asking:
        return Asking(data, 1, quick=True, tell=lambda stage, done, total: None)

    with pytest.raises(ServingError, match="where is the data set luma"):
        asking(None).folder("luma")
    with pytest.raises(ServingError, match="expected a folder luma in it"):
        asking(tmp_path).folder("luma")
    (tmp_path / "luma").mkdir()
    assert asking(tmp_path).folder("luma") == tmp_path / "luma"


def test_metrics_of_several_trainings_are_means() -> None:
    one = RankedList(
        query="",
        time_ms=0,
        items=np.arange(3, dtype=np.int32),
        numeric=np.zeros((3, len(NUMERIC_FIELDS)), np.float32),
        retrieval=np.zeros(3, np.float32),
        bought=np.array([1, 0, 0], np.float32),
    )
    judged = Judged([one, one])
    right, wrong = np.array([3.0, 2, 1] * 2), np.array([1.0, 3, 2] * 2)
    assert judged.ndcg(right).mean == 1
    assert judged.ndcg(np.stack([right, wrong])).mean == pytest.approx(0.75)
    rows = {row.name: row.value for row in judged.others("model", np.stack([right, wrong]))}
    assert rows["model, MRR"] == pytest.approx((1 + 1 / 3) / 2)
    assert rows["model, AUC within lists"] == pytest.approx(0.5)


FINDING = Finding(
    "luma",
    "Lists",
    (
        Row("random order", 0.25),
        quality("model", Interval(0.5, 0.4, 0.6), floor=0.25, peer=0.45, target=Target(0.5)),
        quality("gain", Interval(0.05, 0.0, 0.1), target=Target(0, of="low", strict=True)),
        Row("rows", 12_345.6, "rows/s"),
    ),
    ("Floor: chance.",),
    (
        Figure(
            "luma-curve",
            "A curve",
            "late by",
            "NDCG@10",
            ("0", "1 h"),
            (Line("all", (Interval(0.5, 0.4, 0.6), Interval(0.3, 0.2, 0.4))),),
            "It falls",
        ),
    ),
)


def test_targets_are_met_or_not() -> None:
    assert [row.met for row in FINDING.rows] == [None, True, False, None]
    assert [str(row.target) for row in FINDING.rows[1:3]] == ["≥ 0.5000", "interval > 0.0000"]
    assert Row("without an interval", 0.5, target=Target(0.4, of="low")).met is True


def test_json_has_the_fields_of_a_row() -> None:
    told = json.loads(json.dumps(FINDING.to_json()))
    fields = {"name", "value", "unit", "floor", "peer", "spread", "target", "met"}
    assert [set(row) for row in told["rows"]] == [fields] * 4
    assert told["rows"][1] == {
        "name": "model", "value": 0.5, "unit": "", "floor": 0.25, "peer": 0.45, "spread": [0.4, 0.6],
        "target": "≥ 0.5000", "met": True,
    }  # fmt: skip


def test_a_table_has_the_columns_that_say_something() -> None:
    assert [COLUMNS[n] for n in FINDING.columns] == list(COLUMNS)
    assert [COLUMNS[n] for n in replace(FINDING, rows=FINDING.rows[:1]).columns] == ["measured", "value"]
    lines = FINDING.markdown().splitlines()
    assert lines[3] == "| model | 0.5000 | 0.2500 | 0.4500 | 0.4000 – 0.6000 | ≥ 0.5000 | yes |"
    assert lines[5] == "| rows | 12,346 rows/s |  |  |  |  |  |"
    assert lines[-1] == "* Floor: chance."


def test_a_page_gets_the_newest_table_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "model.md"
    page.write_text(
        "# Model\n\n<!-- evaluate luma -->\nold\n<!-- end luma -->\n\n"
        "<!-- evaluate scoring -->\nkept\n<!-- end scoring -->\n"
    )
    written = write(page, FINDING, "freshrank evaluate --suite luma")
    text = page.read_text()
    assert "old" not in text
    assert "kept" in text
    assert "Measured by `freshrank evaluate --suite luma`." in text
    assert "![It falls](figures/luma-curve.svg)" in text
    assert written == [page, tmp_path / "figures" / "luma-curve.svg"]
    write(page, FINDING, "freshrank evaluate --suite luma")
    assert page.read_text() == text


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "model.md"
    page.write_text("# Model\n")
    with pytest.raises(ServingError, match="expected a line <!-- evaluate luma -->"):
        write(page, FINDING, "freshrank evaluate")
    assert page.read_text() == "# Model\n"


@pytest.mark.parametrize(
    "figure", [*FINDING.figures, Bars("luma", "Bars", "NDCG@10", FINDING.rows[:3], "A row each")], ids=["curve", "bars"]
)
def test_a_figure_is_a_function_of_what_was_found(figure: Figure | Bars) -> None:
    drawn = draw(figure)
    assert drawn == draw(figure)
    assert b"NDCG@10" in drawn
    assert b"<dc:date>" not in drawn


def test_bars_are_named_and_curves_have_places() -> None:
    assert b">model<" in draw(Bars("luma", "Bars", "NDCG@10", FINDING.rows[:3], "A row each"))
    assert b">1 h<" in draw(FINDING.figures[0])


def small(data: Path) -> Asking:
    return Asking(data, 2, quick=True, tell=lambda stage, done, total: None)


def test_luma_has_a_row_for_every_fusion_and_modality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luma, "LEARNED_LISTS", 160)
    colours, garments = ("Black", "Red", "Purple", "White"), ("Men/Tops/Jackets", "Women/Bottoms/Shorts")
    (tmp_path / "luma").mkdir()
    rows = [
        luma_row(f"P{n}-{colour}", f"P{n}", colour, garments[n % 2], f"{20 + 3 * n}.5")
        for n in range(8)
        for colour in colours
    ]
    write_luma(tmp_path / "luma", rows)
    found = {row.name: row for row in luma.measure(replace(small(tmp_path), seeds=1)).rows}
    for form in get_args(FusionForm):
        row = found[f"image + text + price, {form}"]
        assert row.floor == found["words of the query found (BM25)"].value
        assert row.peer == found["LightGBM on words found and price"].value
        assert row.spread is not None
        assert row.spread[0] <= row.value <= row.spread[1]
        assert f"{form}, without image at serving time" in found
    for part in ("image", "text", "price"):
        assert found[f"all less {part} alone"].value == pytest.approx(
            found["image + text + price, sum"].value - found[f"{part} alone"].value
        )
    assert "what the picture brings there" in found


def test_clothing_counts_what_is_right(tmp_path: Path) -> None:
    labels = [(split, kind) for split in ("train", "validation", "test") for kind in ("hat", "dress", "dress")] * 4
    (tmp_path / "clothing_cc0").mkdir()
    write_clothing(tmp_path / "clothing_cc0", labels)
    found = {row.name: row.value for row in clothing.measure(replace(small(tmp_path), quick=False)).rows}
    assert found["the most frequent class"] == pytest.approx(2 / 3)
    assert found["nearest class mean of 8 x 8 pixels"] == 1, "hats are red, dresses are blue"
    assert found["image tower + linear classifier"] == 1
    assert found["of these, hat"] == 1


def test_a_roofline_is_the_slower_of_memory_and_arithmetic() -> None:
    machine = device.Machine(bandwidth=1e9, arithmetic=1e12)
    assert machine.rows_per_s(100, moved_bytes=10**6, operations=10**6) == pytest.approx(100 / 1e-3)
    assert machine.rows_per_s(100, moved_bytes=10**3, operations=10**12) == pytest.approx(100)


def test_work_of_a_call_is_counted() -> None:
    net, inputs = torch.nn.Linear(8, 4, bias=False), (torch.zeros(16, 8),)
    assert device.operations(net, inputs) == 2 * 16 * 8 * 4
    assert device.moved(net, inputs) == 4 * (16 * 8 + 16 * 4)


def test_nets_take_what_a_device_is_measured_with() -> None:
    nets = new_nets(DEFAULT)
    inputs = device.pictured(3, nets.product_encoder.image_size, torch.device("cpu"))
    content = nets.product_encoder(*inputs)
    assert content[:, MODALITIES.index("image")].abs().sum() > 0
    assert content[:, MODALITIES.index("video")].abs().sum() == 0
    assert nets.ranker(*device.ranked(250, torch.device("cpu"))).shape == (250,)


@pytest.fixture
def clicks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of data sets whose RankLens is the log above, longer."""
    data = SimpleNamespace(products=tuple(films()), behavior=tuple(log(shown=200)))
    monkeypatch.setattr(events_of_films, "load", lambda folder: data)
    (tmp_path / "ranklens").mkdir()
    return tmp_path


def test_ranklens_has_every_floor_and_both_models(clicks: Path) -> None:
    finding = ranklens.measure(small(clicks))
    found = {row.name: row for row in finding.rows}
    assert list(found)[:4] == ["random order", "order shown", "popularity (clicks so far)", "streaming click rate"]
    assert isinstance(finding.figures[0], Bars)
    assert found["model with position"].floor == found["streaming click rate"].value
    for told, target in (("with position", "≥ 0.6250"), ("without position", "≥ 0.6200")):
        trees = found[f"LightGBM on {len(Plain(films()).names)} plain features, {told}"]
        assert found[f"model {told}"].peer == trees.value
        assert str(found[f"model {told}"].target) == target
        assert str(found[f"model {told} less click rate"].target) == "interval > 0.0200"
        assert found[f"model {told} less LightGBM"].value == pytest.approx(found[f"model {told}"].value - trees.value)


def test_a_leak_stops_the_suite(clicks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranklens, "lists", peeking_counters)
    with pytest.raises(LeakError, match="numeric of list"):
        ranklens.measure(small(clicks))


def test_freshness_is_a_curve_by_time_and_by_events(clicks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "EVENTS", (0, 50))
    monkeypatch.setattr(freshness, "MOMENTS", {"0": 0, "1 h": 3_600_000})
    monkeypatch.setattr(freshness, "AS_TRAINED", replace(AS_TRAINED, lists_per_day=10))
    finding = freshness.measure(small(clicks))
    by_time, by_events = finding.figures
    assert isinstance(by_time, Figure)
    assert isinstance(by_events, Figure)
    assert by_time.places == ("0", "1 h")
    assert by_events.places == ("0", "50")
    fresh = [line.values[0] for line in by_events.lines]
    assert fresh == [fresh[0]] * 3, "nothing is late"
    assert len({line.values[1].mean for line in by_events.lines}) > 1
    assert [row.name for row in finding.rows[:2]] == ["Online Retail, 0 late", "Online Retail, 1 h late"]
    assert finding.rows[0].floor != finding.rows[1].floor
