"""The content side: whole contents of products -> vectors by `product_encoder` -> rows of product_content.

A process of its own, so that a slow image or a Triton that is away never delays a price.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from serving.errors import BadMedia, ScorerUnavailable
from serving.preprocess import MediaLimits, check_medium
from serving.requests import ProductContent, Scorer
from streams.dead_letters import dead_letter
from streams.emitting import Sender
from streams.fetching import Message
from streams.folding import Encoded, Entry, content_version
from streams.media import MediaError, MediaStore
from streams.owning import Ownership
from streams.records import CONTENT, DEAD_LETTER, ContentMessage, decode_content, is_from
from streams.transport import Batch
from streams.validation import WHOLE, Rejected

log = logging.getLogger(__name__)

ENCODE_ROWS = 64
RETRY_S = 0.5
MEDIA_FIELDS = ("image", "video", "audio")


@dataclass(slots=True)
class ContentSide:
    """Encodes with one version of `product_encoder`; a new encoder fills rows of its own in a new process."""

    ownership: Ownership
    sender: Sender
    media: MediaStore
    scorer: Scorer
    encoder_version: int
    media_limits: MediaLimits
    #: contents made from another catalog are passed over
    origin: bytes = b""

    async def on_content(self, batch: Batch) -> None:
        """Encode the newest content of each product of the batch; wait for Triton as long as it takes."""
        writer = self.ownership.writer(CONTENT, batch.partition)
        for start in range(0, len(batch.messages), ENCODE_ROWS):
            # encoding takes its time: a writer that came meanwhile begins at its marker, not in the middle of this
            if writer is None or self.ownership.writer(CONTENT, batch.partition) is not writer:
                return
            messages = batch.messages[start : start + ENCODE_ROWS]
            newest: dict[str, tuple[Message, ContentMessage]] = {}
            for message in messages:
                if not is_from(message.headers, self.origin):
                    continue
                assert message.value is not None
                content = decode_content(message.value)
                known = newest.get(content.product_id)
                if known is None or content_version(content) >= content_version(known[1]):
                    # last in the dict: the writer takes entries in order of offset
                    newest.pop(content.product_id, None)
                    newest[content.product_id] = (message, content)
            entries = await self._encoded(batch, list(newest.values())) if newest else []
            await writer.take(entries, messages[-1].offset + 1)

    async def _encoded(self, batch: Batch, found: Sequence[tuple[Message, ContentMessage]]) -> list[Entry]:
        products = [await self._product(batch, message, content) for message, content in found]
        vectors = await self._encode(products)
        entries = []
        for row, (message, content) in enumerate(found):
            numbers = np.concatenate([vectors.content[row].ravel(), vectors.mask[row]]).astype("<f4").tobytes()
            encoded = Encoded(
                content_version(content),
                content.event_time,
                str(self.encoder_version),
                digest(content.content),
                numbers,
            )
            entries.append(
                Entry(
                    content.product_id,
                    content.stamps,
                    message.offset,
                    message.kafka_time,
                    ((0, encoded),),
                    replaces=True,
                )
            )
        return entries

    async def _encode(self, products: Sequence[ProductContent]) -> Any:
        while True:
            try:
                return await self.scorer.encode_products(products, self.encoder_version)
            except ScorerUnavailable as error:
                log.warning("waiting for product_encoder: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _product(self, batch: Batch, message: Message, content: ContentMessage) -> ProductContent:
        """Fetch the media; one that is missing or broken is a missing modality and a dead letter."""
        media: dict[str, bytes] = {}
        for name in MEDIA_FIELDS:
            reference = content.content.get(name)
            if not isinstance(reference, str):
                continue
            try:
                data = await asyncio.to_thread(self.media.open, reference)
                await asyncio.to_thread(check_medium, name, data, self.media_limits)
                media[name] = data
            except (MediaError, BadMedia) as error:
                await self._bury(batch, message, f"{name}: {error}")
        return as_product(content.product_id, content.content, media)

    async def _bury(self, batch: Batch, message: Message, text: str) -> None:
        rejected = Rejected(WHOLE, "bad_media", text)
        key, value, headers = dead_letter(
            batch.topic, batch.partition, message.offset, message.key, message.value, rejected
        )
        await (await self.sender.send(DEAD_LETTER, value, key=key, headers=headers))


def as_product(product_id: str, content: Mapping[str, Any], media: Mapping[str, bytes]) -> ProductContent:
    """The content of a product with its media, by the name of their field."""
    return ProductContent(
        product_id,
        title=str(content.get("title") or ""),
        description=str(content.get("description") or ""),
        brand=str(content.get("brand") or ""),
        category=tuple(content.get("category") or ()),
        attributes=dict(content.get("attributes") or {}),
        image=media.get("image"),
        video=media.get("video"),
        audio=media.get("audio"),
    )


def digest(content: Mapping[str, Any]) -> str:
    """sha256 of a content, whatever the order of its fields."""
    packed = msgpack.packb(sorted(content.items(), key=lambda item: item[0]))
    assert isinstance(packed, bytes)
    return hashlib.sha256(packed).hexdigest()
