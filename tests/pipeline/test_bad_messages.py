"""Over a hundred kinds of bad message in the middle of a replay: each becomes a dead letter, no list changes. A medium
that only its decoder can tell from a good one is a missing modality besides."""

from collections import Counter
from collections.abc import Collection

import numpy as np
import pytest
from kafka import KafkaProducer

from feature_repo.events import Product
from feature_repo.reading import RowReader
from feature_repo.views import MODALITIES, PRODUCT_CONTENT
from serving.datasets.clips import video_bytes, wav_bytes
from streams.client import Connection, Publisher
from streams.dead_letters import read
from streams.local.engine import LocalEngine
from streams.records import CONTENT, DEAD_LETTER
from streams.settings import Settings
from streams.topics import max_bytes
from streams.validation import REASONS
from tests.bad_messages import BadMessage, bad_messages
from tests.pipeline.conftest import Verify
from tests.pipeline.shop import Shop
from tests.serving.test_preprocess import picture

MEDIA = {
    "image": picture("red"),
    "video": video_bytes(np.zeros((4, 32, 32, 3), np.uint8), fps=4),
    "audio": wav_bytes(np.ones(100, np.float32), rate=16_000),
}
#: enough to be taken for what it says it is
HEAD_BYTES = 30

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


def test_broken_media(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """Each of three products has a medium that is cut short: the others of its media count, and all that follows."""
    settings = engine.settings
    products = {broken: shop.product_id(number) for number, broken in enumerate((*MEDIA, ""))}
    with shop.trading(settings) as trading:
        trading.wait_until(shop.events // 3)
        with Publisher(Connection.from_settings(settings)) as publisher:
            for broken, product in products.items():
                media = {name: data[:HEAD_BYTES] if name == broken else data for name, data in MEDIA.items()}
                image, video, audio = (media[name] for name in MEDIA)
                publisher.publish(
                    Product(product_id=product, event_time=shop.begins_ms, image=image, video=video, audio=audio)
                )
    verify()
    assert told_of_media(settings, products.values()) == {(product, name) for name, product in products.items() if name}
    reader = RowReader(settings.redis.get_secret_value())
    try:
        masks = reader.read(PRODUCT_CONTENT, list(products.values())).columns()["mask"]
    finally:
        reader.close()
    for (broken, product), mask in zip(products.items(), masks, strict=True):
        there = dict(zip(MODALITIES, mask.tolist(), strict=True))
        assert [name for name in ("text", *MEDIA) if not there[name]] == ([broken] if broken else []), product


def told_of_media(settings: Settings, products: Collection[str]) -> set[tuple[str, str]]:
    """(product, medium) of the dead letters about contents of these products; each says why."""
    letters = [letter for letter in read(Connection.from_settings(settings)) if letter.topic == CONTENT]
    ours = [letter for letter in letters if (letter.key or b"").decode() in products]
    assert {letter.reason for letter in ours} == {"bad_media"}
    return {((letter.key or b"").decode(), letter.text.split(":")[0]) for letter in ours}


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
