"""Our driver of Faust for Kafka: batch drain, seek where the owner says, commit = flush.

Faust's consumer is the member of the group: it joins, is assigned partitions and commits, and fetches nothing. Records
come by `streams.fetching`. One fetched batch of a partition is one event of an agent. The drain is the only reader and
it seeks itself, at the top of its loop, so that nothing races: an assignment and a rewind both only set a flag. Every
batch names the epoch it was fetched in; a batch from before a seek reaches nobody.
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

from streams.fetching import Fetching, Message
from streams.owning import Bounds
from streams.records import Place
from streams.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one fetch brought of one partition."""

    topic: str
    partition: int
    messages: Sequence[Message]
    epoch: int
    #: it was handled, or nobody waits for that any longer
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
    """aiokafka in its own thread, with a rebalance timeout that is ours to set. What it is assigned is paused."""

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
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            rebalance_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 6),
            **settings.security(),
        )

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        consumer = self._ensure_consumer()
        consumer.pause(*consumer.assignment())
        await super().on_partitions_assigned(assigned, generation_id)

    def is_not_stuck(self) -> None:
        """To be said now and then: a member that asks for no records for five minutes leaves the group."""
        with self._ensure_consumer()._subscription.fetch_context():
            pass


class Consumer(driver.Consumer):
    """Drains batches; asks the hooks where to begin after every assignment and rewind."""

    _seek_due = True
    _delivered: Batch | None = None
    _fetching: Fetching
    epoch = 0
    #: Kafka timestamp (ms) of the newest message read, by partition
    read_times: Mapping[Place, int] = {}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_start(self) -> None:
        self._fetching = Fetching(self._hooks.settings, self.app.conf.id)
        await self._fetching.start()
        await super().on_start()

    async def on_stop(self) -> None:
        await super().on_stop()
        await self._fetching.stop()

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        return await self._fetching.get(timeout)

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

    def stop_flow(self) -> None:
        super().stop_flow()
        if self._delivered is not None:
            # its agent may wait for the store; the drain must not, when the partitions go
            self._delivered.done.set()

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
        self._fetching.assign(offsets)
        log.info("reading from %s", {f"{topic}[{partition}]": offset for (topic, partition), offset in offsets.items()})

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                if self._seek_due and self.flow_active:
                    await self._seek_where_owner_says()
                    continue
                fetched, _ = await self._wait_next_records(1.0)
                for place, messages in (fetched or {}).items():
                    if self._seek_due or not self.flow_active:
                        break
                    await self._deliver(place, messages)
        except ConsumerStoppedError:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as error:
            # Faust would log it and leave a worker that owns partitions and reads nothing
            self._hooks.on_crash(error)

    async def _deliver(self, place: Place, messages: Sequence[Message]) -> None:
        batch = Batch(*place, messages, self.epoch)
        last, tp = messages[-1], TP(*place)
        message = ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.kafka_time / 1000, 0, None,
            None, cast(bytes, batch), None, 0, 0, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        self._committed_offset.setdefault(tp, None)
        self.read_times = {**self.read_times, place: last.kafka_time}
        self._delivered = batch
        # the agent has taken the batch before, so that there is room and nothing to wait for
        await self.callback(message)
        await batch.done.wait()

    def end_of(self, place: Place) -> int:
        """The offset after a partition's last, as of the newest fetch; 0 before the first."""
        return self._fetching.end_of(place) or 0

    @faust.Service.task
    async def _mirror_offsets(self) -> None:
        async for _ in self.itertimer(0.5, name="mirror"):
            cast(ConsumerThread, self._thread).is_not_stuck()
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
