"""What to learn from, how long and where: a TOML file, what is said over it, and the whole as TOML again.

[train]   epochs, seed, data ...      TrainConfig
[model]   the form of the model       serving.model.config.ModelConfig
[log]     lists made of a shop's log  LogConfig
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from feature_repo.views import DAY_MS
from serving.errors import ServingError
from serving.model.config import DEFAULT, ModelConfig, config_of

Count = Annotated[int, Meta(ge=0)]
Some = Annotated[int, Meta(ge=1)]


class BadConfig(ServingError):
    """A configuration that cannot be: names the field and what was expected."""


@dataclass(frozen=True)
class LogConfig:
    """How lists are made of a shop's own log."""

    #: an event is known to the features this long after it happened, ms
    visible_after_ms: Count = 5_000
    #: and not before it arrived in Kafka; for a log that came as things happened, not for one that was imported
    by_arrival: bool = False
    #: what is done with a product of a list counts for so long, ms
    horizon_ms: Some = DAY_MS
    #: share of the last lists that the report is measured on
    tested: Annotated[float, Meta(gt=0, lt=1)] = 0.2


@dataclass(frozen=True)
class TrainConfig:
    """What to learn from and how long. The same configuration gives the same weights on the same machine."""

    #: folder that gets one safetensors file per model
    weights: Path = Path(".freshrank/weights")
    #: an Online Retail file; None: the project's slice
    data: Path | None = None
    #: the project's shops, or the log of the engine
    source: Literal["examples", "kafka"] = "examples"
    #: None: all nets
    only: Literal["ranker"] | None = None
    #: with `only`: model repository or folder of weights whose towers stay as they are; None: the committed ones
    towers: Path | None = None
    seed: Count = 7
    epochs: Some = 5
    #: end after so many epochs without a better NDCG@10 on lists held out; 0: never
    patience: Count = 3
    batch: Some = 16
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-3
    #: share of lists trained without a user vector: most shoppers are strangers
    strangers: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    #: auto: a GPU where there is one
    device: str = "auto"
    threads: Some = 1
    lists_per_day: Some = 200
    shirts: Some = 1200
    shirt_lists: Some = 1000
    picture_lists: Some = 1000
    #: films, and as many sounds; and lists of films, of sounds, and of products told by their attributes only
    media: Some = 240
    media_lists: Some = 400
    model: ModelConfig = DEFAULT
    log: LogConfig = LogConfig()


#: sections of the file that are fields of TrainConfig
SECTIONS: Final = ("model", "log")
_LIMITS: Final = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def read(file: Path, base: TrainConfig | None = None) -> TrainConfig:
    """What a TOML file says, and `base` (the defaults) where it says nothing. Raises BadConfig."""
    try:
        return parse(tomllib.loads(file.read_text("utf-8")), base)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{file} is no TOML: {error}") from error
    except BadConfig as error:
        raise BadConfig(f"{file}: {error}") from error


def parse(values: Mapping[str, Any], base: TrainConfig | None = None) -> TrainConfig:
    """A configuration from plain values by section. Raises BadConfig."""
    base = base or TrainConfig()
    _refuse_unknown("section", values, ("train", *SECTIONS))
    told = {section: _table(section, values) for section in ("train", *SECTIONS)}
    own = _checked(TrainConfig, told["train"], "train", leave_out=SECTIONS)
    _checked(ModelConfig, told["model"], "model")
    try:
        model = config_of(_over(asdict(base.model), told["model"]))
    except ValueError as error:
        raise BadConfig(str(error)) from error
    log = replace(base.log, **_checked(LogConfig, told["log"], "log"))
    return replace(base, **own, model=model, log=log)


def difference(one: TrainConfig, other: TrainConfig) -> str | None:
    """The first field in which two configurations are not the same: `train.epochs = 5, not 6`."""
    for (name, was), (_, now) in zip(_flat(as_values(one)), _flat(as_values(other)), strict=True):
        if was != now:
            return f"{name} = {_spoken(was)}, not {_spoken(now)}"
    return None


def as_values(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """By section, as `parse` reads it; None where a field has no value."""
    whole = asdict(config)
    sections = {name: whole.pop(name) for name in SECTIONS}
    own = {name: str(value) if isinstance(value, Path) else value for name, value in whole.items()}
    return {"train": own, **sections}


def to_toml(config: TrainConfig) -> str:
    """The whole configuration, as `read` reads it. Fields without a value are comments."""
    return "\n".join(line for name, table in as_values(config).items() for line in _lines(name, table))


def _lines(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{name}]"
    for key, value in table.items():
        if value is None:
            yield f"# {key} ="
        elif not isinstance(value, Mapping):
            yield f"{key} = {_toml(value)}"
    yield ""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _lines(f"{name}.{key}", value)


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # TOML's strings are JSON's, but for one character that JSON leaves as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _checked(
    kind: type[Any], values: Mapping[str, Any], prefix: str, leave_out: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values as the fields of a dataclass have them. Raises BadConfig."""
    hints = {name: hint for name, hint in get_type_hints(kind, include_extras=True).items() if name not in leave_out}
    _refuse_unknown("field", values, hints, f"{prefix}.")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            found[name] = _checked(hints[name], value, f"{prefix}.{name}")
            continue
        try:
            found[name] = msgspec.convert(value, hints[name], dec_hook=_path)
        except msgspec.ValidationError as error:
            raise BadConfig(f"{prefix}.{name} is {_spoken(value)}, expected {_expected(hints[name])}") from error
    return found


def _path(kind: type[Any], value: object) -> Path:
    if isinstance(value, str | Path) and value:
        return Path(value)
    raise ValueError("expected a path")


def _expected(hint: Any) -> str:
    """A type in words."""
    if is_dataclass(hint):
        return "a table"
    if hint is Path:
        return "a path"
    if isinstance(hint, type):
        return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a string"}[hint.__name__]
    inner = get_args(hint)
    match get_origin(hint):
        case origin if origin is Literal:
            return " or ".join(inner)
        case origin if origin is Annotated:
            limits = {name: getattr(inner[1], name) for name in _LIMITS}
            told = " and ".join(f"{_LIMITS[name]} {limit}" for name, limit in limits.items() if limit is not None)
            return f"{_expected(inner[0])} {told}"
        case origin if origin in (Union, UnionType):
            return _expected(next(one for one in inner if one is not type(None)))
        case _:
            return f"a list of {_expected(inner[0])}"


def _refuse_unknown(what: str, values: Mapping[str, Any], known: Iterator[str] | Any, prefix: str = "") -> None:
    for name in values:
        if name not in known:
            raise BadConfig(f"unknown {what} {prefix}{name}, expected {', '.join(known)}")


def _table(section: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    table = values.get(section, {})
    if not isinstance(table, Mapping):
        raise BadConfig(f"{section} is {_spoken(table)}, expected a table")
    return table


def _over(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    inner = {name: {**base[name], **value} for name, value in values.items() if isinstance(value, Mapping)}
    return {**base, **values, **inner}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _spoken(value: object) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
