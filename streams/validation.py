"""Bytes of an input topic -> records, or rejections with a reason code. Pure: no clock, no I/O, and no message raises.

The cheap checks come first and bound the work of the later ones:

    length -> well-formed (nothing allocated) -> unpacked -> type and version -> fields -> time, key, partition, media

One bad record of a bulk is rejected alone. A defect that leaves no records to tell apart rejects the whole message.

Events and patches in which nothing is unusual are read in one step by a decoder that knows their types and refuses
everything else: what it takes is what the way above would have made of it, what it refuses goes that way.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

import msgpack
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert, defstruct

from feature_repo.events import BEHAVIOR_TYPES, SCHEMA_VERSION, Behavior, Bundle, Heartbeat, Product, ResultSet
from feature_repo.features import delisting
from feature_repo.views import input_hash
from streams.records import BEHAVIOR, CATALOG, MODELS, RESULT_SETS, Record, partition_for
from streams.settings import Limits

Reason = Literal[
    "too_large",
    "too_deep",
    "not_msgpack",
    "bad_utf8",
    "not_a_map",
    "too_many_records",
    "unknown_type",
    "unknown_version",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "bad_time",
    "from_the_future",
    "key_mismatch",
    "wrong_partition",
    "too_many_candidates",
    "double_candidate",
    "bad_media",
    "media_not_allowed",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

#: `Rejected.place` of a message that is rejected as a whole
WHOLE = -1
#: an id is at most this many bytes of UTF-8
ID_BYTES = 128
#: retrieval scores reach the ranker as float32
FLOAT32_MAX = 3.4028234e38

#: models that a bundle must name
ENGINE_MODELS = ("product_encoder", "query_encoder", "ranker")
ADDRESS_LENGTH = 2048
MEDIA_FIELDS = ("image", "video", "audio")
REFERENCE = re.compile(r"sha256:[0-9a-f]{64}")
#: modality -> (offset, first bytes) of the formats that are taken
SIGNATURES: Mapping[str, tuple[tuple[int, bytes], ...]] = {
    "image": ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (8, b"WEBP"), (0, b"BM")),
    "video": ((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "), (0, b"OggS"), (0, b"GIF8"), (8, b"WEBP")),
    "audio": (
        (8, b"WAVE"),
        (0, b"fLaC"),
        (0, b"OggS"),
        (0, b"ID3"),
        (0, b"\xff\xfb"),
        (0, b"\xff\xf3"),
        (0, b"\xff\xf2"),
        (0, b"\xff\xf1"),
        (0, b"\xff\xf9"),
        (4, b"ftyp"),
    ),
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """One bad record: its place in the message (`WHOLE` for all of it), the reason code, which field and why."""

    place: int
    reason: Reason
    text: str


class Decoded(Struct, gc=False):
    """What a message holds: (place, record) pairs and rejections. `count` = both together."""

    records: list[tuple[int, Record]] = []
    rejected: list[Rejected] = []
    unknown_fields: int = 0
    count: int = 0


class Arrival(Struct, frozen=True):
    """How a message came: what its records are judged against."""

    key: bytes | None
    kafka_time: int
    partition: int
    partitions: int
    limits: Limits
    media_hosts: Sequence[str]


class _Bad(Exception):
    """A record to reject; never leaves this module."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class _Items:
    """The unpacked records of a message; a `_Bad` stands for one that could not be unpacked."""

    bulk: bool
    content: Sequence[Any]


#: a map and how it came -> the record and the key it should have
_Reader = Callable[[dict[str, Any], Arrival], tuple[Any, bytes | None]]
#: type -> (known fields, reader)
_Readers = Mapping[str, tuple[frozenset[str], _Reader]]


def decode(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    *,
    kafka_time: int,
    partition: int,
    partitions: int,
    limits: Limits,
    media_hosts: Sequence[str] = (),
) -> Decoded:
    """The records of one message of `catalog`, `behavior`, `result-sets` or `models`; `kafka_time` in ms UTC.

    A null value is a delisting on `catalog` and nothing on `result-sets` (the caller closes the set of that key).
    KeyError for another topic; no message raises.
    """
    readers = _READERS[topic]
    arrival = Arrival(key, kafka_time, partition, partitions, limits, media_hosts)
    try:
        if value is None:
            return _null(topic, arrival)
        return _read_all(readers, _items(value, arrival), arrival)
    except _Bad as bad:
        return Decoded(rejected=[Rejected(WHOLE, bad.reason, bad.text)], count=1)


def split_bulk(value: bytes) -> list[bytes] | None:
    """The packed records of a well-formed bulk message; None for anything else."""
    try:
        return [bytes(raw) for raw in _RAW_LIST.decode(value)]
    except (msgspec.DecodeError, RecursionError):
        return None


def is_allowed(address: str, hosts: Sequence[str]) -> bool:
    """True for an http(s) address without credentials whose host (or host:port) is one of `hosts`."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return False
    return parts.hostname in hosts if port is None else f"{parts.hostname}:{port}" in hosts


# --- the message ---------------------------------------------------------------------------------------------------

_RAW = msgspec.msgpack.Decoder(msgspec.Raw)
_RAW_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])


def _null(topic: str, arrival: Arrival) -> Decoded:
    """What a null value says."""
    if topic == RESULT_SETS:
        return Decoded()
    if topic != CATALOG:
        raise _Bad("not_a_map", "value: expected a map or a list of maps, got null")
    key = arrival.key
    if key is None:
        raise _Bad("key_mismatch", "key: expected the product_id to delist, got none")
    try:
        product_id = key.decode()
    except UnicodeDecodeError as error:
        raise _Bad("bad_utf8", f"key: {error.reason} at byte {error.start}") from None
    if not 1 <= len(key) <= ID_BYTES:
        raise _Bad("out_of_range", f"key: expected 1 to {ID_BYTES} bytes, got {len(key)}")
    if arrival.kafka_time < 0:
        raise _Bad("bad_time", "time: expected a Kafka timestamp, the message has none")
    return Decoded(records=[(0, delisting(product_id, arrival.kafka_time))], count=1)


def _items(value: bytes, arrival: Arrival) -> _Items:
    """Unpack a message, as a whole where that goes, else record by record."""
    bulk = _is_bulk(value, arrival.limits)
    if bulk and arrival.key is not None:
        raise _Bad("key_mismatch", "key: expected none, a bulk message names its partition")
    _check_form(value)
    try:
        content = _unpack(value)
    except _Bad:
        _check_depth(_skeleton(value), arrival.limits)
        if not bulk:
            raise
        return _Items(True, [_unpack_or_bad(packed) for packed in _RAW_LIST.decode(value)])
    if not bulk and type(content) is not dict:
        raise _Bad("not_a_map", f"value: expected a map or a list of maps, got {_kind(content)}")
    return _Items(True, content) if bulk else _Items(False, (content,))


def _read_all(readers: _Readers, items: _Items, arrival: Arrival) -> Decoded:
    """Every record of a message, each judged on its own."""
    decoded = Decoded(count=len(items.content))
    for place, item in enumerate(items.content):
        try:
            record, unknown = _read(readers, item, arrival, items.bulk)
        except _Bad as bad:
            decoded.rejected.append(Rejected(place, bad.reason, bad.text))
        else:
            decoded.records.append((place, record))
            decoded.unknown_fields += unknown
    # the depth of known fields is bounded by their types: only what else there is needs a look
    if decoded.rejected or decoded.unknown_fields:
        _check_depth(items.content if items.bulk else items.content[0], arrival.limits)
    return decoded


def _is_bulk(value: bytes, limits: Limits) -> bool:
    """Whether the message is a list. Checks its size and the number of records that its first bytes announce."""
    if len(value) > limits.message_bytes:
        raise _Bad("too_large", f"value: expected at most {limits.message_bytes} bytes, got {len(value)}")
    first = value[0] if value else 0
    if 0x90 <= first <= 0x9F:
        count = first & 0x0F
    elif first == 0xDC:
        count = int.from_bytes(value[1:3], "big")
    elif first == 0xDD:
        count = int.from_bytes(value[1:5], "big")
    else:
        return False
    if count > limits.records:
        raise _Bad("too_many_records", f"value: expected at most {limits.records} records, got {count}")
    return True


def _check_form(value: bytes) -> None:
    """Walk the message without making an object, so that no header that lies about a length costs memory."""
    try:
        _RAW.decode(value)
    except msgspec.DecodeError as error:
        raise _Bad("not_msgpack", f"value: {error}") from None
    except RecursionError:
        raise _Bad("too_deep", "value: nested too deeply") from None


def _unpack(value: bytes | msgspec.Raw) -> Any:
    size = len(value)
    try:
        return msgpack.unpackb(
            value,
            raw=False,
            strict_map_key=True,
            ext_hook=_no_extension,
            max_array_len=size,
            max_map_len=size,
            max_str_len=size,
            max_bin_len=size,
            max_ext_len=0,
        )
    except UnicodeDecodeError as error:
        raise _Bad("bad_utf8", f"value: {error.reason} in a string") from None
    except ValueError as error:
        raise _Bad("not_msgpack", f"value: {error}") from None


def _unpack_or_bad(packed: msgspec.Raw) -> Any:
    try:
        return _unpack(packed)
    except _Bad as bad:
        return bad


def _skeleton(value: bytes) -> object:
    """The nesting of a well-formed message that `_unpack` refuses: maps as lists of their keys and values."""
    try:
        return msgpack.unpackb(
            value,
            raw=True,
            strict_map_key=False,
            object_pairs_hook=lambda pairs: [part for pair in pairs for part in pair],
            ext_hook=lambda code, data: None,
        )
    except msgpack.StackError:
        raise _Bad("too_deep", "value: nested too deeply") from None
    except ValueError:  # a timestamp that is none
        return None


def _no_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code} is not taken")


def _check_depth(value: object, limits: Limits) -> None:
    if _depth(value, limits.depth) > limits.depth:
        raise _Bad("too_deep", f"value: expected at most {limits.depth} levels of lists and maps")


def _depth(value: object, limit: int) -> int:
    """Levels of lists and maps in `value`, counted no further than limit + 1."""
    level: list[object] = [value]
    for depth in range(limit + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return depth
    return limit + 1


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values() or (None,)
    if isinstance(value, list):
        return value or (None,)
    return ()


# --- one record ----------------------------------------------------------------------------------------------------


def _read(readers: _Readers, raw: Any, arrival: Arrival, bulk: bool) -> tuple[Record, int]:
    """A record and how many of its fields are unknown."""
    if type(raw) is not dict:
        raise raw if isinstance(raw, _Bad) else _Bad("not_a_map", f"record: expected a map, got {_kind(raw)}")
    kind, version = raw.get("type"), raw.get("v")
    known = readers.get(kind) if type(kind) is str else None
    if known is None or version != SCHEMA_VERSION or type(version) is not int:
        raise _bad_tag(readers, raw)
    names, read = known
    record, key = read(raw, arrival)
    if not bulk and arrival.key != key:
        raise _Bad("key_mismatch", f"key: expected {_shown(key)}, got {_shown(arrival.key)}")
    return record, 0 if raw.keys() <= names else len(raw.keys() - names)


def _bad_tag(readers: _Readers, raw: dict[str, Any]) -> _Bad:
    """What is wrong with `type` or `v`."""
    for name, expected in (("type", str), ("v", int)):
        if name not in raw:
            return _Bad("missing_field", f"{name}: expected {expected.__name__}, it is missing")
        if type(raw[name]) is not expected:
            return _Bad("wrong_type", f"{name}: expected {expected.__name__}, got {_kind(raw[name])}")
    if raw["type"] not in readers:
        return _Bad("unknown_type", f"type: expected one of {', '.join(readers)}, got {_shown(raw['type'])}")
    return _Bad("unknown_version", f"v: expected {SCHEMA_VERSION}, got {raw['v']}")


def _product(raw: dict[str, Any], arrival: Arrival) -> tuple[Product, bytes | None]:
    checked = _convert(raw, _PRODUCT_BUT_MEDIA)
    _check_time(checked.event_time, arrival)
    _check_id("product_id", checked.product_id)
    for name in MEDIA_FIELDS:
        if raw.get(name) is not None:
            _check_media(name, raw[name], arrival.media_hosts)
    if raw.get("attributes"):
        _check_finite("attributes", raw["attributes"].values())
    # strict conversion changes no value, so the map itself holds the arguments
    fields = raw if raw.keys() <= _PRODUCT_NAMES else {n: v for n, v in raw.items() if n in _PRODUCT_NAMES}
    return Product(**fields), checked.product_id.encode()


def _behavior(raw: dict[str, Any], arrival: Arrival) -> tuple[Behavior, bytes | None]:
    event: Behavior = _convert(raw, Behavior)
    _check_time(event.event_time, arrival)
    _check_id("product_id", event.product_id)
    _check_id("event_id", event.event_id)
    for name, value in (
        ("user_id", event.user_id),
        ("session_id", event.session_id),
        ("result_set_id", event.result_set_id),
    ):
        if value is not None:
            _check_id(name, value)
    return event, event.product_id.encode()


def _heartbeat(raw: dict[str, Any], arrival: Arrival) -> tuple[Heartbeat, bytes | None]:
    beat: Heartbeat = _convert(raw, Heartbeat)
    _check_time(beat.event_time, arrival)
    return beat, None


def _result_set(raw: dict[str, Any], arrival: Arrival) -> tuple[ResultSet, bytes | None]:
    listed, most = raw.get("candidates"), arrival.limits.candidates
    if type(listed) is list and len(listed) > most:
        raise _Bad("too_many_candidates", f"candidates: expected at most {most}, got {len(listed)}")
    found: ResultSet = _convert(raw, ResultSet)
    _check_time(found.event_time, arrival)
    _check_id("result_set_id", found.result_set_id)
    if found.user_id is not None:
        _check_id("user_id", found.user_id)
    if found.context:
        _check_finite("context", found.context.values())
    _check_candidates(found.candidates)
    owner = partition_for(found.result_set_id, arrival.partitions)
    if owner != arrival.partition:
        raise _Bad("wrong_partition", f"partition: expected {owner} for this result_set_id, got {arrival.partition}")
    return found, found.result_set_id.encode()


def _bundle(raw: dict[str, Any], arrival: Arrival) -> tuple[Bundle, bytes | None]:
    bundle: Bundle = _convert(raw, Bundle)
    _check_id("bundle", bundle.bundle)
    _check_finite("price_weight", (bundle.price_weight,))
    _check_finite("metrics", bundle.metrics.values())
    for model in ENGINE_MODELS:
        if model not in bundle.models:
            raise _Bad("missing_field", f"models.{model}: expected a version, got none")
    if bundle.input_hash != input_hash():
        # weights for another order of the inputs would score nonsense without an error
        raise _Bad("out_of_range", f"input_hash: expected {input_hash()}, this engine's, got {bundle.input_hash!r:.40}")
    return bundle, bundle.bundle.encode()


# --- rules of fields -----------------------------------------------------------------------------------------------


def _convert(raw: dict[str, Any], struct: type[Any]) -> Any:
    try:
        return convert(raw, struct, strict=True)
    except ValidationError as error:
        raise _explain(str(error)) from None


#: "Expected `int`, got `str`"; "Expected `array` of length 2, got 3": not "Expected `int` >= 0"
_WRONG_TYPE = re.compile(r"Expected `[^`]+`(?: of length \d+)?(?:, got .*)?")


def _explain(message: str) -> _Bad:
    """The reason for a message of msgspec: "<what> - at `$.<field>`"."""
    what, _, path = message.partition(" - at ")
    name = path.replace("`", "").replace("$.", "").replace("$", "record") or "record"
    # an unknown value of an enumeration is quoted whole
    text = f"{name}: {what[:1].lower()}{what[1:300]}"
    if what.startswith("Object missing required field"):
        return _Bad("missing_field", text)
    if name == "event_time":
        return _Bad("bad_time", text)
    return _Bad("wrong_type" if _WRONG_TYPE.fullmatch(what) else "out_of_range", text)


def _check_time(event_time: int, arrival: Arrival) -> None:
    latest = arrival.kafka_time + arrival.limits.future_ms
    if event_time > latest:
        raise _Bad("from_the_future", f"event_time: expected at most {latest}, got {event_time}")


def _check_id(name: str, value: str) -> None:
    """The types bound the characters; what counts is bytes."""
    if not value.isascii() and len(value.encode()) > ID_BYTES:
        raise _Bad("out_of_range", f"{name}: expected at most {ID_BYTES} bytes of UTF-8, got {len(value.encode())}")


def _check_finite(name: str, values: Iterable[object]) -> None:
    for value in values:
        if type(value) is float and not isfinite(value):
            raise _Bad("out_of_range", f"{name}: expected finite numbers, got {value}")


def _check_candidates(candidates: Sequence[tuple[str, float]]) -> None:
    seen = set()
    for product_id, score in candidates:
        _check_id("candidates", product_id)
        # written so that a NaN fails it too
        if not -FLOAT32_MAX <= score <= FLOAT32_MAX:
            raise _Bad("out_of_range", f"candidates: expected scores that fit float32, got {score}")
        if product_id in seen:
            raise _Bad("double_candidate", f"candidates: expected each product once, got {_shown(product_id)} again")
        seen.add(product_id)


def _check_media(name: str, media: object, hosts: Sequence[str]) -> None:
    if isinstance(media, bytes):
        if not any(media.startswith(mark, offset) for offset, mark in SIGNATURES[name]):
            raise _Bad("bad_media", f"{name}: expected bytes of a known format, got {len(media)} others")
    elif not isinstance(media, str):
        raise _Bad("wrong_type", f"{name}: expected bytes, a reference or an address, got {_kind(media)}")
    elif media.startswith("sha256:"):
        if not REFERENCE.fullmatch(media):
            raise _Bad("bad_media", f"{name}: expected sha256: and 64 hexadecimal digits, got {_shown(media)}")
    elif "://" not in media:
        raise _Bad("bad_media", f"{name}: expected bytes, a reference or an address, got {_shown(media)}")
    elif len(media) > ADDRESS_LENGTH:
        raise _Bad("bad_media", f"{name}: expected an address of at most {ADDRESS_LENGTH} characters")
    elif not is_allowed(media, hosts):
        raise _Bad("media_not_allowed", f"{name}: expected an address on an allowed host, got {_shown(media)}")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _shown(value: object) -> str:
    """What came, short enough for a header."""
    return "none" if value is None else f"{value!r:.80}"


# --- the usual, in one step ----------------------------------------------------------------------------------------


class _WireBehavior(Behavior, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An event as it stands on the wire, and nothing besides."""

    v: Literal[1]


class _WireProduct(Product, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A patch as it stands on the wire, and nothing besides: no media, which want a look."""

    type: Literal["product"]
    v: Literal[1]
    #: what it is made of is looked at by hand: a pattern takes longer than all the rest of a patch
    currency: Annotated[str, Meta(min_length=3, max_length=3)] | None | UnsetType = UNSET
    image: None | UnsetType = UNSET
    video: None | UnsetType = UNSET
    audio: None | UnsetType = UNSET


_SINGLE: Mapping[str, msgspec.msgpack.Decoder[Any]] = {
    BEHAVIOR: msgspec.msgpack.Decoder(_WireBehavior),
    CATALOG: msgspec.msgpack.Decoder(_WireProduct),
}
_BULK: Mapping[str, msgspec.msgpack.Decoder[Any]] = {
    BEHAVIOR: msgspec.msgpack.Decoder(list[_WireBehavior]),
    CATALOG: msgspec.msgpack.Decoder(list[_WireProduct]),
}


def decode_usual(
    topic: str, key: bytes | None, value: bytes | None, kafka_time: int, limits: Limits
) -> list[tuple[int, Record]] | None:
    """The records of a message of `catalog` or `behavior` in which nothing is unusual, None for any other."""
    if value is None or topic not in _SINGLE:
        return None
    try:
        if key is None:
            found: Sequence[Any] = _BULK[topic].decode(value) if _is_bulk(value, limits) else ()
        elif len(value) <= limits.message_bytes:
            found = (_SINGLE[topic].decode(value),)
            if found[0].product_id.encode() != key:
                return None
        else:
            return None
    except (_Bad, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    usual = _usual_events if topic == BEHAVIOR else _usual_patches
    return usual(found, kafka_time + limits.future_ms) or None


def _usual_events(found: Sequence[Behavior], latest: int) -> list[tuple[int, Record]] | None:
    for event in found:
        user_id, session_id, result_set_id = event.user_id, event.session_id, event.result_set_id
        if event.event_time > latest or not (
            event.event_id.isascii()
            and event.product_id.isascii()
            and (user_id is None or user_id.isascii())
            and (session_id is None or session_id.isascii())
            and (result_set_id is None or result_set_id.isascii())
        ):
            return None
    return list(enumerate(found))


def _usual_patches(found: Sequence[Product], latest: int) -> list[tuple[int, Record]] | None:
    for patch in found:
        if patch.event_time > latest or not patch.product_id.isascii() or patch.attributes:
            return None
        currency = patch.currency
        if isinstance(currency, str) and not (currency.isascii() and currency.isalpha() and currency.isupper()):
            return None
    return list(enumerate(found))


# --- which topic takes which record --------------------------------------------------------------------------------


def _names(struct: type[Struct]) -> frozenset[str]:
    return frozenset(struct.__struct_fields__)


def _without_media() -> type[Any]:
    """`Product` but for its media: msgspec converts to no union of bytes and str, they are checked by hand."""
    hints = get_type_hints(Product, include_extras=True)
    fields = [f for f in msgspec.structs.fields(Product) if f.name not in MEDIA_FIELDS]
    return defstruct("Product", [(f.name, hints[f.name], f.default) for f in fields], kw_only=True)


_PRODUCT_NAMES = _names(Product)
_PRODUCT_BUT_MEDIA = _without_media()
_READERS: Mapping[str, _Readers] = {
    CATALOG: {"product": (_PRODUCT_NAMES, _product)},
    BEHAVIOR: {
        **{kind: (_names(Behavior), _behavior) for kind in BEHAVIOR_TYPES},
        "heartbeat": (_names(Heartbeat), _heartbeat),
    },
    RESULT_SETS: {"result_set": (_names(ResultSet), _result_set)},
    MODELS: {"bundle": (_names(Bundle), _bundle)},
}
