"""The users' client: what it refuses, how it groups, that it waits for acknowledgements, and what it reads back."""

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaTimeoutError
from pydantic import SecretStr

from feature_repo.events import Behavior, Heartbeat, Product, ResultSet
from streams.client import (
    ClosedSet,
    Connection,
    FreshRanking,
    InvalidRecord,
    NotAcknowledged,
    Outbox,
    Publisher,
    RankingsReader,
    Registrar,
    Unreachable,
)
from streams.local.apache_kafka import ApacheKafka
from streams.local.tansu import TansuBroker
from streams.records import (
    BEHAVIOR,
    CATALOG,
    RANKINGS,
    RESULT_SETS,
    Ranking,
    encode_bulk,
    encode_ranking,
    encode_record,
    partition_for,
    ranking_headers,
)
from streams.settings import Limits, Settings
from tests.parts import kafka_home, running

NOW_S = 1_700_000_000.0
NOW = int(NOW_S * 1000)
PARTITIONS = 4


@dataclass
class FakeFuture:
    """An acknowledgement that is there, or an error."""

    place: SimpleNamespace
    error: Exception | None
    is_done: bool

    def get(self, timeout: float) -> SimpleNamespace:
        self.place.waited_for = True
        if self.error is not None:
            raise self.error
        return self.place


@dataclass
class FakeProducer:
    """Remembers what was sent; `errors` are given to the sends in turn. Not `done`: it answers only who waits."""

    sent: list[SimpleNamespace] = field(default_factory=list)
    errors: list[Exception | None] = field(default_factory=list)
    done: bool = True
    closed: bool = False

    def partitions_for(self, topic: str) -> set[int]:
        return set() if topic == "missing" else set(range(PARTITIONS))

    def send(self, topic: str, value: bytes | None, key: bytes | None, partition: int) -> FakeFuture:
        offset = sum(message.partition == partition for message in self.sent)
        place = SimpleNamespace(topic=topic, value=value, key=key, partition=partition, offset=offset, waited_for=False)
        self.sent.append(place)
        return FakeFuture(place, self.errors.pop(0) if self.errors else None, self.done)

    def close(self, timeout: float) -> None:
        self.closed = True


@dataclass(frozen=True)
class FakeConnection(Connection):
    """A connection to nowhere."""

    bootstrap: str = "nowhere:9092"
    fake: FakeProducer = field(default_factory=FakeProducer)

    def producer(self, limits: Limits) -> Any:
        return self.fake


@pytest.fixture
def fake() -> FakeConnection:
    return FakeConnection()


def publisher_on(connection: Connection, limits: Limits | None = None) -> Publisher:
    return Publisher(connection, limits, clock=lambda: NOW_S)


def purchase(number: int, product_id: str = "A") -> Behavior:
    return Behavior(type="purchase", event_id=f"e{number}", product_id=product_id, event_time=NOW)


# --- publishing ----------------------------------------------------------------------------------------------------


def test_a_single_record_is_keyed_by_its_id_and_goes_where_kafka_would_put_it(fake: FakeConnection) -> None:
    patch = Product(product_id="85123A", event_time=NOW, price=375)
    publisher_on(fake).publish(patch)
    (message,) = fake.fake.sent
    assert (message.topic, message.key, message.value) == (CATALOG, b"85123A", encode_record(patch))
    assert message.partition == partition_for("85123A", PARTITIONS)


def test_a_cleared_field_is_sent_and_an_absent_one_is_not(fake: FakeConnection) -> None:
    publisher_on(fake).publish(Product(product_id="A", event_time=NOW, stock=None))
    sent = msgpack.unpackb(fake.fake.sent[0].value)
    assert sent["stock"] is None
    assert "price" not in sent


def test_many_are_grouped_by_partition_in_their_order_without_a_key(fake: FakeConnection) -> None:
    records = [purchase(number, f"p{number % 7}") for number in range(50)]
    count = publisher_on(fake).publish_many(records)
    sent = fake.fake.sent
    assert count == len(sent) == len({partition_for(f"p{n}", PARTITIONS) for n in range(7)})
    for message in sent:
        mine = [record for record in records if partition_for(record.product_id, PARTITIONS) == message.partition]
        assert (message.key, message.value) == (None, encode_bulk(mine))


