"""What was rejected comes to `dead-letter` as it was, with where it stood and why."""

import json
from pathlib import Path

import pytest
from kafka import KafkaProducer

from streams.client import Connection
from streams.dead_letters import DeadLetter, dead_letter, decode_dead_letter, read
from streams.local.apache_kafka import ApacheKafka
from streams.local.tansu import TansuBroker
from streams.records import BEHAVIOR, CATALOG, DEAD_LETTER
from streams.settings import Limits, Settings
from streams.topics import create, max_bytes
from streams.validation import REASONS, WHOLE, Rejected, decode
from tests.bad_messages import bad_messages, behavior, pack, product
from tests.parts import kafka_home, running

LIMITS = Limits()


def there_and_back(key: bytes | None, value: bytes | None, rejected: Rejected) -> DeadLetter:
    return decode_dead_letter(*dead_letter(CATALOG, 3, 17, key, value, rejected), buried_at=5)


def test_a_single_record_is_kept_byte_for_byte() -> None:
    assert there_and_back(b"k\xff", b"\xc1", Rejected(0, "not_msgpack", "value: no")) == DeadLetter(
        topic=CATALOG,
        partition=3,
        offset=17,
        place=0,
        reason="not_msgpack",
        text="value: no",
        key=b"k\xff",
        value=b"\xc1",
        truncated=None,
        truncated_key=None,
        buried_at=5,
    )


def test_of_a_bulk_only_the_bad_record_is_kept() -> None:
    records = [behavior(), behavior(quantity=0), b"\x01"]
    value = pack(records)
    assert there_and_back(None, value, Rejected(1, "out_of_range", "")).value == pack(records[1])
    assert there_and_back(None, value, Rejected(2, "not_a_map", "")).value == pack(records[2])


def test_a_bulk_that_is_rejected_whole_is_kept_whole() -> None:
    value = pack([product(), product()])
    assert there_and_back(b"key", value, Rejected(WHOLE, "key_mismatch", "")).value == value
    assert there_and_back(None, b"\x92\x01", Rejected(WHOLE, "not_msgpack", "")).value == b"\x92\x01"


def test_a_null_stays_a_null_though_no_client_sends_neither_key_nor_value() -> None:
    assert dead_letter(CATALOG, 3, 17, None, None, Rejected(WHOLE, "key_mismatch", ""))[1] == b""
    letter = there_and_back(None, None, Rejected(WHOLE, "key_mismatch", ""))
    assert (letter.key, letter.value) == (None, None)


def test_what_the_topic_cannot_take_is_cut_and_says_so() -> None:
    size = LIMITS.message_bytes * 3
    letter = there_and_back(b"k" * 50_000, b"x" * size, Rejected(WHOLE, "too_large", "价" * 5_000))
    assert letter.value is not None
    assert letter.key is not None
    assert (letter.truncated, letter.truncated_key) == (size, 50_000)
    assert len(letter.text.encode()) <= 1024
    assert set(letter.text) == {"价"}
    total = len(letter.value) + len(letter.key) + len(letter.text.encode())
    assert LIMITS.message_bytes < total < LIMITS.message_bytes + 64 * 1024 - 1000


def test_what_is_only_a_little_too_large_is_kept_whole() -> None:
    value = b"x" * (LIMITS.message_bytes + 48 * 1024)
    letter = there_and_back(None, value, Rejected(WHOLE, "too_large", ""))
    assert (letter.value, letter.truncated) == (value, None)


def test_every_dead_letter_is_json() -> None:
    for message in bad_messages():
        letter = there_and_back(message.key, message.value, Rejected(message.place, message.reason, message.name))
        fields = json.loads(json.dumps(letter.to_json(), allow_nan=False))
        assert (fields["reason"], fields["text"]) == (message.reason, message.name)


def test_json_shows_what_can_be_read() -> None:
    letter = there_and_back(b"bad", pack(product(image=b"12345", price=-1)), Rejected(0, "out_of_range", ""))
    assert letter.to_json()["content"] == product(image="5 bytes", price=-1)
    assert letter.to_json()["key_base64"] == "YmFk"
    assert there_and_back(b"bad", b"\xc1", Rejected(0, "not_msgpack", "")).to_json()["content"] is None


def bury_all_and_read(settings: Settings) -> None:
    """Every bad message goes into its topic, its dead letter into `dead-letter`; then they are read again."""
    create(settings)
    bad = bad_messages(settings.partitions)
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka,
        enable_idempotence=settings.kafka_kind == "apache",
        max_request_size=max_bytes(settings, DEAD_LETTER),
    )
    try:
        for offset, message in enumerate(bad):
            sent = producer.send(message.topic, message.value, key=message.key, partition=message.partition).get(10)
            decoded = decode(
                message.topic,
                message.key,
                message.value,
                kafka_time=sent.timestamp,
                partition=sent.partition,
                partitions=settings.partitions,
                limits=settings.limits,
            )
            for rejected in decoded.rejected:
                key, value, headers = dead_letter(
                    message.topic, sent.partition, offset, message.key, message.value, rejected, settings.limits
                )
                producer.send(DEAD_LETTER, value, key=key, headers=list(headers)).get(10)
        producer.send(DEAD_LETTER, b"not a worker's").get(10)
    finally:
        producer.close()

    connection = Connection.from_settings(settings)
    letters = list(read(connection))
    assert [(letter.offset, letter.reason) for letter in letters] == list(enumerate(m.reason for m in bad))
    assert {letter.reason for letter in letters} == set(REASONS)
    future = list(read(connection, reasons=["from_the_future"], topics=[BEHAVIOR]))
    assert {(letter.reason, letter.topic) for letter in future} == {("from_the_future", BEHAVIOR)}
    assert len(future) == sum(m.reason == "from_the_future" and m.topic == BEHAVIOR for m in bad)


@pytest.mark.parts
def test_every_kind_of_bad_message_is_buried_and_read_again_on_tansu(tmp_path: Path) -> None:
    with running(TansuBroker(tmp_path)) as broker:
        bury_all_and_read(Settings(kafka=broker.address, kafka_kind="tansu"))


@pytest.mark.parts
@pytest.mark.kafka
def test_every_kind_of_bad_message_is_buried_and_read_again_on_apache_kafka(tmp_path: Path) -> None:
    with running(ApacheKafka(tmp_path, kafka_home() or Path())) as broker:
        bury_all_and_read(Settings(kafka=broker.address))


@pytest.mark.parts
def test_without_dead_letters_there_are_none(tmp_path: Path) -> None:
    with running(TansuBroker(tmp_path)) as broker:
        settings = Settings(kafka=broker.address, kafka_kind="tansu")
        create(settings)
        assert list(read(Connection.from_settings(settings))) == []
