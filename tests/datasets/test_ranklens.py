"""RankLens as events: films, impressions at their positions, clicks; what is wrong is told by line and field."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from serving.datasets.ranklens import EVENTS, load
from serving.errors import ServingError

FILM: dict[str, Any] = {
    "event": "item",
    "id": "i1",
    "item": "3",
    "timestamp": "1000",
    "fields": [
        {"name": "title", "value": "Grumpier Old Men"},
        {"name": "genres", "value": ["comedy", "romance"]},
        {"name": "director", "value": "howard deutch"},
        {"name": "runtime", "value": 101.0},
        {"name": "release_date", "value": 819590400.0},
    ],
}
SHOWN: dict[str, Any] = {
    "event": "ranking",
    "id": "r1",
    "timestamp": "2000",
    "user": "ann",
    "session": "s",
    "items": [{"id": "3"}, {"id": "4"}],
}
CLICK: dict[str, Any] = {
    "event": "interaction",
    "type": "click",
    "id": "c1",
    "item": "4",
    "ranking": "r1",
    "timestamp": "7000",
    "user": "ann",
    "session": "s",
}


def folder_of(folder: Path, *events: object) -> Path:
    with gzip.open(folder / EVENTS, "wt", encoding="utf-8") as lines:
        lines.writelines(f"{event if isinstance(event, str) else json.dumps(event)}\n" for event in events)
    return folder


def test_events_in_order_of_time(tmp_path: Path) -> None:
    found = load(folder_of(tmp_path, CLICK, FILM, SHOWN))
    film, unknown = found.products
    assert (film.product_id, film.title, film.description) == ("3", "Grumpier Old Men", "")
    assert film.attributes == {"genres": "comedy|romance", "director": "howard deutch", "runtime": 101.0, "year": 1995}
    assert unknown.product_id == "4", "shown without a record"
    assert [(e.type, e.product_id, e.position, e.event_time) for e in found.behavior] == [
        ("impression", "3", 0, 2000),
        ("impression", "4", 1, 2000),
        ("click", "4", None, 7000),
    ]
    assert {e.result_set_id for e in found.behavior} == {"r1"}
    assert {e.user_id for e in found.behavior} == {"ann"}
    assert len({e.event_id for e in found.behavior}) == 3


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("{", "line 2: expected a JSON object"),
        ("[]", "line 2: expected a JSON object, got list"),
        ({"event": "feedback"}, "line 2: event: expected item, ranking or interaction, got 'feedback'"),
        ({**SHOWN, "timestamp": "soon"}, "line 2: timestamp: expected milliseconds, got 'soon'"),
        ({**SHOWN, "items": [{"id": "3"}, {}]}, "line 2: items[1]: expected an object with an id, got {}"),
        ({**SHOWN, "user": None}, "line 2: user: expected a text, got None"),
        ({**CLICK, "type": "like"}, "line 2: type: expected click, got 'like'"),
        ({**FILM, "fields": [3]}, "line 2: fields[0]: expected an object of name and value, got 3"),
        ({**FILM, "fields": []}, "line 2: fields: title: expected a text, got None"),
        (
            {**FILM, "fields": [*FILM["fields"], {"name": "tags", "value": "old"}]},
            "line 2: fields: tags: expected a list of texts, got 'old'",
        ),
        (
            {**FILM, "fields": [*FILM["fields"], {"name": "budget", "value": "much"}]},
            "line 2: fields: budget: expected a number, got 'much'",
        ),
    ],
)
def test_what_is_wrong_is_told_by_line_and_field(tmp_path: Path, broken: object, told: str) -> None:
    with pytest.raises(ServingError) as caught:
        load(folder_of(tmp_path, FILM, broken))
    assert str(caught.value).startswith(f"{tmp_path / EVENTS}: {told}")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / EVENTS).write_bytes(b"no gzip")
    with pytest.raises(ServingError, match="cannot be read"):
        load(tmp_path)
