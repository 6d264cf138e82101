"""`evaluate`: what it hands on to a suite, prints, writes into files and pages, and says when something is missing."""

import json
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.model.metrics import Interval
from serving.model.suites import clothing, luma, scoring, shops
from serving.model.suites.asking import Asking
from serving.model.suites.rows import Finding, Row, Target, quality
from streams.commands.evaluate import SUITES
from tests.commands.conftest import Invoke
from tests.serving.test_suites import FINDING

MODEL = quality("model", Interval(0.61, 0.6, 0.62), floor=0.59, peer=0.605, target=Target(0.62))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asking]:
    """What suites were asked; they take no time and find FINDING or two rows."""
    found: list[Asking] = []

    def measure(asking: Asking) -> Finding:
        found.append(asking)
        asking.tell("fitting", 1, 2)
        asking.tell("fitting", 2, 2)
        return Finding("clothing", "Photographs", (Row("random order", 0.33), MODEL), ("Floor: chance.",))

    def measure_lists(asking: Asking) -> Finding:
        found.append(asking)
        return FINDING

    monkeypatch.setattr(clothing, "measure", measure)
    monkeypatch.setattr(luma, "measure", measure_lists)
    monkeypatch.setattr(shops, "measure", measure)
    return found


def test_a_suite_is_told_what_the_command_is(invoke: Invoke, asked: list[Asking], tmp_path: Path) -> None:
    assert invoke("evaluate", "--suite", "clothing", "--data", tmp_path, "--seeds", "5", "--quick").exit_code == 0
    (one,) = asked
    assert (one.data, one.seeds, one.quick, one.weights, one.triton) == (tmp_path, 5, True, None, None)


def test_data_comes_from_the_environment(
    invoke: Invoke, asked: list[Asking], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESHRANK_DATA", str(tmp_path))
    assert invoke("evaluate", "--suite", "clothing").exit_code == 0
    assert (asked[0].data, asked[0].seeds) == (tmp_path, 3)


def test_without_a_suite_the_weights_are_measured(invoke: Invoke, asked: list[Asking], tmp_path: Path) -> None:
    assert invoke("evaluate", "--weights", tmp_path).exit_code == 0
    assert (asked[0].weights, asked[0].data) == (tmp_path, None)


@pytest.mark.usefixtures("asked")
def test_a_table_has_floors_targets_and_what_was_met(invoke: Invoke) -> None:
    output = invoke("evaluate", "--suite", "clothing").stdout
    assert "random order" in output
    (line,) = (line for line in output.splitlines() if line.strip().startswith("model "))
    for cell in ("0.6100", "0.5900", "0.6050", "0.6000 – 0.6200", "≥ 0.6200", "no"):
        assert cell in line
    assert "Floor: chance." in output


@pytest.mark.usefixtures("asked")
def test_stages_are_told_as_they_begin(invoke: Invoke) -> None:
    assert invoke("evaluate", "--suite", "clothing").stderr.splitlines() == ["fitting"]


@pytest.mark.usefixtures("asked")
def test_rows_go_to_a_file(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("evaluate", "--suite", "clothing", "--json", tmp_path / "rows.json").exit_code == 0
    told = json.loads((tmp_path / "rows.json").read_text())
    assert told["suite"] == "clothing"
    assert told["rows"][1] == MODEL.to_json()


@pytest.mark.usefixtures("asked")
def test_a_page_gets_table_and_figure(invoke: Invoke, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- evaluate luma -->\n<!-- end luma -->\n")
    result = invoke("evaluate", "--suite", "luma", "--seeds", "2", "--write", page)
    assert result.exit_code == 0
    assert "Measured by `freshrank evaluate --suite luma --seeds 2`." in page.read_text()
    assert (tmp_path / "figures" / "luma-curve.svg").exists()
    assert "luma-curve.svg" in result.stderr


@pytest.mark.usefixtures("asked")
def test_quick_figures_stay_out_of_pages(invoke: Invoke, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("as it was")
    result = invoke("evaluate", "--suite", "clothing", "--quick", "--write", page)
    assert result.exit_code == 2
    assert "--write is for figures that mean something" in result.stderr
    assert page.read_text() == "as it was"


@pytest.mark.parametrize("suite", ["luma", "clothing", "ranklens"])
def test_missing_data_is_told_in_a_line(invoke: Invoke, tmp_path: Path, suite: str) -> None:
    for options in ([], ["--data", str(tmp_path)]):
        result = invoke("evaluate", "--suite", suite, *options)
        assert result.exit_code == 2
        assert "expected" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_every_suite_can_be_asked_for(invoke: Invoke) -> None:
    output = invoke("evaluate", "--help").stdout
    assert all(f"\n    {suite} " in output for suite in SUITES)


def test_speed_through_triton_needs_a_triton() -> None:
    with pytest.raises(ServingError, match="where is Triton"):
        scoring.measure(Asking(None, 1, quick=True, tell=lambda stage, done, total: None))
