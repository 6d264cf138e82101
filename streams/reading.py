"""Plain consumers, without a group: `feature-changes` for everyone, `rankings` read back, `models`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from feature_repo.events import Bundle
from streams.fetching import Fetching, Message
from streams.minute import Hashes
from streams.ranking_side import RankingSide
from streams.records import FEATURE_CHANGES, MODELS, RANKINGS, WRITER, Place, decode_changes, is_from
from streams.settings import Settings
from streams.tables import Published
from streams.transport import Batch
from streams.validation import Decoded, decode

log = logging.getLogger(__name__)

#: longer than the minute, so that a start has all of it
LOOK_BACK_MS = 180_000
#: how long a worker waits for changes before it waits again
LOOK_S = 1.0
#: how often a worker looks for records of `rankings` that are not its own
READ_BACK_S = 0.2


def plain_consumer(settings: Settings) -> AIOKafkaConsumer:
    """A consumer that belongs to no group and stops where its offsets are gone."""
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=settings.fetch_wait_ms,
        max_partition_fetch_bytes=2 * settings.limits.message_bytes,
        **settings.security(),
    )


async def is_read(consumer: AIOKafkaConsumer, partition: TopicPartition) -> bool:
    """Whether a partition was read to its end: position >= highwater, whatever the last record was."""
    highwater = consumer.highwater(partition)
    return highwater is not None and await consumer.position(partition) >= highwater


async def _ends(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The offset after the last record of each partition; none while nobody answers."""
    try:
        return dict(await consumer.end_offsets(places))
    except KafkaTimeoutError as error:
        log.warning("the ends of %s are not known: %s", RANKINGS, error)
        return {}


async def follow_changes(
    settings: Settings, group: str, partitions: int, side: RankingSide, now_ms: Callable[[], int], origin: bytes = b""
) -> None:
    """`feature-changes` from three minutes back, for ever; what was made from other inputs is passed over.

    Every worker reads all of it. `group` is its own, which the broker lets it use, and which nobody joins here.
    """
    starts, ends = await _bounds(settings, partitions, now_ms() - LOOK_BACK_MS)
    behind = {place for place, end in ends.items() if starts[place] < end}
    fetching = Fetching(settings, group)
    await fetching.start()
    try:
        fetching.assign(starts)
        if not behind:
            side.on_caught_up()
        while True:
            fetched = await fetching.get(LOOK_S)
            for messages in fetched.values():
                values = [message.value or b"" for message in messages if is_from(message.headers, origin)]
                _take_changes(side, values, fetching.came_at)
            if behind:
                behind -= {place for place, messages in fetched.items() if messages[-1].offset + 1 >= ends[place]}
                if not behind:
                    side.on_caught_up()
    finally:
        await fetching.stop()


def _take_changes(side: RankingSide, values: Iterable[bytes], heard: int) -> None:
    """The rows of all messages are tested at once; clocks come in their place among them."""
    hashes: list[Hashes] = []
    rows: list[bytes] = []
    for value in values:
        decoded = decode_changes(value)
        if isinstance(decoded, dict):
            _take_rows(side, hashes, rows, heard)
            side.on_clock(decoded)
        else:
            hashes.append(decoded[0])
            rows += decoded[1]
    _take_rows(side, hashes, rows, heard)


def _take_rows(side: RankingSide, hashes: list[Hashes], rows: list[bytes], heard: int) -> None:
    if hashes:
        side.on_rows(np.concatenate(hashes), rows.copy(), heard)
        hashes.clear()
        rows.clear()


async def _bounds(settings: Settings, partitions: int, since_ms: int) -> tuple[dict[Place, int], dict[Place, int]]:
    """Of `feature-changes`: the first offset of each partition since a time, and the one after its last."""
    consumer = plain_consumer(settings)
    await consumer.start()
    try:
        places = [TopicPartition(FEATURE_CHANGES, partition) for partition in range(partitions)]
        found = await consumer.offsets_for_times(dict.fromkeys(places, since_ms))
        ends = {(place.topic, place.partition): end for place, end in (await consumer.end_offsets(places)).items()}
    finally:
        await consumer.stop()
    starts = dict(ends)
    for place, there in found.items():
        # a time past the end: None on Apache Kafka, timestamp -1 on Tansu
        if there is not None and there.timestamp is not None and there.timestamp >= 0:
            starts[place.topic, place.partition] = there.offset
    return starts, ends


