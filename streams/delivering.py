"""The door to librdkafka for single messages: its own threads send them, beside Python, and hear what came of them."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaException, Producer

from streams.records import Headers
from streams.seldom import Seldom
from streams.settings import Settings

log = logging.getLogger(__name__)
log.addFilter(Seldom())

#: a message that was not acknowledged within this is given up
GIVE_UP_S = 30.0
#: what still waits when the engine stops is sent within this, or made again from what is read again
LAST_S = 5.0
#: what may wait for the broker, in all partitions together
WAITING_KIB = 65_536
#: how long the thread waits for acknowledgements before it looks whether it is to end
LOOK_S = 0.1
#: how long a message waits before it is tried again where too much waits already
ROOM_S = 0.01

#: a message's future, and why it was not delivered
Outcome = tuple["asyncio.Future[object]", str | None]


class Undelivered(RuntimeError):
    """A message that the broker has not taken, for good."""


class Delivering:
    """Sends messages one by one, in their order by partition, idempotently where the broker can.

    `send` belongs to the event loop; what came of messages is heard by a thread, which tells the loop.
    """

    def __init__(self, settings: Settings, most_bytes: int) -> None:
        """`most_bytes`: of one message, at most."""
        self._settings = settings
        self._most_bytes = most_bytes
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        #: heard since the loop was told last
        self._outcomes: deque[Outcome] = deque()

    async def start(self) -> None:
        """Begin; brokers are met when there is something to send."""
        self._producer = Producer(
            {
                **self._settings.librdkafka(),
                "acks": "all",
                "enable.idempotence": self._settings.kafka_kind == "apache",
                # as Kafka's own client: who reads by key must find what is sent by key
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "message.max.bytes": self._most_bytes,
                "message.timeout.ms": int(GIVE_UP_S * 1000),
                "queue.buffering.max.kbytes": WAITING_KIB,
            },
            logger=log,
        )
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(self._producer, loop), name="delivering", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Send what waits, if the broker is there, and end the thread."""
        if self._producer is not None:
            await asyncio.to_thread(self._producer.flush, LAST_S)
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        _settle(self._outcomes)
        self._producer = None

    async def send(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int | None, headers: Headers
    ) -> "asyncio.Future[object]":
        """Hand a message over, once there is room; the future is done when it is acknowledged. Raises Undelivered."""
        assert self._producer is not None, "start() comes first"
        delivered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def hear(error: Any, record: Any) -> None:
            self._outcomes.append((delivered, None if error is None else f"{topic}: {error.str()}"))

        while True:
            try:
                self._producer.produce(
                    topic, value, key, -1 if partition is None else partition, on_delivery=hear, headers=list(headers)
                )
            except BufferError:
                await asyncio.sleep(ROOM_S)
            except KafkaException as error:
                raise Undelivered(f"{topic}: {error.args[0].str()}") from error
            else:
                return delivered

    def _run(self, producer: Producer, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: `hear` is called inside `poll`."""
        while not self._stopping.is_set():
            producer.poll(LOOK_S)
            if self._outcomes:
                # one by one: `flush` hears of some, too, in a thread of its own
                heard = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
                loop.call_soon_threadsafe(_settle, heard)


def _settle(outcomes: Iterable[Outcome]) -> None:
    for delivered, reason in outcomes:
        if delivered.done():
            continue  # nobody wants to know any more
        if reason is None:
            delivered.set_result(None)
        else:
            delivered.set_exception(Undelivered(reason))