def test_bulk_messages_keep_both_limits(fake: FakeConnection) -> None:
    limits = Limits(message_bytes=1000, records=100)
    publisher = publisher_on(fake, limits)
    records = [purchase(number) for number in range(30)]
    publisher.publish_many(records)
    assert all(len(message.value) <= 1000 for message in fake.fake.sent)
    assert [record for message in fake.fake.sent for record in msgpack.unpackb(message.value)] == msgpack.unpackb(
        encode_bulk(records)
    )
    fake.fake.sent.clear()
    publisher.publish_many(records, per_message=4)
    assert [len(msgpack.unpackb(message.value)) for message in fake.fake.sent] == [4] * 7 + [2]


@pytest.mark.parametrize(
    ("record", "reason", "text"),
    [
        (Product(product_id="A", event_time=NOW, price=-1), "out_of_range", "price"),
        (Product(product_id="A", event_time=NOW, price=3.75), "wrong_type", "price"),  # type: ignore[arg-type]
        (Product(product_id="A", event_time=NOW, price=Decimal("3")), "wrong_type", "price"),  # type: ignore[arg-type]
        (Product(product_id="A", event_time=NOW, currency="pounds"), "out_of_range", "currency"),
        (Product(product_id="", event_time=NOW), "out_of_range", "product_id"),
        (Product(product_id=5, event_time=NOW), "wrong_type", "product_id"),  # type: ignore[arg-type]
        (Product(product_id="A", event_time=NOW + 400_000), "from_the_future", "event_time"),
        (Product(product_id="A", event_time=NOW, image=b"no picture"), "bad_media", "image"),
        (Product(product_id="A", event_time=NOW, title="\ud800"), "wrong_type", "title"),
        (Behavior(type="click", event_id="e", product_id="A", event_time=NOW, quantity=0), "out_of_range", "quantity"),
    ],
)
def test_what_the_engine_would_reject_is_refused_and_the_field_is_named(
    fake: FakeConnection, record: Product | Behavior, reason: str, text: str
) -> None:
    with pytest.raises(InvalidRecord, match=text) as refused:
        publisher_on(fake).publish(record)
    assert refused.value.reason == reason
    assert fake.fake.sent == []


def test_of_many_nothing_is_sent_when_one_is_refused(fake: FakeConnection) -> None:
    records: list[Product | Behavior] = [*(purchase(number) for number in range(5))]
    records += [Product(product_id="B7", event_time=NOW, price=-5)]
    with pytest.raises(InvalidRecord, match=r"B7: .*price"):
        publisher_on(fake).publish_many(records, per_message=2)
    assert fake.fake.sent == []


def test_an_address_is_left_to_the_engine_to_judge(fake: FakeConnection) -> None:
    publisher_on(fake).publish(Product(product_id="A", event_time=NOW, image="https://cdn.example/a.png"))
    assert len(fake.fake.sent) == 1


def test_delisting_is_a_null(fake: FakeConnection) -> None:
    publisher_on(fake).delist("A")
    assert (fake.fake.sent[0].key, fake.fake.sent[0].value) == (b"A", None)


def test_a_heartbeat_goes_to_every_partition_without_a_key(fake: FakeConnection) -> None:
    publisher_on(fake).heartbeat(NOW)
    assert [(message.topic, message.key, message.partition) for message in fake.fake.sent] == [
        (BEHAVIOR, None, partition) for partition in range(PARTITIONS)
    ]
    assert fake.fake.sent[0].value == encode_record(Heartbeat(event_time=NOW))


# --- acknowledgements ----------------------------------------------------------------------------------------------


def test_flush_gives_the_newest_offsets(fake: FakeConnection) -> None:
    publisher = publisher_on(fake)
    for number in range(3):
        publisher.publish(purchase(number))
    assert publisher.flush() == {(BEHAVIOR, partition_for("A", PARTITIONS)): 2}


def test_what_the_broker_did_not_take_is_reported_once(fake: FakeConnection) -> None:
    fake.fake.errors = [None, KafkaTimeoutError("away"), KafkaTimeoutError("still away")]
    publisher = publisher_on(fake)
    fake.fake.done = False
    for number in range(3):
        publisher.publish(purchase(number))
    with pytest.raises(NotAcknowledged, match=r"2 messages were not acknowledged, the first because: .*away"):
        publisher.flush()
    assert publisher.flush() == {(BEHAVIOR, partition_for("A", PARTITIONS)): 0}