class RankingsFollower:
    """Reads back the owned partitions of `rankings` from their start, anew after every assignment.

    What this process wrote itself is passed over by the offsets of its acknowledgements: that is nearly everything.
    """

    def __init__(self, settings: Settings, side: RankingSide) -> None:
        self._settings = settings
        self._side = side
        self._again = asyncio.Event()

    def restart(self) -> None:
        """Other partitions are owned, or the same anew."""
        self._again.set()

    async def run(self) -> None:
        """Follow for ever."""
        consumer = plain_consumer(self._settings)
        await consumer.start()
        try:
            while True:
                await self._again.wait()
                self._again.clear()
                places = [TopicPartition(RANKINGS, partition) for partition in self._side.owned]
                if places:
                    consumer.assign(places)
                    starts = await consumer.beginning_offsets(places)
                    for place in places:
                        consumer.seek(place, starts[place])
                    await self._follow(consumer, places)
                else:
                    consumer.unsubscribe()
        finally:
            await consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
        """From the start to the end, and from then on what others write between this process's own records."""
        consumer.pause(*places)
        is_first = True
        while not self._again.is_set():
            ends = await _ends(consumer, places)
            if not is_first:
                # what this process had written by then is acknowledged after this, and is not read
                await self._rest()
            behind = {place: end for place, end in ends.items() if await self._pass_own(consumer, place) < end}
            if self._again.is_set():
                return  # the tables began anew while that was asked
            for place in ends.keys() - behind.keys():
                self._side.on_rankings_read(place.partition)
            consumer.resume(*behind)
            while behind:
                batches = await consumer.getmany(*behind, timeout_ms=200)
                read = {place for place, end in behind.items() if await consumer.position(place) >= end}
                if self._again.is_set():
                    return  # the tables began anew while that was asked
                self._take(batches)
                for place in read:
                    consumer.pause(place)
                    self._side.on_rankings_read(place.partition)
                    del behind[place]
            is_first = False

    async def _pass_own(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> int:
        """Go on to the next record that may be another writer's; its offset."""
        position = await consumer.position(place)
        after = self._side.passed(place.partition, position)
        if after > position:
            consumer.seek(place, after)
        return after

    def _take(self, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        own = (WRITER, self._side.writer)
        for place, records in batches.items():
            for record in records:
                if own in record.headers:
                    continue  # nothing new to who wrote it
                key = (record.key or b"").decode(errors="replace")
                self._side.on_published(Published(place.partition, key, record.value, record.headers))

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), READ_BACK_S)


Reject = Callable[[Batch, Decoded], Awaitable[None]]


async def follow_models(
    settings: Settings, on_bundle: Callable[[Bundle], None], on_rejected: Reject | None = None
) -> None:
    """`models` from its start, for ever: the newest valid bundle is in force.

    `on_rejected` is told what is not valid among the records that come once the topic was read.
    """
    consumer = plain_consumer(settings)
    await consumer.start()
    try:
        place = TopicPartition(MODELS, 0)
        consumer.assign([place])
        consumer.seek(place, (await consumer.beginning_offsets([place]))[place])
        newest: Bundle | None = None
        told: Bundle | None = None
        was_read = False
        while True:
            for record in (await consumer.getmany(timeout_ms=200)).get(place, []):
                message = Message(record.offset, record.key, record.value, record.timestamp, record.headers)
                decoded = _decoded(settings, message)
                newest = next((found for _, found in decoded.records if isinstance(found, Bundle)), newest)
                if decoded.rejected and was_read and on_rejected is not None:
                    await on_rejected(Batch(MODELS, 0, [message], 0), decoded)
            was_read = was_read or await is_read(consumer, place)
            if newest is not None and newest != told and was_read:
                told = newest
                on_bundle(newest)
    finally:
        await consumer.stop()


def _decoded(settings: Settings, message: Message) -> Decoded:
    decoded = decode(
        MODELS,
        message.key,
        message.value,
        kafka_time=message.kafka_time,
        partition=0,
        partitions=1,
        limits=settings.limits,
    )
    for rejected in decoded.rejected:
        log.error("models[0] offset %d: %s: %s", message.offset, rejected.reason, rejected.text)
    return decoded
