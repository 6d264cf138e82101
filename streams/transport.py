"""Our driver of Faust for Kafka: fetch wait, batch drain, seek where the owner says, commit = flush.

One fetched batch of a partition is one event of an agent. The drain is the only reader and it seeks itself, at the top
of its loop, so that nothing races: an assignment and a rewind both only set a flag. Every batch names the epoch it was
fetched in; a batch from before a seek reaches nobody.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import aiokafka
import faust
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from msgspec import Struct

from streams.owning import Bounds, Place
from streams.records import Headers
from streams.settings import Settings

log = logging.getLogger(__name__)


class Message(Struct, frozen=True, gc=False):
    """One Kafka record as it was fetched; `kafka_time` in ms UTC."""

    offset: int
    key: bytes | None
    value: bytes | None
    kafka_time: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one fetch brought of one partition."""

    topic: str
    partition: int
    messages: Sequence[Message]
    epoch: int
    done: asyncio.Event = field(default_factory=asyncio.Event, compare=False)

    @property
    def next_offset(self) -> int:
        return self.messages[-1].offset + 1


@dataclass(slots=True)
class Hooks:
    """What the owner of the partitions wants of the consumer."""

    settings: Settings
    #: bounds of the assigned partitions -> offsets to read from
    resume: Callable[[Mapping[Place, Bounds], int], Awaitable[Mapping[Place, int]]]
    #: write what is packed; bool: partitions are being revoked or the process stops
    flush: Callable[[bool], Awaitable[None]]
    #: offsets to tell Kafka, a mirror for lag tools
    committed: Callable[[], Mapping[Place, int]]
    on_revoked: Callable[[], Awaitable[None]]
    on_crash: Callable[[BaseException], None]
    instance_id: str | None = None


class BatchSchema(faust.Schema[bytes, Batch]):
    """The message's value is the batch: there is nothing to decode."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        return message.key

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        return message.value


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka in its own thread, with a fetch wait and a rebalance timeout that are ours to set."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        hooks = cast("Transport", transport).hooks
        settings = hooks.settings
        conf = self.app.conf
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=hooks.instance_id,
            bootstrap_servers=settings.kafka,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=max(conf.consumer_max_fetch_size, settings.limits.message_bytes + 65_536),
            fetch_max_wait_ms=settings.fetch_wait_ms,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            rebalance_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 6),
            **settings.security(),
        )


class Consumer(driver.Consumer):
    """Drains batches; asks the hooks where to begin after every assignment and rewind."""

    _seek_due = True
    epoch = 0
    #: Kafka timestamp (ms) of the newest message read, by partition
    read_times: Mapping[Place, int] = {}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _hooks(self) -> Hooks:
        return cast("Transport", self.transport).hooks

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's watchdog reads acks that this driver does not keep."""

    async def perform_seek(self) -> None:
        self.request_seek()

    def request_seek(self) -> None:
        """Have the drain ask the owner where to begin before it reads on."""
        self._seek_due = True

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """A commit is a flush. On revoke and stop (`start_new_transaction` is False) it may take a few seconds."""
        for offsets in (self._acked, self._acked_index):
            for acked in offsets.values():
                acked.clear()
        if not start_new_transaction:
            await self._hooks.flush(True)
        return True

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        await self._hooks.on_revoked()

    async def _seek_where_owner_says(self) -> None:
        self._seek_due = False
        self.epoch += 1
        generation = self.app.consumer_generation_id
        assigned = {tp for tp in self.assignment() if tp in self._get_active_partitions()}
        starts = await self.earliest_offsets(*assigned) if assigned else {}
        ends = await self.highwaters(*assigned) if assigned else {}
        committed = await self.seek_to_committed() if assigned else {}
        exact = self._hooks.settings.kafka_kind == "apache"
        bounds = {
            (tp.topic, tp.partition): Bounds(starts[tp] or 0, ends[tp] or 0, _or_none(committed.get(tp)), exact)
            for tp in assigned
        }
        offsets = await self._hooks.resume(bounds, generation)
        if self._seek_due or generation != self.app.consumer_generation_id:
            self._seek_due = True
            return
        positions = {TP(topic, partition): offset for (topic, partition), offset in offsets.items()}
        if positions:
            await self.seek_wait(positions)
        log.info("reading from %s", {f"{tp.topic}[{tp.partition}]": offset for tp, offset in positions.items()})

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                if self._seek_due and self.flow_active:
                    await self._seek_where_owner_says()
                    continue
                records, _ = await self._wait_next_records(1.0)
                for tp, fetched in (records or {}).items():
                    if self._seek_due or not self.flow_active:
                        break
                    if fetched:
                        await self._deliver(TP(tp.topic, tp.partition), fetched)
        except ConsumerStoppedError:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as error:
            # Faust would log it and leave a worker that owns partitions and reads nothing
            self._hooks.on_crash(error)

    async def _deliver(self, tp: TP, fetched: Sequence[Any]) -> None:
        messages = [Message(r.offset, r.key, r.value, r.timestamp, r.headers) for r in fetched]
        batch = Batch(tp.topic, tp.partition, messages, self.epoch)
        last = fetched[-1]
        message = ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, None,
            None, cast(bytes, batch), None, 0, 0, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        self._committed_offset.setdefault(tp, None)
        self.read_times = {**self.read_times, (tp.topic, tp.partition): last.timestamp}
        # the agent has taken the batch before, so that there is room and nothing to wait for
        await self.callback(message)
        await self.wait_first(batch.done.wait(), self.suspend_flow.wait())

    def end_of(self, place: Place) -> int:
        """The offset after a partition's last, as of the newest fetch; 0 before the first."""
        return self.highwater(TP(*place)) or 0

    @faust.Service.task
    async def _mirror_offsets(self) -> None:
        async for _ in self.itertimer(0.5, name="mirror"):
            offsets = {TP(topic, p): offset for (topic, p), offset in self._hooks.committed().items()}
            assigned = self.assignment()
            owned = {tp: offset for tp, offset in offsets.items() if tp in assigned}
            if owned and self.flow_active:
                await self._commit(owned)


def _or_none(offset: int | None) -> int:
    return -1 if offset is None else offset


class Transport(driver.Transport):
    """aiokafka's transport with our consumer."""

    Consumer = Consumer
    hooks: Hooks


def install(app: faust.App, hooks: Hooks) -> None:
    """Put our driver in the place of the app's own."""
    transport = Transport(app.conf.broker, app, loop=app.loop)
    transport.hooks = hooks
    app.transport = transport