def test_a_failure_stops_what_comes_after_it(fake: FakeConnection) -> None:
    fake.fake.errors = [KafkaTimeoutError("away")]
    publisher = publisher_on(fake)
    publisher.publish(purchase(1))
    with pytest.raises(NotAcknowledged):
        publisher.publish(purchase(2))
    assert len(fake.fake.sent) == 1


def test_leaving_the_block_flushes_and_disconnects(fake: FakeConnection) -> None:
    fake.fake.errors = [KafkaTimeoutError("away")]
    with pytest.raises(NotAcknowledged), publisher_on(fake) as publisher:
        publisher.publish(purchase(1))
    assert fake.fake.closed


def test_an_error_in_the_block_is_the_one_that_is_seen(fake: FakeConnection) -> None:
    fake.fake.errors = [KafkaTimeoutError("away")]

    def fails_after_a_send() -> None:
        with publisher_on(fake) as publisher:
            publisher.publish(purchase(1))
            raise KeyError

    with pytest.raises(KeyError):
        fails_after_a_send()
    assert fake.fake.closed


def test_only_so_many_are_on_their_way(fake: FakeConnection) -> None:
    fake.fake.done = False
    outbox = Outbox(fake, Limits(), pending=3)
    for _ in range(5):
        outbox.send(BEHAVIOR, 0, b"")
    assert [message.offset for message in fake.fake.sent if message.waited_for] == [0, 1]
    outbox.flush()
    assert all(message.waited_for for message in fake.fake.sent)


def test_a_missing_topic_is_named(fake: FakeConnection) -> None:
    with pytest.raises(Unreachable, match="no topic missing at nowhere:9092"):
        Outbox(fake, Limits()).partitions("missing")


def test_connection_follows_the_settings() -> None:
    settings = Settings(
        kafka="kafka:9093",
        kafka_kind="tansu",
        kafka_security="SASL_SSL",
        kafka_username="shop",
        kafka_password=SecretStr("secret"),
    )
    connection = Connection.from_settings(settings)
    assert (connection.bootstrap, connection.idempotent) == ("kafka:9093", False)
    assert connection.security["sasl_mechanism"] == "SCRAM-SHA-512"
    assert connection.security["sasl_plain_password"] == "secret"
    assert connection.security["ssl_context"].check_hostname


# --- registering ---------------------------------------------------------------------------------------------------


def result_set(name: str = "q1", **fields: Any) -> ResultSet:
    made: dict[str, Any] = {"kind": "search", "query": "mug", "candidates": [("A", 2.5), ("B", 1.0)]} | fields
    return ResultSet(result_set_id=name, event_time=NOW, **made)


def test_a_result_set_is_keyed_by_its_id(fake: FakeConnection) -> None:
    registrar = Registrar(fake, clock=lambda: NOW_S)
    registrar.register(result_set())
    registrar.unregister("q1")
    sent = [(message.topic, message.key, message.partition) for message in fake.fake.sent]
    assert sent == [(RESULT_SETS, b"q1", partition_for("q1", PARTITIONS))] * 2
    assert fake.fake.sent[1].value is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"candidates": []}, "out_of_range"),
        ({"candidates": [("A", 1.0), ("A", 2.0)]}, "double_candidate"),
        ({"candidates": [(f"p{n}", 1.0) for n in range(1001)]}, "too_many_candidates"),
        ({"kind": "banner"}, "out_of_range"),
    ],
)
def test_a_bad_result_set_is_refused(fake: FakeConnection, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRecord) as refused:
        Registrar(fake, clock=lambda: NOW_S).register(result_set(**fields))
    assert refused.value.reason == reason


# --- reading -------------------------------------------------------------------------------------------------------


def ranking(name: str, version: int, ids: tuple[str, ...] = ("A", "B")) -> Ranking:
    return Ranking(
        result_set_id=name,
        version=version,
        product_ids=ids,
        scores=np.linspace(1, 0, len(ids), dtype=np.float32),
        previous_ranks=np.array([1, -1, *range(2, len(ids))], dtype=np.int16),
        contributions=None,
        model_version="1",
        caused_by=None,
        feature_age_ms={"product_catalog": (5, 9)},
        scored_at=NOW,
        published_at=NOW + 1,
        degraded=False,
    )


def test_a_ranking_as_objects() -> None:
    fresh = FreshRanking.of(ranking("q", 7))
    assert [(item.rank, item.product_id, item.score, item.previous_rank) for item in fresh.items] == [
        (1, "A", 1.0, 2),
        (2, "B", 0.0, None),
    ]
    assert (fresh.version, fresh.feature_age_ms, fresh.degraded) == (7, {"product_catalog": (5, 9)}, False)


