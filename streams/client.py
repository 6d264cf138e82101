"""For users: publish product changes and behaviour, register result sets, read fresh rankings. Synchronous.

    with Publisher(Connection("kafka:9092")) as publisher:
        publisher.publish(Product(product_id="85123A", event_time=now_ms, price=295, currency="GBP"))

    with Registrar(connection) as registrar:
        registrar.register(ResultSet(result_set_id="q1", event_time=now_ms, kind="search", query="mug", candidates=...))

    with RankingsReader(connection) as rankings:
        for ranking in rankings.follow():
            ...

Errors say what to do:

* ClientError
  x Unreachable       no broker answers, or a topic is not there: look at the address, start the stack
  x InvalidRecord     the engine would reject it: mend the record; nothing of the call was sent
  x NotAcknowledged   the broker did not take it: send again (an event_id counts once within ten minutes)
"""

import socket
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Self

import msgpack
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from feature_repo.events import Behavior, Bundle, Heartbeat, Product, ResultSet
from streams.records import (
    BEHAVIOR,
    CATALOG,
    MODELS,
    RANKINGS,
    RESULT_SETS,
    Cause,
    Ranking,
    Record,
    as_map,
    decode_headers,
    decode_ranking,
    encode_record,
    partition_for,
)
from streams.settings import Limits, Settings
from streams.validation import decode

#: how long `follow` waits for news before it looks at its own deadline
POLL_S: Final = 0.1
#: room for key and headers beside the largest value
OVERHEAD_BYTES: Final = 65_536
#: bytes of msgpack's largest list header
LIST_HEADER_BYTES: Final = 5

Clock = Callable[[], float]


class ClientError(Exception):
    """Root of everything that the client raises."""


class Unreachable(ClientError):
    """No broker answers at the address, or the topic is not there."""


class InvalidRecord(ClientError):
    """The engine would reject the record; `reason` is the code it would give."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{text} ({reason})")
        self.reason = reason


class NotAcknowledged(ClientError):
    """The broker did not confirm messages; they may or may not be in the log."""


@dataclass(frozen=True)
class Connection:
    """Where Kafka is and how to be let in. `security` holds the security arguments of kafka-python.

    `idempotent` wants a broker that can (Apache Kafka; not Tansu). `fetch_wait_ms` is how long an answer without news
    is held back: news come at once on Apache Kafka, on Tansu only at half and at the end of it.
    """

    bootstrap: str
    security: Mapping[str, Any] = field(default_factory=dict)
    idempotent: bool = True
    timeout_s: float = 30.0
    fetch_wait_ms: int = 50

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As the FRESHRANK_ variables say."""
        return cls(settings.kafka, settings.security(), settings.kafka_kind == "apache")

    def producer(self, limits: Limits) -> Any:
        """A connected KafkaProducer; every message waits for all replicas."""
        return self._connected(
            KafkaProducer,
            acks="all",
            enable_idempotence=self.idempotent,
            max_request_size=limits.message_bytes + OVERHEAD_BYTES,
            batch_size=131_072,
            max_block_ms=round(self.timeout_s * 1000),
            delivery_timeout_ms=round(self.timeout_s * 1000),
            request_timeout_ms=round(self.timeout_s * 500),
        )

    def consumer(self) -> Any:
        """A connected KafkaConsumer without a group: it reads from where it is told and commits nothing."""
        return self._connected(
            KafkaConsumer,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self.fetch_wait_ms,
            max_poll_records=2000,
        )

    def _connected(self, kind: Callable[..., Any], **options: Any) -> Any:
        addresses = self.bootstrap.split(",")
        # kafka-python logs every refusal and leaves sockets behind when its constructor fails
        if not any(_listens(address, self.timeout_s) for address in addresses):
            raise Unreachable(f"no Kafka broker answers at {self.bootstrap}")
        try:
            return kind(
                bootstrap_servers=addresses,
                bootstrap_timeout_ms=round(self.timeout_s * 1000),
                allow_auto_create_topics=False,
                metrics_enabled=False,
                **self.security,
                **options,
            )
        except KafkaError as error:
            raise Unreachable(f"no Kafka broker answers at {self.bootstrap}: {error}") from error


