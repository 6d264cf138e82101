"""The partitions this process owns: a writer for each, resumed from the store's markers, dropped when they go."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from feature_repo.row_store import Marker, Space, StoreUnavailable
from streams.folding import Folding
from streams.records import Place
from streams.writing import RETRY_S, Doors, Rewind, RowWriter

log = logging.getLogger(__name__)

#: a store that forgot what a quiet partition wrote is noticed after this long
CHECK_S = 5.0

CANCEL_AGAIN_S = 0.1
#: a writer that knows of nothing to flush looks anyway after this long
LOOK_S = 1.0
#: a writer rests so many times as long as its last flush took: under load a row is written seldomer, not later for ever
REST_SHARE = 3.0
LONGEST_REST_S = 0.5


class GapInLog(Exception):
    """The log begins above the marker, or ends below it: going on would lose events or read another topic's."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """First offset of a partition, the one after its last, and the one committed in Kafka (-1 when none is).

    Where the end is not exact (Tansu tells the last batch's first offset + 1) the log may go on behind it.
    """

    start: int
    end: int
    committed: int = -1
    is_end_exact: bool = True


class Ownership:
    """Writers of the owned partitions. `on_rewind` asks the consumer to seek again, `on_crash` ends the process."""

    def __init__(
        self,
        views: Mapping[str, tuple[Folding[Any], Space]],
        doors: Doors,
        *,
        flush_s: float,
        accept_gap: bool,
        on_rewind: Callable[[str], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._views = views
        self._doors = doors
        self._flush_s = flush_s
        self._accept_gap = accept_gap
        self._on_rewind = on_rewind
        self._on_crash = on_crash
        self._writers: dict[Place, RowWriter] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(self._writers)

    def writer(self, topic: str, partition: int) -> RowWriter | None:
        """The writer of a partition; None while it is not owned."""
        return self._writers.get((topic, partition))

    async def resume(self, bounds: Mapping[Place, Bounds]) -> dict[Place, int]:
        """Drop every cache and begin again at the markers; the offsets to read from. Waits for the store."""
        await self.drop()
        offsets = {}
        for (topic, partition), bound in bounds.items():
            folding, space = self._views[topic]
            marker = await self._marker(space, partition)
            writer = RowWriter(folding, space, partition, self._doors)
            writer.begin(self._checked(topic, partition, marker, bound), bound.start, bound.end)
            self._writers[topic, partition] = writer
            offsets[topic, partition] = writer.position
            if writer.clock:
                self._doors.emitter.pass_on({partition: writer.clock})
            self._start(writer.run_loading)
            self._start(writer.run_agenda)
            self._start(partial(self._run_flushing, writer))
            self._start(partial(self._run_checking, writer))
        return offsets

    async def drop(self) -> None:
        """Forget the owned partitions; nothing of theirs is written any more."""
        tasks, writers = self._tasks, self._writers
        self._tasks, self._writers = [], {}
        for writer in writers.values():
            writer.abandon()
        pending = set(tasks)
        while pending:
            # asked again: before Python 3.12 a cancellation that meets a call just done is swallowed by it
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)

    async def flush(self) -> None:
        """Write everything that is packed by now."""
        try:
            for writer in list(self._writers.values()):
                await writer.flush()
        except Rewind as rewind:
            self._rewind(rewind)

    def committed(self) -> dict[Place, int]:
        """Offsets below which everything is in the store, as lag tools want them."""
        return {place: writer.written for place, writer in self._writers.items() if writer.written is not None}

    def reached(self) -> dict[Place, int]:
        """The same, counting a partition that was never flushed from where its reading began."""
        return {
            place: writer.begun if writer.written is None else writer.written for place, writer in self._writers.items()
        }

    def clocks(self, topic: str) -> dict[int, int]:
        """Newest heartbeat by partition of a topic."""
        return {p: writer.clock for (t, p), writer in self._writers.items() if t == topic and writer.clock}

    async def _marker(self, space: Space, partition: int) -> Marker | None:
        while True:
            try:
                return (await self._doors.store.markers(space, [partition]))[0]
            except StoreUnavailable as error:
                log.warning("waiting for the store: %s", error)
                await asyncio.sleep(10 * RETRY_S)

    def _checked(self, topic: str, partition: int, marker: Marker | None, bound: Bounds) -> Marker | None:
        """The marker, if the log holds what follows it, or if the gap is accepted; GapInLog otherwise."""
        if marker is None or (bound.start <= marker.offset and (marker.offset <= bound.end or not bound.is_end_exact)):
            return marker
        if marker.offset < bound.start and self._accept_gap:
            return marker
        raise GapInLog(
            f"{topic}[{partition}]: marker at {marker.offset}, the log holds {bound.start} to {bound.end}: "
            + ("retention has cut what was needed" if marker.offset < bound.start else "another topic of this name")
        )

    def _rewind(self, rewind: Rewind) -> None:
        # the consumer seeks between batches: the one that waits for room must end first
        for writer in self._writers.values():
            writer.abandon()
        self._on_rewind(str(rewind))

    async def _run_flushing(self, writer: RowWriter) -> None:
        rest_s = self._flush_s
        loop = asyncio.get_running_loop()
        while True:
            await writer.until_news(LOOK_S)
            await asyncio.sleep(rest_s)
            began = loop.time()
            await writer.flush()
            rest_s = max(self._flush_s, min(REST_SHARE * (loop.time() - began), LONGEST_REST_S))

    async def _run_checking(self, writer: RowWriter) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await writer.check()

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(self._watched(work))
        self._tasks.append(task)

    async def _watched(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Rewind as rewind:
            self._rewind(rewind)
        except Exception as error:
            self._on_crash(error)