# --- with a broker -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["tansu", pytest.param("apache", marks=pytest.mark.kafka)])
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """Both kinds of broker, each this module's own: the client's topics have fixed names."""
    folder: Path = tmp_path_factory.mktemp("client")
    home = kafka_home()
    part = ApacheKafka(folder, home) if request.param == "apache" and home is not None else TansuBroker(folder)
    with running(part):
        admin = KafkaAdminClient(bootstrap_servers=part.address)
        admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in (CATALOG, BEHAVIOR, RESULT_SETS, RANKINGS)])
        admin.close()
        yield Connection(part.address, idempotent=part.kind == "apache", timeout_s=10)


def stand(connection: Connection, version: int, name: str, value: bytes | None) -> None:
    """Put a record on `rankings` as a worker would."""
    producer = connection.producer(Limits())
    headers = list(ranking_headers(b"writer-1", version))
    partition = partition_for(name, PARTITIONS)
    producer.send(RANKINGS, key=name.encode(), value=value, partition=partition, headers=headers).get(10)
    producer.close()


@pytest.mark.parts
def test_published_records_are_in_the_log_when_flush_returns(connection: Connection) -> None:
    with Publisher(connection) as publisher:
        before = publisher.flush()
        publisher.publish_many([purchase(number, f"p{number}") for number in range(100)])
        publisher.publish(purchase(100, "p1"))
        after = publisher.flush()
    assert before == {}
    assert {topic for topic, _ in after} == {BEHAVIOR}
    assert len(after) == PARTITIONS
    consumer = connection.consumer()
    consumer.subscribe([BEHAVIOR])
    read: list[Any] = []
    deadline = time.monotonic() + 10
    while len(read) < 101 and time.monotonic() < deadline:
        for messages in consumer.poll(timeout_ms=100).values():
            for message in messages:
                content = msgpack.unpackb(message.value)
                read.extend(content if isinstance(content, list) else [content])
    consumer.close()
    assert sorted(record["event_id"] for record in read) == sorted(f"e{number}" for number in range(101))


@pytest.mark.parts
def test_latest_and_follow(connection: Connection) -> None:
    one, two, three = (f"set-{uuid.uuid4()}" for _ in range(3))
    stand(connection, 1, one, encode_ranking(ranking(one, 1)))
    stand(connection, 2, one, encode_ranking(ranking(one, 2, ("B", "A", "C"))))
    stand(connection, 1, two, encode_ranking(ranking(two, 1)))
    stand(connection, 2, two, None)
    with RankingsReader(connection) as reader:
        table = reader.latest()
        assert [item.product_id for item in table[one].items] == ["B", "A", "C"]
        assert two not in table
        stand(connection, 1, three, encode_ranking(ranking(three, 1)))
        stand(connection, 1, one, encode_ranking(ranking(one, 1)))
        stand(connection, 3, one, None)
        news = {item.result_set_id: item for item in reader.follow(idle_s=1)}
        assert news[one] == ClosedSet(one, 3)
        fresh = news[three]
        assert isinstance(fresh, FreshRanking)
        assert fresh.version == 1
        assert set(reader.latest()) >= {three}
        assert one not in reader.latest()


@pytest.mark.parts
def test_a_large_record_fits_up_to_the_limit(connection: Connection) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(Limits().message_bytes - 200)
    with Publisher(connection) as publisher:
        publisher.publish(Product(product_id="big", event_time=0, image=picture))
        assert len(publisher.flush()) == 1
        with pytest.raises(InvalidRecord, match="value: expected at most 1048576 bytes"):
            publisher.publish(Product(product_id="big", event_time=0, image=picture + bytes(200)))


def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match=r"no Kafka broker answers at 127.0.0.1:1"):
        Publisher(Connection("127.0.0.1:1", timeout_s=0.5)).delist("A")


@pytest.mark.parts
def test_the_reference_does_what_it_says(connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    stand(connection, 1, "search:heart", encode_ranking(ranking("search:heart", 1)))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace("127.0.0.1:9092", connection.bootstrap), "client.md", "exec"), names)
    assert {topic for topic, _ in names["offsets"]} == {CATALOG, BEHAVIOR}
    assert "search:heart ['A', 'B']" in capsys.readouterr().out
