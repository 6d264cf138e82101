"""Files of records: what is read, and how each bad one is told."""

import io
import json
import re
from pathlib import Path

import pytest

from feature_repo.events import Behavior, Product, ResultSet
from streams.cli import Problem
from streams.commands.input_files import PUBLISHED, REGISTERED, read_records
from streams.records import Record
from streams.settings import Limits

LIMITS = Limits()


def read(text: str, skip_bad: bool = False, types: dict[str, str] = PUBLISHED) -> tuple[list[Record], int]:
    file = io.StringIO(text)
    file.name = "records.jsonl"
    return read_records(file, types, LIMITS, skip_bad)


def test_lines_become_records() -> None:
    lines = (
        '{"type": "product", "product_id": "p1", "event_time": 5, "price": 295, "stock": null}\n'
        "\n"
        '{"type": "click", "event_id": "e1", "product_id": "p1", "event_time": 6, "position": 2}\n'
    )
    product, click = read(lines)[0]
    assert product == Product(product_id="p1", event_time=5, price=295, stock=None)
    assert click == Behavior(type="click", event_id="e1", product_id="p1", event_time=6, position=2)


def test_a_list_becomes_records() -> None:
    text = json.dumps([{"type": "product", "product_id": f"p{number}", "v": 1} for number in range(3)], indent=1)
    assert [record.product_id for record in read(text)[0] if isinstance(record, Product)] == ["p0", "p1", "p2"]


def test_the_time_is_now_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_123_456_789)
    (product,), _ = read('{"type": "product", "product_id": "p"}')
    assert product == Product(product_id="p", event_time=1_700_000_000_123)


def test_a_result_set_needs_no_type() -> None:
    text = '{"result_set_id": "r", "event_time": 1, "kind": "ads", "candidates": [["p", 0.5], ["q", 1]]}'
    (found,), _ = read(text, types=REGISTERED)
    assert found == ResultSet(result_set_id="r", event_time=1, kind="ads", candidates=[("p", 0.5), ("q", 1)])


def test_an_address_of_any_host_is_sent() -> None:
    (product,), _ = read(
        '{"type": "product", "product_id": "p", "event_time": 1, "image": "https://shop.example/a.png"}'
    )
    assert product == Product(product_id="p", event_time=1, image="https://shop.example/a.png")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[" * 100_000, "not JSON|nested too deep"),
        ("7", "expected an object, got int"),
        ("{}", "type: expected one of product, impression, click, cart, purchase, return, got None"),
        ('{"type": ["product"]}', r"type: expected one of product, .*, got \['product'\]"),
        ('{"type": "result_set"}', "type: expected one of product, .*, got 'result_set'"),
        ('{"type": "product"}', r"product_id.* \(missing_field\)"),
        ('{"type": "product", "product_id": "p", "price": "2.95"}', r"price: expected `int \| null`.* \(wrong_type\)"),
        ('{"type": "product", "product_id": "p", "price": -1}', r"price: .* \(out_of_range\)"),
        ('{"type": "product", "product_id": "p", "price": 99999999999999999999}', "nteger|out of range|too large"),
        ('{"type": "product", "product_id": "p", "event_time": 99999999999999}', r"event_time.* \(from_the_future\)"),
        ('{"type": "product", "product_id": "p", "image": "cat.png"}', r"image: .* \(bad_media\)"),
        ('{"type": "product", "product_id": "p", "image": "http://["}', r"image: .* \(media_not_allowed\)"),
        ('{"type": "click", "product_id": "p"}', r"event_id.* \(missing_field\)"),
        ('{"type": "product", "product_id": "p", "v": 2}', r"v: expected 1, got 2 \(unknown_version\)"),
    ],
)
def test_a_bad_record_is_told_by_line_and_field(capsys: pytest.CaptureFixture[str], line: str, why: str) -> None:
    good = '{"type": "product", "product_id": "good"}'
    lines = f"{good}\n{line}\n" if not line.startswith("[[") else line
    with pytest.raises(Problem) as problem:
        read(lines)
    shown = capsys.readouterr().err + problem.value.message
    assert re.search(why, shown), shown
    if lines != line:
        assert shown.startswith("line 2: ")
        assert "records.jsonl: 1 of 2 records are bad, nothing was sent" in shown


def test_bad_records_may_be_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    records, skipped = read('{"type": "product", "product_id": "p"}\nnonsense\n{"type": "cat"}', skip_bad=True)
    assert (len(records), skipped) == (1, 2)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["line 2", "line 3"]


def test_a_flood_of_bad_records_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Problem, match="100 of 100 records are bad"):
        read("x\n" * 100)
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[-1]) == (21, "and 80 more")


@pytest.mark.parametrize(("text", "skip_bad"), [("", False), ("\n\n", False), ("[]", False), ("nonsense", True)])
def test_a_file_without_records_is_a_problem(text: str, skip_bad: bool) -> None:
    with pytest.raises(Problem, match=r"there is no (good )?record in it"):
        read(text, skip_bad)


def test_what_is_not_text_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "records.bin"
    path.write_bytes(b"\xff\xfe")
    with (
        path.open(encoding="utf-8") as file,
        pytest.raises(Problem, match="not UTF-8: invalid start byte at byte 0"),
    ):
        read_records(file, PUBLISHED, LIMITS, skip_bad=True)
