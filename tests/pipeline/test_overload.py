"""Many times more than the engine takes in: memory is bounded, rankings are coarser, and soon everything is right."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from feature_repo.events import Heartbeat
from feature_repo.row_store import RowStore, Space
from feature_repo.views import HOUR_MS, MINUTE_MS, PRODUCT_BEHAVIOR
from streams import topics
from streams.emitting import Outbound
from streams.local.engine import LocalEngine
from streams.local.process import wait_until
from streams.metrics import RANKINGS_OUT
from streams.producing import KafkaSender
from streams.records import BEHAVIOR, CATALOG, encode_record, partition_for, record_key
from streams.settings import Settings
from tests.pipeline.conftest import Verify
from tests.pipeline.shop import Shop

pytestmark = [pytest.mark.parts, pytest.mark.timeout(480)]

EVENTS = 15_000
LONGER = 4
#: how many times faster than it is taken in the input comes, at least
FASTER = 3
#: a worker that kept what waits, 2 KB an event, would have almost twice the memory after the long flood
MOST_GROWTH = 1.5
#: of the rankings an event that a calm shop sees, at most
COARSER = 0.25
SAMPLE_S = 0.05

#: the messages of each (topic, partition), in order
Flood = Mapping[tuple[str, int], list[Outbound]]


def test_more_than_the_engine_takes_in(engine: LocalEngine, shop: Shop, verify: Verify) -> None:
    """A flood, then one four times as long, which takes little more memory: what has not been read waits in Kafka."""
    before = engine.snapshot()
    shop.trade(engine.settings)
    verify()
    calm = engine.snapshot().since(before).total(RANKINGS_OUT) / shop.events
    stories = [
        replace(shop, seed=shop.seed + number, events=EVENTS, begins_ms=shop.begins_ms + 3 * number * HOUR_MS)
        for number in range(1, 2 + LONGER)
    ]
    short = withstand(engine, stories[:1], calm, verify)
    long = withstand(engine, stories[1:], calm, verify)
    assert {name for name, peak in long.items() if peak > MOST_GROWTH * short[name]} == set(), (short, long)
    assert wait_until(lambda: all(row.lag == 0 for row in engine.snapshot().partitions()), 10.0)


def withstand(engine: LocalEngine, stories: list[Shop], calm: float, verify: Verify) -> dict[str, int]:
    """Pour, and wait until everything is right: coarser than `calm` rankings an event. The most memory by worker."""
    before = engine.snapshot()
    memory = Memory(engine)
    with memory.watched():
        sent, taken_in = asyncio.run(pour(engine.settings, flood_of(stories, engine.settings.partitions)))
        verify()
    assert taken_in * FASTER <= sent
    rankings = engine.snapshot().since(before).total(RANKINGS_OUT)
    assert rankings / (len(stories) * EVENTS) < COARSER * calm
    return memory.peaks


def flood_of(stories: list[Shop], partitions: int) -> Flood:
    """Every event a message of its own, a heartbeat each minute of event time."""
    found: defaultdict[tuple[str, int], list[Outbound]] = defaultdict(list)

    def beat(time: int) -> None:
        for partition in range(partitions):
            found[BEHAVIOR, partition].append(Outbound(None, encode_record(Heartbeat(event_time=time)), ()))

    for shop in stories:
        clock = shop.begins_ms
        for time, event in shop.story():
            if time // MINUTE_MS > clock // MINUTE_MS:
                clock = time // MINUTE_MS * MINUTE_MS
                beat(clock)
            topic = CATALOG if event.type == "product" else BEHAVIOR
            message = Outbound(record_key(event), encode_record(event), ())
            found[topic, partition_for(event.product_id, partitions)].append(message)
        beat(shop.ends_ms)
    return found


async def pour(settings: Settings, flood: Flood) -> tuple[int, int]:
    """Send everything as fast as Kafka takes it; messages of `behavior`, and how many were taken in by the end."""
    failures: list[BaseException] = []
    sender, store = KafkaSender(settings, failures.append), RowStore(settings.redis.get_secret_value())
    ids = await asyncio.to_thread(topics.check, settings)
    space = Space(ids.cluster, ids.topics[BEHAVIOR], PRODUCT_BEHAVIOR.name)

    async def read_to() -> int:
        markers = await store.markers(space, range(settings.partitions))
        return sum(marker.offset for marker in markers if marker is not None)

    await sender.start()
    try:
        before = await read_to()
        await asyncio.gather(*[await sender.send_many(*place, messages) for place, messages in flood.items()])
        after = await read_to()
    finally:
        await sender.stop()
        await store.close()
    assert failures == []
    return sum(len(messages) for (topic, _), messages in flood.items() if topic == BEHAVIOR), after - before


@dataclass
class Memory:
    """The most memory (bytes, resident) that each worker had."""

    engine: LocalEngine
    peaks: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Looked at again and again within the block."""
        ending = threading.Event()

        def look() -> None:
            while not ending.wait(SAMPLE_S):
                for worker in self.engine.supervisor.status():
                    if worker.pid is not None:
                        self.peaks[worker.name] = max(self.peaks.get(worker.name, 0), resident(worker.pid))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return 1024 * int(fields["VmRSS"].split()[0])
