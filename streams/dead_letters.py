"""The topic `dead-letter`: what was rejected, as it came, with where it stood and why in its headers."""

import base64
import logging
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgpack
from kafka import TopicPartition

from streams.records import DEAD_LETTER, Headers
from streams.settings import Limits
from streams.topics import DEAD_LETTER_BYTES, ENVELOPE_BYTES
from streams.validation import WHOLE, Rejected, split_bulk

if TYPE_CHECKING:
    from streams.client import Connection

log = logging.getLogger(__name__)

#: key and headers stay well within `topics.ENVELOPE_BYTES`
KEY_BYTES = 4096
TEXT_BYTES = 1024
POLL_MS = 100


def dead_letter(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    rejected: Rejected,
    limits: Limits | None = None,
) -> tuple[bytes | None, bytes | None, Headers]:
    """(key, value, headers) of the message that tells of a rejection: the bytes of the one bad record of a bulk,
    else those of the message. What the topic cannot take is cut, its full length in `truncated` or `truncated_key`.
    """
    bad = _bad_bytes(value, rejected.place)
    headers = [
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
        ("place", str(rejected.place).encode()),
        ("reason", rejected.reason.encode()),
        ("text", _cut_text(rejected.text)),
    ]
    most = (limits or Limits()).message_bytes + DEAD_LETTER_BYTES - ENVELOPE_BYTES
    if bad is not None and len(bad) > most:
        headers.append(("truncated", str(len(bad)).encode()))
        bad = bad[:most]
    if key is not None and len(key) > KEY_BYTES:
        headers.append(("truncated_key", str(len(key)).encode()))
        key = key[:KEY_BYTES]
    if key is None and bad is None:  # the clients of Kafka refuse to send neither
        headers.append(("null", b""))
        bad = b""
    return key, bad, headers


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of `dead-letter`: `topic`, `partition`, `offset` and `place` say where it had been.

    `truncated` and `truncated_key`: the full length in bytes of what was cut, else None. `buried_at` in ms UTC.
    """

    topic: str
    partition: int
    offset: int
    place: int
    reason: str
    text: str
    key: bytes | None
    value: bytes | None
    truncated: int | None
    truncated_key: int | None
    buried_at: int

    def to_json(self) -> dict[str, Any]:
        """For programs: bytes in base64, and what the value says where it is msgpack."""
        fields = asdict(self)
        for name in ("key", "value"):
            raw = fields.pop(name)
            fields[f"{name}_base64"] = None if raw is None else base64.b64encode(raw).decode()
        return {**fields, "content": _readable(self.value)}


def decode_dead_letter(key: bytes | None, value: bytes | None, headers: Headers, buried_at: int) -> DeadLetter:
    """A message of `dead-letter`; KeyError or ValueError for one that none of our workers wrote."""
    found = dict(headers)
    return DeadLetter(
        topic=found["topic"].decode(),
        partition=int(found["partition"]),
        offset=int(found["offset"]),
        place=int(found["place"]),
        reason=found["reason"].decode(),
        text=found["text"].decode(),
        key=key,
        value=None if "null" in found else value,
        truncated=int(found["truncated"]) if "truncated" in found else None,
        truncated_key=int(found["truncated_key"]) if "truncated_key" in found else None,
        buried_at=buried_at,
    )


def read(
    connection: "Connection",
    *,
    reasons: Collection[str] = (),
    topics: Collection[str] = (),
    follow: bool = False,
) -> Iterator[DeadLetter]:
    """The dead letters so far, oldest first, of these reasons and input topics (none given: of all).

    What others wrote to the topic is passed over with a warning. `follow` goes on for ever. Raises the errors of
    `connection.consumer()`.
    """
    consumer = connection.consumer()
    try:
        partitions = sorted(consumer.partitions_for_topic(DEAD_LETTER) or ())
        places = [TopicPartition(DEAD_LETTER, partition) for partition in partitions]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        while follow or not _caught_up(consumer, ends):
            for messages in consumer.poll(timeout_ms=POLL_MS).values():
                for message in messages:
                    try:
                        letter = decode_dead_letter(message.key, message.value, message.headers, message.timestamp)
                    except (KeyError, ValueError) as error:
                        log.warning("dead letter %s:%s is not a worker's: %r", message.partition, message.offset, error)
                        continue
                    if (not reasons or letter.reason in reasons) and (not topics or letter.topic in topics):
                        yield letter
    finally:
        consumer.close(autocommit=False)


def _caught_up(consumer: Any, ends: dict[TopicPartition, int]) -> bool:
    # Tansu's end is that of the last batch's first record; the high watermark of the fetch that reaches it is right
    return all(consumer.position(place) >= max(end, consumer.highwater(place) or 0) for place, end in ends.items())


def _bad_bytes(value: bytes | None, place: int) -> bytes | None:
    if value is None or place == WHOLE:
        return value
    records = _split(value)
    return value if records is None else records[place]


@lru_cache(maxsize=1)
def _split(value: bytes) -> list[bytes] | None:
    """Remembered, since a bulk may hold ten thousand bad records."""
    return split_bulk(value)


def _cut_text(text: str) -> bytes:
    """At most `TEXT_BYTES`, cut between characters."""
    return text.encode()[:TEXT_BYTES].decode(errors="ignore").encode()


def _readable(value: bytes | None) -> Any:
    """The unpacked value for a human's eyes; None when it is not msgpack."""
    if value is None:
        return None
    try:
        return _as_json(msgpack.unpackb(value, raw=False, unicode_errors="replace", max_ext_len=0))
    except (ValueError, RecursionError, msgpack.UnpackException):
        return None


def _as_json(value: object) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, float) and value - value != 0:  # NaN and the infinities are not JSON
        return str(value)
    return f"{len(value)} bytes" if isinstance(value, bytes) else value
