"""The door to Kafka for what the engine reads by the thousand: partitions from given offsets on, by librdkafka.

Its own threads fetch, check and take apart what comes, beside Python. One thread of ours waits for them, and the event
loop is told what came. Who owns which partition is not decided here: Faust's consumer is the member of the group.
"""

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition
from msgspec import Struct

from streams.records import Headers, Place
from streams.seldom import Seldom
from streams.settings import Settings

log = logging.getLogger(__name__)
log.addFilter(Seldom())

#: records that are handed over at once, at most
MOST_RECORDS = 20_000
#: what is fetched ahead of that, in all partitions together
AHEAD_KIB = 16_384
#: how long the thread waits for records before it looks whether it is to read elsewhere
LOOK_S = 0.1
#: what has come is handed over while the last is looked at, and no more
HANDED_OVER = 2


class Message(Struct, frozen=True, gc=False):
    """One Kafka record as it was fetched; `kafka_time` in ms UTC."""

    offset: int
    key: bytes | None
    value: bytes | None
    kafka_time: int
    headers: Headers


class OutOfRange(RuntimeError):
    """An offset that was to be read is not in the log."""


#: which assignment something is of, when it came (monotonic ms), and what, or why nothing will
Came = tuple[int, int, Sequence[Any] | BaseException]


class Fetching:
    """Reads partitions in the order of their offsets, from where it was last told to.

    `assign` and `get` belong to the event loop; librdkafka's consumer is the thread's alone. A failure that will not
    pass, an offset out of range first of all, is raised by `get`; brokers that are away are waited for.
    """

    def __init__(self, settings: Settings, group: str) -> None:
        """`group` is only a name for the broker's authorization; nobody joins it here."""
        self._settings = settings
        self._group = group
        self._consumer: Consumer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        #: where to read, as the loop last said, and how often it has said so
        self._wanted: tuple[int, Mapping[Place, int]] = (0, {})
        #: ends of partitions, and of which assignment they are
        self._ends: tuple[int, Mapping[Place, int]] = (0, {})
        self._room = threading.Semaphore(HANDED_OVER)
        self._came: deque[Came] = deque()
        #: when what `get` gave last had come to this process (monotonic ms), which may have been busy since
        self.came_at = 0
        self._waiter: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Begin to read nothing; brokers are met when there is something to read."""
        self._consumer = Consumer(
            {
                **self._settings.librdkafka(),
                "group.id": self._group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "check.crcs": True,
                "fetch.wait.max.ms": self._settings.fetch_wait_ms,
                "fetch.queue.backoff.ms": 1,
                "fetch.message.max.bytes": 2 * self._settings.limits.message_bytes,
                "queued.min.messages": MOST_RECORDS,
                "queued.max.messages.kbytes": AHEAD_KIB,
            },
            logger=log,
        )
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(self._consumer, loop), name="fetching", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread and the connections."""
        self._stopping = True
        self._room.release()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.close)
            self._consumer = None

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Read these partitions from these offsets on, and nothing else; what has come by now reaches nobody."""
        self._wanted = (self._wanted[0] + 1, dict(positions))

    async def get(self, timeout_s: float) -> dict[Place, list[Message]]:
        """What has come, by partition; empty when nothing has within the time."""
        if not self._came:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
        return self._sorted(self._came.popleft()) if self._came else {}

    def end_of(self, place: Place) -> int | None:
        """The offset after a partition's last, as of an answer of the last tenth of a second; None before the first."""
        told, ends = self._ends
        return ends.get(place) if told == self._wanted[0] else None

    def _take(self, came: Came) -> None:
        self._came.append(came)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _sorted(self, came: Came) -> dict[Place, list[Message]]:
        told, self.came_at, records = came
        self._room.release()
        found: defaultdict[Place, list[Message]] = defaultdict(list)
        if told != self._wanted[0]:
            return found  # nor is a failure of partitions that are another's by now
        if isinstance(records, BaseException):
            raise records
        for record in records:
            found[record.topic(), record.partition()].append(
                Message(
                    record.offset(),
                    record.key(),
                    record.value(),
                    record.timestamp()[1],
                    record.headers() or (),
                )
            )
        return found

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self, consumer: Consumer, loop: asyncio.AbstractEventLoop) -> None:
        """For ever: read where the loop says, and hand over what came once the loop has taken what was before."""
        told, looked = 0, 0.0
        while True:
            self._room.acquire()
            records: Sequence[Any] | BaseException = ()
            try:
                while not records:
                    if self._stopping:
                        return
                    wanted, positions = self._wanted
                    if wanted != told:
                        # here and not in the loop, so that everything that comes from now on is of these offsets
                        consumer.assign([TopicPartition(*place, offset) for place, offset in positions.items()])
                        told = wanted
                    records = _some(consumer)
                    if monotonic() - looked >= LOOK_S:
                        self._ends, looked = (told, _ends(consumer, positions)), monotonic()
            except Exception as error:
                records = error
            loop.call_soon_threadsafe(self._take, (told, int(monotonic() * 1000), records))


def _ends(consumer: Consumer, places: Iterable[Place]) -> dict[Place, int]:
    """The offset after the last record of each partition that has answered."""
    found = {place: consumer.get_watermark_offsets(TopicPartition(*place), cached=True) for place in places}
    return {place: marks[1] for place, marks in found.items() if marks is not None and marks[1] >= 0}


def _some(consumer: Consumer) -> list[Any]:
    """What comes within LOOK_S, and what lies ready then."""
    first = consumer.poll(LOOK_S)
    if first is None:
        return []
    return [record for record in (first, *consumer.consume(MOST_RECORDS - 1, 0)) if _is_good(record)]


def _is_good(record: Any) -> bool:
    """Whether it is a record. Raises what will not pass; what may pass is librdkafka's to try again."""
    error = record.error()
    if error is None:
        return True
    where = f"{record.topic()}[{record.partition()}]"
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise OutOfRange(f"{where}: {error.str()}")
    if error.fatal() or error.code() in _HOPELESS:
        raise RuntimeError(f"{where}: {error.str()}")
    log.warning("%s: %s", where, error.str())
    return False


_HOPELESS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError._BAD_MSG,
)
