"""The product side: catalog and behaviour events -> rows, `feature-changes`, `content`, `user-behavior`.

One method per arrow of the drawing; what a row is and when it is written stands in `streams.writing`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from msgspec import structs

from feature_repo.events import Behavior, Heartbeat, Product
from streams.dead_letters import dead_letter
from streams.emitting import Emitter, Sender
from streams.fetching import Message
from streams.folding import Entry
from streams.freshness import Freshness
from streams.media import MediaStore
from streams.owning import Ownership
from streams.records import (
    BEHAVIOR,
    CATALOG,
    DEAD_LETTER,
    USER_BEHAVIOR,
    Record,
    UserMessage,
    decode_users,
    encode_record,
    encode_users,
    is_from,
    partition_for,
)
from streams.settings import Settings
from streams.transport import Batch
from streams.validation import Decoded, decode, decode_usual
from streams.writing import RowWriter

MEDIA_FIELDS = ("image", "video", "audio")
HEARTBEAT_S = 60.0
#: heartbeats are told again this often: a ranking worker that starts reads only the last minutes
CLOCK_S = 5.0

#: a message, (place, record) of its good records, and whether it was read in one step: then no media, no heartbeat
Found = tuple[Message, Sequence[tuple[int, Record]], bool]


@dataclass(slots=True)
class ProductSide:
    """Folds what its agents bring. `partitions` by topic are the broker's."""

    settings: Settings
    ownership: Ownership
    emitter: Emitter
    sender: Sender
    media: MediaStore
    freshness: Freshness
    partitions: Mapping[str, int]
    #: what users did that was told by another `behavior` is passed over
    origin: bytes = b""

    async def on_catalog(self, batch: Batch) -> None:
        """Patches of products, null values, bulk messages -> product_catalog and `content`."""
        writer = self.ownership.writer(CATALOG, batch.partition)
        if writer is None:
            return
        entries: list[Entry] = []
        for message, records, is_usual in await self._decoded(writer, batch):
            if not is_usual and any(_has_media(record) for _, record in records):
                records = [(place, await self._with_media_stored(record)) for place, record in records]
            entries += _entries(batch.partition, message, records)
        await writer.take(entries, batch.next_offset)

    async def on_behavior(self, batch: Batch) -> None:
        """What shoppers did -> product_behavior and `user-behavior`; heartbeats -> the log's clock."""
        writer = self.ownership.writer(BEHAVIOR, batch.partition)
        if writer is None:
            return
        entries: list[Entry] = []
        heartbeats: list[tuple[int, int]] = []
        forwards: list[UserMessage] = []
        for message, records, is_usual in await self._decoded(writer, batch):
            if not is_usual:
                heartbeats += [(message.offset, beat.event_time) for _, beat in records if isinstance(beat, Heartbeat)]
                records = [pair for pair in records if isinstance(pair[1], Behavior)]
            entries += _entries(batch.partition, message, records)
            forwards += _forwards(batch.partition, message, records)
        if forwards:
            await self._forward(writer, forwards)
        await writer.take(entries, batch.next_offset, heartbeats)

    async def on_user_behavior(self, batch: Batch) -> None:
        """The events again, by user -> user_behavior. Our own messages: origin partition and offset go along."""
        writer = self.ownership.writer(USER_BEHAVIOR, batch.partition)
        if writer is None:
            return
        entries = []
        for message in batch.messages:
            if not is_from(message.headers, self.origin):
                continue
            assert message.value is not None
            for user in decode_users(message.value):
                stamps = {user.partition: user.offset}
                entries.append(Entry(user.user_id, stamps, message.offset, user.kafka_time, user.events))
        await writer.take(entries, batch.next_offset)

    async def run_clock(self) -> None:
        """Tell the ranking side the newest heartbeats again and again; they pass through no row."""
        while True:
            await asyncio.sleep(CLOCK_S)
            self.emitter.pass_on(self.ownership.clocks(BEHAVIOR))

    async def run_heartbeats(self, now_ms: Callable[[], int]) -> None:
        """One heartbeat a minute for every owned partition of `behavior`, at once for those just assigned."""
        beaten: dict[int, float] = {}
        loop = asyncio.get_running_loop()
        while True:
            owned = {partition for topic, partition in self.ownership.places if topic == BEHAVIOR}
            beaten = {partition: at for partition, at in beaten.items() if partition in owned}
            for partition in sorted(owned):
                if loop.time() - beaten.get(partition, -HEARTBEAT_S) >= HEARTBEAT_S:
                    beat = encode_record(Heartbeat(event_time=now_ms()))
                    await (await self.sender.send(BEHAVIOR, beat, partition=partition))
                    beaten[partition] = loop.time()
            await asyncio.sleep(1.0)

    async def _decoded(self, writer: RowWriter, batch: Batch) -> list[Found]:
        """The good records of each message; the bad ones are counted and buried."""
        topic, partition, partitions = batch.topic, batch.partition, self.partitions[batch.topic]
        limits, media_hosts = self.settings.limits, self.settings.media_hosts
        found: list[Found] = []
        good = 0
        for message in batch.messages:
            usual = decode_usual(topic, message.key, message.value, message.kafka_time, limits)
            if usual is not None:
                found.append((message, usual, True))
                good += len(usual)
                continue
            decoded = decode(
                topic,
                message.key,
                message.value,
                kafka_time=message.kafka_time,
                partition=partition,
                partitions=partitions,
                limits=limits,
                media_hosts=media_hosts,
            )
            found.append((message, decoded.records, False))
            if decoded.rejected or decoded.unknown_fields:
                self.freshness.count_in(topic, decoded)
                for ack in await bury(self.sender, batch, message, decoded):
                    writer.track(ack)
            else:
                good += decoded.count
        self.freshness.count_in(topic, Decoded(count=good))
        return found

    async def _with_media_stored(self, patch: Record) -> Record:
        """Media bytes go to the media store before the flush that names them; the row carries their hash."""
        assert isinstance(patch, Product)
        found = {name: data for name in MEDIA_FIELDS if isinstance(data := getattr(patch, name), bytes)}
        if not found:
            return patch
        references = {name: await asyncio.to_thread(self.media.put, data) for name, data in found.items()}
        return structs.replace(patch, **references)

    async def _forward(self, writer: RowWriter, forwards: Iterable[UserMessage]) -> None:
        """Send them to the partitions of their users, many in a message: the keys of one user stay in their order."""
        partitions = self.partitions[USER_BEHAVIOR]
        by_partition: dict[int, list[UserMessage]] = {}
        for forward in forwards:
            by_partition.setdefault(_home(forward.user_id, partitions), []).append(forward)
        for partition, theirs in by_partition.items():
            for value in encode_users(theirs):
                writer.track(await self.sender.send(USER_BEHAVIOR, value, partition=partition))


