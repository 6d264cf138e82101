"""The product side: catalog and behaviour events -> rows, `feature-changes`, `content`, `user-behavior`.

One method per arrow of the drawing; what a row is and when it is written stands in `streams.writing`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec import structs

from feature_repo.events import Behavior, Heartbeat, Product
from streams.dead_letters import dead_letter
from streams.emitting import Emitter, Sender
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
    decode_user,
    encode_record,
    encode_user,
)
from streams.settings import Settings
from streams.transport import Batch, Message
from streams.validation import Decoded, decode
from streams.writing import RowWriter

MEDIA_FIELDS = ("image", "video", "audio")
HEARTBEAT_S = 60.0
#: heartbeats are told again this often: a ranking worker that starts reads only the last minutes
CLOCK_S = 5.0


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

    async def on_catalog(self, batch: Batch) -> None:
        """Patches of products, null values, bulk messages -> product_catalog and `content`."""
        writer = self.ownership.writer(CATALOG, batch.partition)
        if writer is None:
            return
        entries: list[Entry] = []
        for message in batch.messages:
            decoded = await self._decode(writer, batch, message)
            patches = [(place, await self._with_media_stored(r)) for place, r in decoded.records]
            entries += _entries(batch.partition, message, patches)
        await writer.take(entries, batch.next_offset)

    async def on_behavior(self, batch: Batch) -> None:
        """What shoppers did -> product_behavior and `user-behavior`; heartbeats -> the log's clock."""
        writer = self.ownership.writer(BEHAVIOR, batch.partition)
        if writer is None:
            return
        entries: list[Entry] = []
        heartbeats: list[tuple[int, int]] = []
        for message in batch.messages:
            decoded = await self._decode(writer, batch, message)
            events = [(place, r) for place, r in decoded.records if isinstance(r, Behavior)]
            heartbeats += [(message.offset, r.event_time) for _, r in decoded.records if isinstance(r, Heartbeat)]
            entries += _entries(batch.partition, message, events)
            await self._forward_users(writer, batch.partition, message, events)
        await writer.take(entries, batch.next_offset, heartbeats)

    async def on_user_behavior(self, batch: Batch) -> None:
        """The events again, by user -> user_behavior. Our own messages: origin partition and offset go along."""
        writer = self.ownership.writer(USER_BEHAVIOR, batch.partition)
        if writer is None:
            return
        entries = []
        for message in batch.messages:
            assert message.value is not None
            user = decode_user(message.value)
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

    async def _decode(self, writer: RowWriter, batch: Batch, message: Message) -> Decoded:
        decoded = decode(
            batch.topic,
            message.key,
            message.value,
            kafka_time=message.kafka_time,
            partition=batch.partition,
            partitions=self.partitions[batch.topic],
            limits=self.settings.limits,
            media_hosts=self.settings.media_hosts,
        )
        self.freshness.count_in(batch.topic, decoded)
        for ack in await bury(self.sender, batch, message, decoded):
            writer.track(ack)
        return decoded

    async def _with_media_stored(self, patch: Record) -> Record:
        """Media bytes go to the media store before the flush that names them; the row carries their hash."""
        assert isinstance(patch, Product)
        found = {name: data for name in MEDIA_FIELDS if isinstance(data := getattr(patch, name), bytes)}
        if not found:
            return patch
        references = {name: await asyncio.to_thread(self.media.put, data) for name, data in found.items()}
        return structs.replace(patch, **references)

    async def _forward_users(
        self, writer: RowWriter, partition: int, message: Message, events: Iterable[tuple[int, Behavior]]
    ) -> None:
        by_user: dict[str, list[tuple[int, Behavior]]] = {}
        for place, event in events:
            if event.user_id is not None:
                by_user.setdefault(event.user_id, []).append((place, event))
        for user_id, theirs in by_user.items():
            forward = UserMessage(user_id, partition, message.offset, message.kafka_time, tuple(theirs))
            writer.track(await self.sender.send(USER_BEHAVIOR, encode_user(forward), key=user_id.encode()))


async def bury(sender: Sender, batch: Batch, message: Message, decoded: Decoded) -> list[Awaitable[object]]:
    """Send what was rejected to `dead-letter`, with the original bytes and the reason."""
    acks: list[Awaitable[object]] = []
    for rejected in decoded.rejected:
        key, value, headers = dead_letter(
            batch.topic, batch.partition, message.offset, message.key, message.value, rejected
        )
        acks.append(await sender.send(DEAD_LETTER, value, key=key, headers=headers))
    return acks


def _entries(partition: int, message: Message, records: Iterable[tuple[int, Record]]) -> list[Entry]:
    """What one message says, by product; a message is folded whole."""
    by_product: dict[str, list[tuple[int, Record]]] = {}
    for place, record in records:
        assert isinstance(record, Product | Behavior)
        by_product.setdefault(record.product_id, []).append((place, record))
    stamps = {partition: message.offset}
    return [
        Entry(product, stamps, message.offset, message.kafka_time, tuple(pairs))
        for product, pairs in by_product.items()
    ]
