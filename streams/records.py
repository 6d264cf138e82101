"""The wire: topics and the msgpack codec of everything that crosses Kafka."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgpack
import msgspec
import numpy as np
from kafka.partitioner.default import murmur2
from msgspec import Struct
from numpy.typing import NDArray

from feature_repo.events import Behavior, Bundle, Heartbeat, Product, ResultSet

CATALOG, BEHAVIOR, RESULT_SETS = "catalog", "behavior", "result-sets"
CONTENT, USER_BEHAVIOR, MODELS = "content", "user-behavior", "models"
FEATURE_CHANGES, RANKINGS, DEAD_LETTER = "feature-changes", "rankings", "dead-letter"

Record = Product | Behavior | Heartbeat | ResultSet | Bundle
Headers = Sequence[tuple[str, bytes]]
#: a partition of a topic
Place = tuple[str, int]


def partition_for(key: str, partitions: int) -> int:
    """Partition of a key as Kafka's default partitioner chooses it (murmur2 of the UTF-8 bytes)."""
    digest: int = murmur2(key.encode())
    return (digest & 0x7FFFFFFF) % partitions


def record_key(record: Record) -> bytes | None:
    """The Kafka key of a single record; None for a heartbeat, which names its partition."""
    match record:
        case Product() | Behavior():
            return record.product_id.encode()
        case ResultSet():
            return record.result_set_id.encode()
        case Bundle():
            return record.bundle.encode()
        case Heartbeat():
            return None


def as_map(record: Record) -> dict[str, Any]:
    """A record as the map that goes on the wire; absent fields stay absent."""
    fields = msgspec.structs.asdict(record)
    tagged = {"type": record.type, "v": record.v}
    defaults = {"session_id", "user_id", "result_set_id", "position", "price", "query", "context", "expires_at"}
    is_patch = isinstance(record, Product)
    for name, value in fields.items():
        if value is msgspec.UNSET or (value is None and not is_patch and name in defaults):
            continue
        tagged[name] = value
    return tagged


def encode_record(record: Record) -> bytes:
    """One record as a message value."""
    return _pack(as_map(record))


def encode_bulk(records: Iterable[Record]) -> bytes:
    """Many records as one message value (null key, explicit partition)."""
    return _pack([as_map(record) for record in records])


# --- internal topics -----------------------------------------------------------------------------------------------

ORIGIN = "origin"


def origin_headers(origin: bytes) -> Headers:
    """What a record of an internal topic was made from."""
    return ((ORIGIN, origin),)


def is_from(headers: Headers, origin: bytes) -> bool:
    """Whether a record was made from these inputs; one that does not say was written before records did."""
    return all(name != ORIGIN or value == origin for name, value in headers)


# --- feature-changes -----------------------------------------------------------------------------------------------

ROWS, CLOCK = 0, 1
_ENCODER = msgspec.msgpack.Encoder()


class Change(Struct, frozen=True, gc=False):
    """One row that changed, as the product side emits it: the blob is `feature_repo.row`'s."""

    view: str
    entity: str
    blob: bytes


def entity_hash(view_entity: str, entity: str) -> bytes:
    """8 bytes that stand for an entity, kind included ("product", "user")."""
    return blake2b(entity.encode(), digest_size=8, key=view_entity.encode()).digest()


def encode_changes(hashes: Sequence[bytes], changes: Sequence[Change]) -> bytes:
    """A message of `feature-changes`: the hashes first, then every row as a bin of its own."""
    encode = _ENCODER.encode
    return encode((ROWS, b"".join(hashes), [encode((c.view, c.entity, c.blob)) for c in changes]))


def encode_clock(times: Mapping[int, int]) -> bytes:
    """The newest heartbeats: partition of `behavior` -> event time (ms)."""
    return _pack([CLOCK, sorted(times.items())])


def decode_changes(value: bytes) -> tuple[NDArray[np.uint64], list[bytes]] | dict[int, int]:
    """Either (hashes u64[n], rows still packed) or the heartbeats."""
    kind, *rest = msgpack.unpackb(value)
    if kind == CLOCK:
        return dict(rest[0])
    hashes, rows = rest
    return np.frombuffer(hashes, dtype="<u8"), rows


def decode_change(row: bytes) -> Change:
    return Change(*msgpack.unpackb(row))


# --- content and user-behavior -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContentMessage:
    """The whole content of a product, to be encoded; media as sha256 references or addresses.

    `stamps` are those of the catalog row it was taken from, `event_time` its newest event (ms).
    """

    product_id: str
    stamps: dict[int, int]
    event_time: int
    content: dict[str, Any]


def encode_content(message: ContentMessage) -> bytes:
    return _pack([message.product_id, sorted(message.stamps.items()), message.event_time, message.content])


def decode_content(value: bytes) -> ContentMessage:
    product_id, stamps, event_time, content = msgpack.unpackb(value)
    return ContentMessage(product_id, dict(stamps), event_time, content)


