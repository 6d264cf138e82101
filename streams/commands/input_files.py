"""Files of JSON records for `publish` and `register`: checked by the engine's own rules, told by line and field."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

import click
import msgpack

from feature_repo.events import BEHAVIOR_TYPES, SCHEMA_VERSION
from streams.cli import Problem
from streams.records import BEHAVIOR, CATALOG, RESULT_SETS, Record
from streams.settings import Limits
from streams.validation import MEDIA_FIELDS, decode

#: type -> topic, of what each verb takes
PUBLISHED = {"product": CATALOG, **dict.fromkeys(BEHAVIOR_TYPES, BEHAVIOR)}
REGISTERED = {"result_set": RESULT_SETS}
#: bad records that are told of one by one
TOLD = 20


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that the engine would reject: `place` says where it stands in the file."""

    place: str
    why: str


def read_records(file: IO[str], types: Mapping[str, str], limits: Limits, skip_bad: bool) -> tuple[list[Record], int]:
    """The records of a file and how many bad ones were skipped; Problem when there are some and `skip_bad` is not set.

    Each bad one is told on stderr. Where they are missing, `v` and `event_time` (now) are filled in, and the type where
    there is but one.
    """
    now_ms = time.time_ns() // 1_000_000
    found = [_checked(place, raw, types, limits, now_ms) for place, raw in _raw_records(file)]
    records = [one for one in found if not isinstance(one, Bad)]
    bad = [one for one in found if isinstance(one, Bad)]
    for one in bad[:TOLD]:
        click.echo(f"{one.place}: {one.why}", err=True)
    if len(bad) > TOLD:
        click.echo(f"and {len(bad) - TOLD} more", err=True)
    if bad and not skip_bad:
        raise Problem(f"{file.name}: {len(bad)} of {len(found)} records are bad, nothing was sent (see --skip-bad)")
    if not records:
        raise Problem(f"{file.name}: there is no {'good ' if bad else ''}record in it")
    return records, len(bad)


def _raw_records(file: IO[str]) -> Iterator[tuple[str, object]]:
    """(place, JSON value or Bad): of a JSON list, or of a value on each line."""
    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise Problem(f"{file.name}: not UTF-8: {error.reason} at byte {error.start}") from None
    if text.lstrip().startswith("["):
        listed = _parsed(file.name, text)
        if not isinstance(listed, list):
            raise Problem(f"{listed.place}: {listed.why}")
        yield from ((f"record {number}", raw) for number, raw in enumerate(listed, 1))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"line {number}", _parsed(f"line {number}", line)


def _parsed(place: str, text: str) -> Any:
    """The JSON value, or what is Bad about it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return Bad(place, f"not JSON: {error}")
    except RecursionError:
        return Bad(place, "nested too deep")


def _checked(place: str, raw: object, types: Mapping[str, str], limits: Limits, now_ms: int) -> Record | Bad:
    if isinstance(raw, Bad):
        return raw
    if not isinstance(raw, dict):
        return Bad(place, f"expected an object, got {type(raw).__name__}")
    filled = {
        "v": SCHEMA_VERSION,
        "event_time": now_ms,
        **({"type": next(iter(types))} if len(types) == 1 else {}),
        **raw,
    }
    kind = filled.get("type")
    if not isinstance(kind, str) or kind not in types:
        return Bad(place, f"type: expected one of {', '.join(types)}, got {kind!r}")
    try:
        packed = msgpack.packb([filled])
    except (ValueError, OverflowError, TypeError) as error:
        return Bad(place, str(error))
    hosts = list(_hosts(filled.get(name) for name in MEDIA_FIELDS))
    decoded = decode(
        types[kind], None, packed, kafka_time=now_ms, partition=0, partitions=1, limits=limits, media_hosts=hosts
    )
    if decoded.rejected:
        return Bad(place, f"{decoded.rejected[0].text} ({decoded.rejected[0].reason})")
    return decoded.records[0][1]


def _hosts(media: Iterable[object]) -> Iterator[str]:
    """Of every address: which hosts are allowed is the engine's to say, and only it knows."""
    for address in media:
        if not isinstance(address, str):
            continue
        try:
            parts = urlsplit(address)
        except ValueError:  # the check will say so
            continue
        yield from (parts.netloc, parts.hostname or "")