class Outbox:
    """Messages on their way: a bounded number without acknowledgement, none forgotten."""

    def __init__(self, connection: Connection, limits: Limits, pending: int = 1000) -> None:
        self._connection = connection
        self._limits = limits
        self._most = pending
        self._pending: deque[Any] = deque()
        self._offsets: dict[tuple[str, int], int] = {}
        self._failures: list[KafkaError] = []
        self._partitions: dict[str, int] = {}

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; Unreachable when it is not there."""
        if topic not in self._partitions:
            try:
                found = self._producer.partitions_for(topic)
            except KafkaError as error:
                raise Unreachable(f"no topic {topic} at {self._connection.bootstrap}: {error}") from error
            if not found:
                raise Unreachable(f"no topic {topic} at {self._connection.bootstrap}")
            self._partitions[topic] = len(found)
        return self._partitions[topic]

    def send(self, topic: str, partition: int, value: bytes | None, key: bytes | None = None) -> None:
        """Hand a message over; waits while too many are on their way. NotAcknowledged tells of earlier ones, too."""
        while self._pending and (len(self._pending) >= self._most or self._pending[0].is_done):
            self._settle(self._pending.popleft())
        self._raise_failures()
        try:
            self._pending.append(self._producer.send(topic, value=value, key=key, partition=partition))
        except KafkaError as error:
            raise NotAcknowledged(f"a message to {topic} was not sent: {error}") from error

    def flush(self) -> dict[tuple[str, int], int]:
        """Wait for every acknowledgement; the newest offset by (topic, partition) of what was sent so far."""
        while self._pending:
            self._settle(self._pending.popleft())
        self._raise_failures()
        return dict(self._offsets)

    def close(self) -> None:
        """Flush and disconnect; disconnects also when the flush fails."""
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Disconnect without waiting for what is on its way."""
        if "_producer" in self.__dict__:
            self._producer.close(timeout=0)
            del self._producer

    @cached_property
    def _producer(self) -> Any:
        return self._connection.producer(self._limits)

    def _settle(self, future: Any) -> None:
        try:
            sent = future.get(self._connection.timeout_s)
        except KafkaError as error:
            self._failures.append(error)
            return
        place = (sent.topic, sent.partition)
        self._offsets[place] = max(sent.offset, self._offsets.get(place, -1))

    def _raise_failures(self) -> None:
        if self._failures:
            failures, self._failures = self._failures, []
            raise NotAcknowledged(f"{len(failures)} messages were not acknowledged, the first because: {failures[0]}")


class _Sender:
    """What publisher and registrar share: checks before sending, an outbox, and an end that waits for it."""

    def __init__(self, connection: Connection, limits: Limits | None = None, clock: Clock = time.time) -> None:
        self._limits = limits or Limits()
        self._clock = clock
        self._outbox = Outbox(connection, self._limits)

    def flush(self) -> dict[tuple[str, int], int]:
        """Wait until the broker has everything; the newest offset by (topic, partition). Raises NotAcknowledged."""
        return self._outbox.flush()

    def close(self) -> None:
        """Flush, then disconnect. Raises NotAcknowledged when something did not arrive."""
        self._outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._outbox.abandon()

    def _send_single(self, topic: str, record: Record) -> None:
        value = _encoded(record)
        name = _name(record)
        key = name.encode()
        partition = partition_for(name, self._outbox.partitions(topic))
        self._check(topic, partition, value, key, [record])
        self._outbox.send(topic, partition, value, key)

    def _check(self, topic: str, partition: int, value: bytes, key: bytes | None, records: list[Record]) -> None:
        """What the engine's validation would say. Only the engine knows which media hosts are allowed."""
        decoded = decode(
            topic,
            key,
            value,
            kafka_time=round(self._clock() * 1000),
            partition=partition,
            partitions=self._outbox.partitions(topic),
            limits=self._limits,
        )
        for rejected in decoded.rejected:
            if rejected.reason != "media_not_allowed":
                raise InvalidRecord(rejected.reason, f"{_name(records[max(rejected.place, 0)])}: {rejected.text}")


