"""RankLens: films shown to people in lists, and their clicks (Metarank, CC BY-SA 4.0), as products and behaviour.

A folder with events.jsonl.gz, Metarank's events a line: `item` (fields by name), `ranking` (24 items shown to a user)
and `interaction` (a click, five seconds after its ranking). Times are simulated, all within twenty minutes.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from feature_repo.events import Attribute, Behavior, Product
from serving.errors import ServingError

EVENTS: Final = "events.jsonl.gz"
#: what is a list of words in a film, and so one attribute of several values
WORDS: Final = ("genres", "tags", "actors")
NAMES: Final = ("director", "writer")
NUMBERS: Final = ("popularity", "vote_avg", "vote_cnt", "budget", "runtime")
#: seconds since 1970 of the first showing
RELEASED: Final = "release_date"

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class RankLens:
    """The films, those without a record by their id alone, and all impressions and clicks in order of time.

    An impression has its position from 0; `result_set_id` is the ranking, `session_id` and `user_id` are the person.
    """

    products: tuple[Product, ...]
    behavior: tuple[Behavior, ...]


def load(folder: Path) -> RankLens:
    """All events. Raises ServingError that names file, line and field."""
    films: dict[str, Product] = {}
    behavior: list[Behavior] = []
    for line in _lines(folder / EVENTS):
        match line.text("event"):
            case "item":
                film = _film(line)
                films[film.product_id] = film
            case "ranking":
                behavior += _impressions(line)
            case "interaction":
                behavior.append(_click(line))
            case other:
                line.fail("event", "item, ranking or interaction", repr(other))
    behavior.sort(key=lambda event: event.event_time)
    for event in behavior:
        if event.product_id not in films:
            films[event.product_id] = Product(product_id=event.product_id, event_time=event.event_time)
    return RankLens(tuple(films.values()), tuple(behavior))


@dataclass(frozen=True, slots=True)
class _Line:
    """One event; `number` counts from 1."""

    path: Path
    number: int
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        return self._one(name, "a text", lambda value: value if isinstance(value, str) and value else None)

    def time_ms(self) -> int:
        return self._one("timestamp", "milliseconds", lambda value: int(value) if str(value).isdecimal() else None)

    def list_of(self, name: str) -> list[Any]:
        return self._one(name, "a list", lambda value: value if isinstance(value, list) else None)

    def _one(self, name: str, expected: str, read: Callable[[Any], Value | None]) -> Value:
        found = read(self.fields.get(name))
        if found is None:
            self.fail(name, expected, repr(self.fields.get(name, "nothing")))
        return found

    def fail(self, name: str, expected: str, got: str) -> NoReturn:
        raise ServingError(f"{self.path}: line {self.number}: {name}: expected {expected}, got {got}")


def _lines(path: Path) -> Iterator[_Line]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                yield _Line(path, number, _object(path, number, text))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ServingError(f"{path}: cannot be read: {error}") from error


def _object(path: Path, number: int, text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ServingError(f"{path}: line {number}: expected a JSON object: {error}") from error
    if not isinstance(found, dict):
        raise ServingError(f"{path}: line {number}: expected a JSON object, got {type(found).__name__}")
    return found


def _film(line: _Line) -> Product:
    fields: dict[str, Any] = {}
    for place, field in enumerate(line.list_of("fields")):
        if not isinstance(field, dict) or not isinstance(field.get("name"), str) or "value" not in field:
            line.fail(f"fields[{place}]", "an object of name and value", repr(field))
        fields[field["name"]] = field["value"]
    attributes: dict[str, Attribute] = {}
    for name in WORDS:
        words = fields.get(name) or []
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            line.fail(f"fields: {name}", "a list of texts", repr(words))
        if words:
            attributes[name] = "|".join(word.replace("|", " ") for word in words)
    for name in NAMES:
        if fields.get(name):
            attributes[name] = _field(line, fields, name, str, "a text")
    for name in (*NUMBERS, RELEASED):
        if fields.get(name) is not None:
            attributes[name] = float(_field(line, fields, name, (int, float), "a number"))
    released = attributes.pop(RELEASED, None)
    if isinstance(released, float):
        attributes["year"] = datetime.fromtimestamp(released, UTC).year
    return Product(
        product_id=line.text("item"),
        event_time=line.time_ms(),
        title=_field(line, fields, "title", str, "a text"),
        description=_field(line, {"description": "", **fields}, "description", str, "a text"),
        attributes=attributes,
    )


def _field(line: _Line, fields: Mapping[str, Any], name: str, kind: Any, expected: str) -> Any:
    value = fields.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        line.fail(f"fields: {name}", expected, repr(value))
    return value


def _impressions(line: _Line) -> Iterator[Behavior]:
    ranking, user, time_ms = line.text("id"), line.text("user"), line.time_ms()
    for position, item in enumerate(line.list_of("items")):
        if not isinstance(item, dict) or not isinstance(item.get("id"), str):
            line.fail(f"items[{position}]", "an object with an id", repr(item))
        yield Behavior(
            type="impression",
            event_id=f"{ranking}:{position}",
            product_id=item["id"],
            event_time=time_ms,
            user_id=user,
            session_id=line.text("session"),
            result_set_id=ranking,
            position=position,
        )


def _click(line: _Line) -> Behavior:
    if line.text("type") != "click":
        line.fail("type", "click", repr(line.text("type")))
    return Behavior(
        type="click",
        event_id=line.text("id"),
        product_id=line.text("item"),
        event_time=line.time_ms(),
        user_id=line.text("user"),
        session_id=line.text("session"),
        result_set_id=line.text("ranking"),
    )