async def bury(sender: Sender, batch: Batch, message: Message, decoded: Decoded) -> list[Awaitable[object]]:
    """Send what was rejected to `dead-letter`, with the original bytes and the reason."""
    acks: list[Awaitable[object]] = []
    for rejected in decoded.rejected:
        key, value, headers = dead_letter(
            batch.topic, batch.partition, message.offset, message.key, message.value, rejected
        )
        acks.append(await sender.send(DEAD_LETTER, value, key=key, headers=headers))
    return acks


def _entries(partition: int, message: Message, records: Sequence[tuple[int, Any]]) -> list[Entry]:
    """What one message says, by product; a message is folded whole. The records are patches or events."""
    offset, kafka_time = message.offset, message.kafka_time
    stamps = {partition: offset}
    if len(records) == 1:
        return [Entry(records[0][1].product_id, stamps, offset, kafka_time, records, is_own=True)]
    by_product: dict[str, list[tuple[int, Any]]] = {}
    for pair in records:
        product_id = pair[1].product_id
        if product_id in by_product:
            by_product[product_id].append(pair)
        else:
            by_product[product_id] = [pair]
    return [Entry(product, stamps, offset, kafka_time, pairs, is_own=True) for product, pairs in by_product.items()]


def _forwards(partition: int, message: Message, records: Sequence[tuple[int, Any]]) -> list[UserMessage]:
    """What one message of `behavior` says, by user."""
    if len(records) == 1 and records[0][1].user_id is None:
        return []
    by_user: dict[str, list[tuple[int, Behavior]]] = {}
    for pair in records:
        user_id = pair[1].user_id
        if user_id is not None:
            by_user.setdefault(user_id, []).append(pair)
    return [
        UserMessage(user_id, partition, message.offset, message.kafka_time, tuple(theirs))
        for user_id, theirs in by_user.items()
    ]


@lru_cache(maxsize=100_000)
def _home(user_id: str, partitions: int) -> int:
    return partition_for(user_id, partitions)


def _has_media(patch: Any) -> bool:
    return isinstance(patch.image, bytes) or isinstance(patch.video, bytes) or isinstance(patch.audio, bytes)