class Publisher(_Sender):
    """Publishes product changes and behaviour. Calls return once a message is on its way; `flush` waits for all."""

    def publish(self, record: Product | Behavior | Bundle) -> None:
        """One record, keyed by its id. Raises InvalidRecord, naming the field."""
        self._send_single(_topic(record), record)

    def publish_many(self, records: Iterable[Product | Behavior], per_message: int = 1000) -> int:
        """Records in bulk messages by partition, in their order; how many messages. All are checked before any is sent.

        A message is folded as one: cheaper for everybody, and as late as its last record.
        """
        messages = list(self._bulk(records, min(per_message, self._limits.records)))
        for topic, partition, value in messages:
            self._outbox.send(topic, partition, value)
        return len(messages)

    def delist(self, product_id: str) -> None:
        """The product is no longer sold, from the time on that Kafka gives the message."""
        partition = partition_for(product_id, self._outbox.partitions(CATALOG))
        self._outbox.send(CATALOG, partition, None, product_id.encode())

    def heartbeat(self, event_time: int, partitions: Iterable[int] | None = None) -> None:
        """Set the log's clock (ms UTC). Only for replays: with live workers their owners do it."""
        count = self._outbox.partitions(BEHAVIOR)
        value = encode_record(Heartbeat(event_time=event_time))
        for partition in range(count) if partitions is None else partitions:
            self._outbox.send(BEHAVIOR, partition, value)

    def _bulk(self, records: Iterable[Record], per_message: int) -> Iterator[tuple[str, int, bytes]]:
        waiting: defaultdict[tuple[str, int], _Parcel] = defaultdict(_Parcel)
        for record in records:
            topic = _topic(record)
            packed = _encoded(record)
            place = (topic, partition_for(_name(record), self._outbox.partitions(topic)))
            parcel = waiting[place]
            if parcel.records and not parcel.has_room(len(packed), per_message, self._limits.message_bytes):
                yield self._sealed(place, waiting.pop(place))
                parcel = waiting[place]
            parcel.add(record, packed)
        for place, parcel in waiting.items():
            yield self._sealed(place, parcel)

    def _sealed(self, place: tuple[str, int], parcel: "_Parcel") -> tuple[str, int, bytes]:
        topic, partition = place
        value = parcel.value()
        self._check(topic, partition, value, None, parcel.records)
        return topic, partition, value


class Registrar(_Sender):
    """Registers live result sets and closes them. Registering the same bytes again changes nothing."""

    def register(self, result_set: ResultSet) -> None:
        """Keep this set in order until it expires or is closed. Raises InvalidRecord, naming the field."""
        self._send_single(RESULT_SETS, result_set)

    def unregister(self, result_set_id: str) -> None:
        """Close the set; its ranking becomes a null."""
        partition = partition_for(result_set_id, self._outbox.partitions(RESULT_SETS))
        self._outbox.send(RESULT_SETS, partition, None, result_set_id.encode())


@dataclass(frozen=True, slots=True)
class RankedItem:
    """A product in its place. Ranks count from 1; `previous_rank` is None for one that was not in the list."""

    rank: int
    product_id: str
    score: float
    previous_rank: int | None


@dataclass(frozen=True)
class FreshRanking:
    """One published order of a result set. `degraded`: made without the model, to be replaced when it is back."""

    result_set_id: str
    version: int
    model_version: str
    caused_by: Cause | None
    #: feature view -> (youngest, oldest) age in ms by the log's clock
    feature_age_ms: Mapping[str, tuple[int, int]]
    scored_at: int
    published_at: int
    degraded: bool
    columns: Ranking

    @classmethod
    def of(cls, ranking: Ranking) -> Self:
        """From the wire's columns."""
        return cls(
            result_set_id=ranking.result_set_id,
            version=ranking.version,
            model_version=ranking.model_version,
            caused_by=ranking.caused_by,
            feature_age_ms=ranking.feature_age_ms,
            scored_at=ranking.scored_at,
            published_at=ranking.published_at,
            degraded=ranking.degraded,
            columns=ranking,
        )

    @cached_property
    def items(self) -> tuple[RankedItem, ...]:
        """The products, best first."""
        columns = zip(
            self.columns.product_ids, self.columns.scores.tolist(), self.columns.previous_ranks.tolist(), strict=True
        )
        return tuple(
            RankedItem(rank, product_id, score, previous + 1 if previous >= 0 else None)
            for rank, (product_id, score, previous) in enumerate(columns, 1)
        )


@dataclass(frozen=True, slots=True)
class ClosedSet:
    """The set expired or was closed."""

    result_set_id: str
    version: int