class UserMessage(Struct, frozen=True, array_like=True, gc=False):
    """The events of one user in one message of `behavior`: origin partition and offset, (place, event) pairs."""

    user_id: str
    partition: int
    offset: int
    kafka_time: int
    events: tuple[tuple[int, Behavior], ...]


#: user messages go together until their message has this size
USERS_BYTES = 500_000
_USER = msgspec.msgpack.Decoder(UserMessage)
_USERS = msgspec.msgpack.Decoder(list[UserMessage])


def encode_users(messages: Iterable[UserMessage]) -> Iterator[bytes]:
    """Messages of `user-behavior`, as many as it takes: lists of what messages of `behavior` say of users."""
    portion: list[msgspec.Raw] = []
    size = 0
    for message in messages:
        packed = _ENCODER.encode(message)
        if portion and size + len(packed) > USERS_BYTES:
            yield _ENCODER.encode(portion)
            portion, size = [], 0
        portion.append(msgspec.Raw(packed))
        size += len(packed)
    if portion:
        yield _ENCODER.encode(portion)


def decode_users(value: bytes) -> list[UserMessage]:
    """What one message of `user-behavior` holds; one that was sent before they went together holds one."""
    is_one = value[0] == 0x95 and not 0x90 <= value[1] <= 0x9F
    return [_USER.decode(value)] if is_one else _USERS.decode(value)


# --- rankings ------------------------------------------------------------------------------------------------------

WRITER, VERSION = "writer", "version"
#: a version is (epoch, counter) in one integer: epoch << 32 | counter
EPOCH_BITS = 32
COUNTER_MASK = (1 << EPOCH_BITS) - 1


@dataclass(frozen=True, slots=True)
class Cause:
    """The row whose change brought a ranking about; times in ms UTC, view "" for a registration or a model."""

    view: str
    entity: str
    version: int
    event_time: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking: columns in order of rank. scores f32[n], previous_ranks i16[n] (-1 new), contributions f32[n, K]."""

    result_set_id: str
    version: int
    product_ids: tuple[str, ...]
    scores: NDArray[np.float32]
    previous_ranks: NDArray[np.int16]
    contributions: NDArray[np.float32] | None
    model_version: str
    caused_by: Cause | None
    #: view -> (youngest, oldest) age in ms by the log's clock
    feature_age_ms: dict[str, tuple[int, int]]
    scored_at: int
    published_at: int
    degraded: bool
    #: Kafka timestamp (ms) of the event that caused it, 0 when none did
    cause_kafka_time: int = 0


def encode_ranking(ranking: Ranking) -> bytes:
    cause = ranking.caused_by
    contributions = ranking.contributions
    return _pack(
        {
            "result_set_id": ranking.result_set_id,
            "version": ranking.version,
            "product_ids": ranking.product_ids,
            "scores": ranking.scores.astype("<f4", copy=False).tobytes(),
            "previous_ranks": ranking.previous_ranks.astype("<i2", copy=False).tobytes(),
            "contributions": None if contributions is None else contributions.astype("<f4", copy=False).tobytes(),
            "model_version": ranking.model_version,
            "caused_by": None if cause is None else [cause.view, cause.entity, cause.version, cause.event_time],
            "feature_age_ms": ranking.feature_age_ms,
            "scored_at": ranking.scored_at,
            "published_at": ranking.published_at,
            "degraded": ranking.degraded,
            "cause_kafka_time": ranking.cause_kafka_time,
        }
    )


def decode_ranking(value: bytes) -> Ranking:
    """The ranking of one record of `rankings`."""
    data = msgpack.unpackb(value)
    ids = tuple(data["product_ids"])
    cause = data["caused_by"]
    contributions = data["contributions"]
    return Ranking(
        result_set_id=data["result_set_id"],
        version=data["version"],
        product_ids=ids,
        scores=np.frombuffer(data["scores"], dtype="<f4"),
        previous_ranks=np.frombuffer(data["previous_ranks"], dtype="<i2"),
        contributions=None
        if contributions is None
        else np.frombuffer(contributions, dtype="<f4").reshape(len(ids), -1),
        model_version=data["model_version"],
        caused_by=None if cause is None else Cause(*cause),
        feature_age_ms={view: (ages[0], ages[1]) for view, ages in data["feature_age_ms"].items()},
        scored_at=data["scored_at"],
        published_at=data["published_at"],
        degraded=data["degraded"],
        cause_kafka_time=data["cause_kafka_time"],
    )


def ranking_headers(writer: bytes, version: int) -> Headers:
    """Who wrote it and which version: on nulls too."""
    return ((WRITER, writer), (VERSION, version.to_bytes(8, "big")))


def decode_headers(headers: Headers) -> tuple[bytes, int]:
    """(writer, version); (b"", 0) for a record that names neither."""
    found = dict(headers)
    return found.get(WRITER, b""), int.from_bytes(found.get(VERSION, b""), "big")


def _pack(value: object) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed
