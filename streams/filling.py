"""Fill the rows of an encoder that is not in force: every content that the log has, by a content worker of its own.

The worker has its own consumer group and tells nobody of its rows; markers lie beside them, so whoever encodes with
that version afterwards goes on where it ended.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from kafka import TopicPartition

from feature_repo.row_store import RowStore, StoreUnavailable
from feature_repo.views import PRODUCT_CONTENT
from serving.settings import ServingSettings
from streams import topics
from streams.client import ClientError, Connection, Unreachable
from streams.local.process import Process, describe_exit
from streams.records import CONTENT
from streams.settings import Settings, environment
from streams.workers import space_of

LOOK_S: Final = 0.1
GRACE_S: Final = 10.0

#: messages of `content` that are encoded, of so many
Report = Callable[[int, int], None]


class NotFilled(ClientError):
    """The worker that encodes has ended."""


def fill(settings: Settings, serving: ServingSettings, encoder: int, report: Report) -> None:
    """Encode what `content` has by now with this version of `product_encoder`, which Triton serves.

    What an earlier call has done is not done again. Raises NotFilled, Unreachable.
    """
    try:
        ids = topics.check(settings)
    except (topics.BrokerAway, topics.TopicsDiffer) as error:
        raise Unreachable(str(error)) from error
    argv = [sys.executable, "-m", "streams", "worker", "--role", "content", "--encoder", str(encoder)]
    with tempfile.TemporaryDirectory(prefix="freshrank-") as folder:
        log = Path(folder) / "worker.log"
        worker = Process(argv, log, {**environment(settings, serving), "FRESHRANK_METRICS_PORT": "0"})
        worker.start()
        try:
            asyncio.run(_wait(settings, ids, encoder, worker, report))
        finally:
            worker.stop(GRACE_S)


async def _wait(settings: Settings, ids: topics.TopicIds, encoder: int, worker: Process, report: Report) -> None:
    ranges = await asyncio.to_thread(_ranges, settings, ids.partitions[CONTENT])
    total = sum(end - start for start, end in ranges.values())
    space = space_of(PRODUCT_CONTENT, ids, str(encoder))
    store = RowStore(settings.redis.get_secret_value())
    try:
        while True:
            try:
                markers = await store.markers(space, list(ranges))
            except StoreUnavailable as error:
                raise Unreachable(str(error)) from error
            reached = [0 if marker is None else marker.offset for marker in markers]
            left = sum(max(0, end - max(start, at)) for (start, end), at in zip(ranges.values(), reached, strict=True))
            report(total - left, total)
            if left == 0:
                return
            if worker.returncode is not None:
                raise NotFilled(
                    f"the worker that encodes has ended, {describe_exit(worker.returncode)}: {worker.tail(1)}"
                )
            await asyncio.sleep(LOOK_S)
    finally:
        await store.close()


def _ranges(settings: Settings, partitions: int) -> Mapping[int, tuple[int, int]]:
    """First offset and the one after the last, by partition."""
    consumer = Connection.from_settings(settings).consumer()
    try:
        places = [TopicPartition(CONTENT, partition) for partition in range(partitions)]
        starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        return {place.partition: (starts[place], ends[place]) for place in places}
    finally:
        consumer.close(autocommit=False)
