"""The product and the content side: what one batch becomes, and what the marker waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from feature_repo.events import Heartbeat, Product
from feature_repo.row import Row, unpack_row
from feature_repo.row_store import Marker
from feature_repo.views import EMBEDDING_DIM, MODALITIES, PRODUCT_CONTENT, View
from serving.datasets.clips import video_bytes, wav_bytes
from serving.preprocess import MediaLimits
from serving.requests import ContentVectors, ProductContent
from streams.content_side import ContentSide
from streams.emitting import Emitter
from streams.fetching import Message
from streams.folding import BehaviorFolding, CatalogFolding, ContentFolding, UserFolding
from streams.freshness import Freshness
from streams.media import MediaStore
from streams.owning import Bounds, Ownership
from streams.product_side import ProductSide
from streams.records import (
    BEHAVIOR,
    CATALOG,
    CONTENT,
    DEAD_LETTER,
    FEATURE_CHANGES,
    USER_BEHAVIOR,
    ContentMessage,
    UserMessage,
    as_map,
    decode_changes,
    decode_content,
    decode_users,
    encode_bulk,
    encode_content,
    encode_record,
    encode_users,
    origin_headers,
)
from streams.settings import Settings
from streams.transport import Batch
from tests.serving.test_preprocess import picture
from tests.streams.bench import HOUR, Bench, behavior
from tests.streams.fakes import FakeScorer, word_vector
from tests.streams.loops import settle
from tests.streams.simulation import space_of

MEDIA = {
    "image": picture("red"),
    "video": video_bytes(np.zeros((4, 32, 32, 3), np.uint8), fps=4),
    "audio": wav_bytes(np.ones(100, np.float32), rate=16_000),
}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)
FLUSH_S = 0.05
PARTITIONS = {CATALOG: 1, BEHAVIOR: 1, USER_BEHAVIOR: 1, CONTENT: 1}


@dataclass
class Sides:
    """Both sides over one set of fakes, owning partition 0 of everything."""

    folder: Path
    bench: Bench = field(default_factory=Bench)
    scorer: FakeScorer = field(default_factory=FakeScorer)
    rewinds: list[str] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        foldings: dict[str, Any] = {
            CATALOG: CatalogFolding(),
            BEHAVIOR: BehaviorFolding(),
            USER_BEHAVIOR: UserFolding(),
            CONTENT: ContentFolding(),
        }
        self.ownership = Ownership(
            {topic: (folding, space_of(folding.view)) for topic, folding in foldings.items()},
            self.bench.doors,
            flush_s=FLUSH_S,
            accept_gap=False,
            on_rewind=self.rewinds.append,
            on_crash=self.crashes.append,
        )
        media = MediaStore(f"file://{self.folder}")
        emitter, sender = self.bench.doors.emitter, self.bench.sender
        assert isinstance(emitter, Emitter)
        self.product = ProductSide(Settings(), self.ownership, emitter, sender, media, Freshness(), PARTITIONS)
        self.content = ContentSide(self.ownership, sender, media, self.scorer, 1, MediaLimits())

    async def resume(self) -> None:
        await self.ownership.resume({(topic, 0): Bounds(0, 100) for topic in PARTITIONS})

    async def marker(self, view: View) -> Marker | None:
        return (await self.bench.doors.store.markers(space_of(view), [0]))[0]

    async def row(self, view: View, entity: str) -> Row | None:
        (blob,) = await self.bench.doors.store.read(space_of(view), [entity])
        return None if blob is None else unpack_row(view, blob)


@pytest.fixture
async def sides(tmp_path: Path) -> AsyncIterator[Sides]:
    made = Sides(tmp_path)
    await made.resume()
    yield made
    await made.ownership.drop()
    made.bench.stop()
    assert made.crashes == []


class NotingScorer(FakeScorer):
    """Keeps what it was asked to encode."""

    products: list[Sequence[ProductContent]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.products = []

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        self.products.append(products)
        return await super().encode_products(products, version)


def batch(topic: str, *messages: tuple[bytes | None, bytes | None], start: int = 0) -> Batch:
    found = [Message(start + number, key, value, HOUR, ()) for number, (key, value) in enumerate(messages)]
    return Batch(topic, 0, found, 1)


# --- product -------------------------------------------------------------------------------------------------------


async def test_a_message_of_many_records_is_one_entry_a_product(sides: Sides) -> None:
    events = [behavior("a", 1), behavior("b", 2), behavior("a", 3, user_id="u"), behavior("b", 4, user_id="u")]
    beat = Heartbeat(event_time=HOUR + 5)
    await sides.product.on_behavior(batch(BEHAVIOR, (None, encode_bulk([*events, beat])), (b"a", b"\xc1")))
    await asyncio.sleep(3 * FLUSH_S)
    rows = [await sides.row(BehaviorFolding.view, product) for product in "ab"]
    assert [row and (row.stamps, row.floats[0], row.as_of) for row in rows] == [({0: 0}, 2.0, HOUR + 5)] * 2
    assert await sides.marker(BehaviorFolding.view) == Marker(2, HOUR + 5)
    (message,) = sides.bench.sender.of(USER_BEHAVIOR)
    (forwarded,) = decode_users(message.value or b"")
    assert (forwarded.user_id, forwarded.partition, forwarded.offset) == ("u", 0, 0)
    assert [(place, event.product_id) for place, event in forwarded.events] == [(2, "a"), (3, "b")]
    clocks = [decode_changes(message.value or b"") for message in sides.bench.sender.of(FEATURE_CHANGES)]
    assert {0: HOUR + 5} in [clock for clock in clocks if isinstance(clock, dict)]


async def test_a_users_events_come_back_as_a_row_with_their_origin(sides: Sides) -> None:
    await sides.product.on_behavior(
        batch(BEHAVIOR, (b"a", encode_record(behavior("a", 1, user_id="u", kind="click"))), start=7)
    )
    (message,) = sides.bench.sender.of(USER_BEHAVIOR)
    assert message.partition == 0
    await sides.product.on_user_behavior(batch(USER_BEHAVIOR, (message.key, message.value)))
    await asyncio.sleep(3 * FLUSH_S)
    row = await sides.row(UserFolding.view, "u")
    assert row is not None
    assert row.stamps == {0: 7}
    assert row.floats.tolist() == [0.0, 1.0, 0.0, 0.0]


async def test_what_was_made_from_another_log_is_passed_over(sides: Sides) -> None:
    """A worker that has not noticed yet that topics were made anew writes to those of the same names."""
    sides.content.origin, sides.product.origin = b"this catalog", b"this behavior"
    told = next(encode_users([UserMessage("u", 0, 7, HOUR, ((0, behavior("a", 1, user_id="u")),))]))
    for topic, handler, (key, value), origin in (
        (CONTENT, sides.content.on_content, content("a", 9, "red"), b"this catalog"),
        (USER_BEHAVIOR, sides.product.on_user_behavior, (None, told), b"this behavior"),
    ):
        for offset, made_from in enumerate((b"another", origin, b"another")):
            await handler(Batch(topic, 0, [Message(offset, key, value, HOUR, origin_headers(made_from))], 1))
            await asyncio.sleep(3 * FLUSH_S)
            view, entity = (PRODUCT_CONTENT, "a") if topic == CONTENT else (UserFolding.view, "u")
            assert (await sides.row(view, entity) is None) == (offset == 0)
            assert await sides.marker(view) == Marker(offset + 1)


@pytest.mark.parametrize("users", [1, 5, 20, 20_000])
def test_users_go_together_and_come_back_as_they_were(users: int) -> None:
    told = [UserMessage(f"u{n}", 1, 7, HOUR, ((2, behavior("a", n, kind="click")),)) for n in range(users)]
    values = list(encode_users(told))
    assert [message for value in values for message in decode_users(value)] == told
    assert len(values) == (1 if users < 1_000 else 4)


def test_a_user_that_was_sent_before_they_went_together() -> None:
    event = behavior("a", 1, kind="click")
    value = msgpack.packb(["u", 1, 7, HOUR, [[2, as_map(event)]]])
    assert decode_users(value) == [UserMessage("u", 1, 7, HOUR, ((2, event),))]


@pytest.mark.parametrize("topic", [DEAD_LETTER, USER_BEHAVIOR])
async def test_the_marker_waits_for_dead_letters_and_forwards(sides: Sides, topic: str) -> None:
    await asyncio.sleep(2 * FLUSH_S)
    sides.bench.sender.held = True
    value = b"\xc1" if topic == DEAD_LETTER else encode_record(behavior("a", 1, user_id="u"))
    await sides.product.on_behavior(batch(BEHAVIOR, (b"a", value)))
    assert len(sides.bench.sender.of(topic)) == 1
    await asyncio.sleep(10 * FLUSH_S)
    assert await sides.marker(BehaviorFolding.view) == Marker(0)
    sides.bench.sender.release()
    await asyncio.sleep(3 * FLUSH_S)
    assert await sides.marker(BehaviorFolding.view) == Marker(1)


async def test_a_null_delists_and_media_become_references(sides: Sides) -> None:
    patch = Product(product_id="a", event_time=HOUR, title="shirt", image=PNG)
    await sides.product.on_catalog(batch(CATALOG, (b"a", encode_record(patch)), (b"a", None)))
    await asyncio.sleep(3 * FLUSH_S)
    row = await sides.row(CatalogFolding.view, "a")
    assert row is not None
    assert row.ints == (-1, -1, -1, 1)
    (message,) = sides.bench.sender.of(CONTENT)
    content = decode_content(message.value or b"").content
    assert content["title"] == "shirt"
    assert content["image"].startswith("sha256:")
    assert sides.product.media.get(content["image"]) == PNG, "there before anything names it"


async def test_what_is_not_owned_is_not_read(sides: Sides) -> None:
    await sides.ownership.drop()
    for handler, topic in (
        (sides.product.on_catalog, CATALOG),
        (sides.product.on_behavior, BEHAVIOR),
        (sides.product.on_user_behavior, USER_BEHAVIOR),
        (sides.content.on_content, CONTENT),
    ):
        await handler(batch(topic, (b"a", b"\xc1")))
    assert sides.bench.sender.sent == []


# --- content -------------------------------------------------------------------------------------------------------


def content(product: str, offset: int, text: str) -> tuple[bytes, bytes]:
    return product.encode(), encode_content(ContentMessage(product, {0: offset}, HOUR, {"title": text}))


async def test_the_newest_content_of_each_product_is_encoded(sides: Sides) -> None:
    await sides.content.on_content(
        batch(CONTENT, content("a", 3, "old"), content("b", 4, "blue"), content("a", 9, "red"), content("a", 5, "late"))
    )
    await asyncio.sleep(3 * FLUSH_S)
    row = await sides.row(PRODUCT_CONTENT, "a")
    assert row is not None
    assert row.version == 10
    assert np.allclose(row.floats[:32], word_vector("red"))
    assert row.strings[0] == "1"
    assert await sides.marker(PRODUCT_CONTENT) == Marker(4)


async def test_the_marker_does_not_pass_a_content_between_two_of_another_product(sides: Sides) -> None:
    await asyncio.sleep(2 * FLUSH_S)
    sides.bench.redis.delays_s = [60.0]  # the rows are being loaded while others are flushed
    await sides.content.on_content(
        batch(CONTENT, content("a", 3, "old"), content("b", 4, "blue"), content("a", 9, "red"))
    )
    await asyncio.sleep(5 * FLUSH_S)
    assert await sides.marker(PRODUCT_CONTENT) == Marker(1)
    await asyncio.sleep(60.0)
    assert await sides.marker(PRODUCT_CONTENT) == Marker(3)


async def test_encoding_waits_for_the_model(sides: Sides) -> None:
    sides.scorer.away = True
    encoding = asyncio.create_task(sides.content.on_content(batch(CONTENT, content("a", 0, "red"))))
    await asyncio.sleep(60)
    assert not encoding.done()
    sides.scorer.away = False
    await asyncio.wait_for(encoding, 2)


async def test_a_batch_does_not_go_on_in_a_writer_that_came_later(sides: Sides) -> None:
    """A rebalance while the model is slow: the new writer begins at its marker, not in the middle of the old batch."""
    sides.scorer.hold()
    messages = [content(f"p{number}", number, "red") for number in range(130)]
    encoding = asyncio.create_task(sides.content.on_content(batch(CONTENT, *messages)))
    await settle()
    await sides.resume()
    sides.scorer.release()
    await encoding
    await asyncio.sleep(5 * FLUSH_S)
    assert await sides.marker(PRODUCT_CONTENT) == Marker(0)
    await sides.content.on_content(batch(CONTENT, *messages))
    await asyncio.sleep(5 * FLUSH_S)
    assert await sides.marker(PRODUCT_CONTENT) == Marker(130)
    assert None not in [await sides.row(PRODUCT_CONTENT, f"p{number}") for number in range(130)]


async def test_a_medium_that_is_missing_is_a_missing_modality_and_a_dead_letter(sides: Sides) -> None:
    reference = "sha256:" + 64 * "0"
    message = ContentMessage("a", {0: 0}, HOUR, {"title": "red", "image": reference})
    await sides.content.on_content(batch(CONTENT, (b"a", encode_content(message))))
    await asyncio.sleep(3 * FLUSH_S)
    (letter,) = sides.bench.sender.of(DEAD_LETTER)
    assert dict(letter.headers)["reason"] == b"bad_media"
    row = await sides.row(PRODUCT_CONTENT, "a")
    assert row is not None
    assert row.floats[-len(MODALITIES) :].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["image", "video", "audio"])
async def test_a_broken_medium_is_a_missing_modality_and_a_dead_letter(sides: Sides, name: str) -> None:
    scorer = sides.content.scorer = NotingScorer()
    media = {field: sides.content.media.put(data[:30] if field == name else data) for field, data in MEDIA.items()}
    message = ContentMessage("a", {0: 0}, HOUR, {"title": "red", **media})
    await sides.content.on_content(batch(CONTENT, (b"a", encode_content(message))))
    await asyncio.sleep(3 * FLUSH_S)
    (letter,) = sides.bench.sender.of(DEAD_LETTER)
    headers = dict(letter.headers)
    assert headers["reason"] == b"bad_media"
    assert headers["text"].startswith(f"{name}: ".encode())
    ((product,),) = scorer.products
    assert {field: getattr(product, field) for field in MEDIA} == {**MEDIA, name: None}
    row = await sides.row(PRODUCT_CONTENT, "a")
    assert row is not None
    assert np.allclose(row.floats[:EMBEDDING_DIM], word_vector("red"))
