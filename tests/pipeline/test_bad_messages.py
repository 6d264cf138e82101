"""Over a hundred kinds of bad message in the middle of a replay: each becomes a dead letter, no list changes."""

from collections import Counter

import pytest
from kafka import KafkaProducer

from streams.client import Connection
from streams.dead_letters import read
from streams.local.engine import LocalEngine
from streams.records import DEAD_LETTER
from streams.settings import Settings
from streams.topics import max_bytes
from streams.validation import REASONS
from tests.bad_messages import BadMessage, bad_messages
from tests.pipeline.conftest import Verify
from tests.pipeline.shop import Shop

pytestmark = [pytest.mark.parts, pytest.mark.timeout(240)]


def test_bad_messages(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """What was injected is buried with its reason and bytes; the replay around it ends equal to the oracle."""
    settings = engine.settings
    bad = bad_messages(settings.partitions)
    assert len({message.name for message in bad}) >= 40
    assert {message.reason for message in bad} == set(REASONS)
    before = buried(settings)
    with shop.trading(settings) as trading:
        trading.wait_until(shop.events // 3)
        inject(settings, bad[::2])
        trading.wait_until(2 * shop.events // 3)
        inject(settings, bad[1::2])
    verify()
    new = buried(settings) - before
    assert {(topic, reason) for topic, reason, _ in new} == {(message.topic, message.reason) for message in bad}
    for message in bad:
        if message.place <= 0 and message.value is not None and len(message.value) <= settings.limits.message_bytes:
            assert new[message.topic, message.reason, message.value], message.name


def inject(settings: Settings, bad: list[BadMessage]) -> None:
    """Send each as it is, and wait until the broker has it."""
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka,
        enable_idempotence=settings.kafka_kind == "apache",
        max_request_size=max_bytes(settings, DEAD_LETTER),
        **settings.security(),
    )
    try:
        for message in bad:
            producer.send(message.topic, message.value, key=message.key, partition=message.partition).get(10)
    finally:
        producer.close()


def buried(settings: Settings) -> Counter[tuple[str, str, bytes]]:
    """(topic, reason, bytes) of every dead letter so far."""
    letters = read(Connection.from_settings(settings))
    return Counter((letter.topic, letter.reason, letter.value or b"") for letter in letters)