class RankingsReader:
    """Reads the topic `rankings`, which is a table: its last record by set is the order in force.

    A record older than one already seen for its set (a worker that did not know it was replaced) is passed over.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._versions: dict[str, int] = {}
        self._table: dict[str, FreshRanking] = {}

    def latest(self) -> dict[str, FreshRanking]:
        """The order in force of every live set, as of this call."""
        for _ in self._unread():
            pass
        return dict(self._table)

    def last(self, result_set_id: str, count: int) -> tuple[FreshRanking, ...]:
        """Up to `count` newest rankings of one set, oldest first: those that the topic has and this reader has not
        read yet. None for a set that is closed. The topic is compacted, so that it may have forgotten all but one."""
        found: deque[FreshRanking] = deque(maxlen=count)
        for news in self._unread():
            if news.result_set_id == result_set_id:
                if isinstance(news, ClosedSet):
                    found.clear()
                else:
                    found.append(news)
        return tuple(found)

    def follow(self, idle_s: float | None = None) -> Iterator[FreshRanking | ClosedSet]:
        """What stands in the topic (less what `latest` has read), then each new ranking as it comes.

        Ends after `idle_s` seconds without news; None goes on for ever.
        """
        heard = time.monotonic()
        while idle_s is None or time.monotonic() - heard < idle_s:
            for news in self._poll(POLL_S):
                yield news
                heard = time.monotonic()

    def close(self) -> None:
        """Disconnect."""
        if "_consumer" in self.__dict__:
            self._consumer.close(autocommit=False)
            del self._consumer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @cached_property
    def _consumer(self) -> Any:
        consumer = self._connection.consumer()
        partitions = consumer.partitions_for_topic(RANKINGS)
        if not partitions:
            consumer.close(autocommit=False)
            raise Unreachable(f"no topic {RANKINGS} at {self._connection.bootstrap}")
        consumer.assign([TopicPartition(RANKINGS, partition) for partition in sorted(partitions)])
        consumer.seek_to_beginning()
        return consumer

    @property
    def _places(self) -> list[TopicPartition]:
        return sorted(self._consumer.assignment())

    def _caught_up(self, ends: Mapping[TopicPartition, int]) -> bool:
        # Tansu's end is that of the last batch's first record; the high watermark of the fetch that reaches it is right
        return all(
            self._consumer.position(place) >= max(ends[place], self._consumer.highwater(place) or 0)
            for place in self._places
        )

    def _unread(self) -> Iterator[FreshRanking | ClosedSet]:
        """What this reader has not read yet, up to the end as of this call."""
        ends = self._consumer.end_offsets(self._places)
        heard = time.monotonic()
        while not self._caught_up(ends):
            for news in self._poll(POLL_S):
                heard = time.monotonic()
                yield news
            if time.monotonic() - heard > self._connection.timeout_s:
                raise Unreachable(f"{self._connection.bootstrap} stopped answering while {RANKINGS} was read")

    def _poll(self, wait_s: float) -> Iterator[FreshRanking | ClosedSet]:
        for messages in self._consumer.poll(timeout_ms=round(wait_s * 1000)).values():
            for message in messages:
                news = self._read(message)
                if news is not None:
                    yield news

    def _read(self, message: Any) -> FreshRanking | ClosedSet | None:
        result_set_id = message.key.decode()
        _, version = decode_headers(message.headers)
        if version < self._versions.get(result_set_id, 0):
            return None
        self._versions[result_set_id] = version
        if message.value is None:
            self._table.pop(result_set_id, None)
            return ClosedSet(result_set_id, version)
        ranking = FreshRanking.of(decode_ranking(message.value))
        self._table[result_set_id] = ranking
        return ranking


@dataclass(slots=True)
class _Parcel:
    """Packed records of one partition that will be one message."""

    records: list[Record] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)
    size: int = LIST_HEADER_BYTES

    def has_room(self, length: int, most_records: int, most_bytes: int) -> bool:
        return len(self.records) < most_records and self.size + length <= most_bytes

    def add(self, record: Record, packed: bytes) -> None:
        self.records.append(record)
        self.packed.append(packed)
        self.size += len(packed)

    def value(self) -> bytes:
        """The bulk message: a list of the records, each packed once."""
        return b"".join((msgpack.Packer().pack_array_header(len(self.packed)), *self.packed))


def _listens(address: str, timeout_s: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
    except (OSError, ValueError):
        return False
    return True


def _topic(record: Record) -> str:
    match record:
        case Product():
            return CATALOG
        case Behavior() | Heartbeat():
            return BEHAVIOR
        case Bundle():
            return MODELS
        case ResultSet():
            return RESULT_SETS


def _name(record: Record) -> str:
    """The id that is the record's key."""
    match record:
        case Product() | Behavior():
            place, name = "product_id", record.product_id
        case ResultSet():
            place, name = "result_set_id", record.result_set_id
        case Bundle():
            place, name = "bundle", record.bundle
        case Heartbeat():
            raise TypeError("a heartbeat has no key: it names its partition")
    if not isinstance(name, str):
        raise InvalidRecord("wrong_type", f"{place}: expected a string, got {type(name).__name__}")
    return name


def _encoded(record: Record) -> bytes:
    try:
        return encode_record(record)
    except (TypeError, ValueError, OverflowError) as error:
        for name, value in as_map(record).items():
            _encoded_field(_name(record), name, value)
        raise InvalidRecord("not_msgpack", f"{_name(record)}: {error}") from error


def _encoded_field(record: str, name: str, value: object) -> None:
    try:
        msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRecord("wrong_type", f"{record}: {name}: {error}") from error
