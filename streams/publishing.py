"""Records of `rankings` on their way: numbered, packed, sent in the order of their partition, and seen to arrive."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

import numpy as np

from streams.candidate_rows import PRODUCT_VIEWS
from streams.emitting import Outbound, Sender
from streams.freshness import Freshness, RankingsSent
from streams.own_runs import OwnRuns
from streams.packed_ids import PackedIds
from streams.packing import pack_rankings
from streams.records import RANKINGS, VERSION, WRITER
from streams.reordering import Reordered
from streams.tables import Tables


class Publishing:
    """One queue a partition. What is in a queue is not sent yet and can be dropped; what was handed over cannot.

    `run` hands all queues over and begins again when Kafka's client has taken them: messages grow with the load.
    """

    def __init__(
        self,
        sender: Sender,
        freshness: Freshness,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._sender = sender
        self._freshness = freshness
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms
        self._on_crash = on_crash
        self._queues: dict[int, list[Outbound]] = {}
        #: what freshness is told once all that waits was acknowledged
        self._told: list[RankingsSent] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        #: names this process since its partitions were assigned
        self.writer = b""
        #: where this writer's records are, by partition
        self._own: defaultdict[int, OwnRuns] = defaultdict(OwnRuns)

    def begin(self) -> None:
        """Other partitions are owned: what this process sent before is another writer's, what waits is dropped."""
        self.drop()
        self.writer = os.urandom(8)
        self._own = defaultdict(OwnRuns)

    def passed(self, partition: int, offset: int) -> int:
        """The first offset from this one on of a record that may be another writer's."""
        return self._own[partition].passed(offset)

    def drop(self) -> None:
        """Nothing that waits is ours to send any more."""
        self._queues, self._told = {}, []

    def publish(self, reordered: Reordered, packed_ids: PackedIds, tables: Mapping[int, Tables]) -> None:
        """Queue rankings, each with the next version of its partition."""
        rows_of: defaultdict[int, list[int]] = defaultdict(list)
        for row, partition in enumerate(reordered.partitions.tolist()):
            rows_of[partition].append(row)
        versions = np.empty(len(reordered), np.int64)
        for partition, rows in rows_of.items():
            versions[rows] = tables[partition].next_versions(len(rows))
        keys = [live.id.encode() for live in reordered.sets]
        values = pack_rankings(reordered, keys, packed_ids, versions, self._now_ms())
        named = versions.astype(">i8").view("V8").tolist()
        writer = (WRITER, self.writer)
        for partition, rows in rows_of.items():
            self._queues.setdefault(partition, []).extend(
                [Outbound(keys[row], values[row], (writer, (VERSION, named[row]))) for row in rows]
            )
        self._told.append(_told(reordered))
        self._wake()

    def withdraw(self, tables: Tables, result_set_id: str) -> None:
        """Queue a null."""
        version = tables.next_version().to_bytes(8, "big")
        headers = ((WRITER, self.writer), (VERSION, version))
        self._queues.setdefault(tables.partition, []).append(Outbound(result_set_id.encode(), None, headers))
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()

    async def handed_over(self) -> None:
        """Wait until nothing waits: whoever goes on ranking before that only makes queues longer."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queues:
                queues, self._queues = self._queues, {}
                told, self._told = self._told, []
                acks = [
                    await self._sender.send_many(RANKINGS, partition, queue, self._own[partition].add)
                    for partition, queue in queues.items()
                ]
                self._freshness.count_reranked(told, self._monotonic_ms())
                self._follow(asyncio.gather(*acks), told)
            self._idle.set()

    def _follow(self, ack: Awaitable[object], told: list[RankingsSent]) -> None:
        """Watch an acknowledgement: a send that fails for good ends the process."""

        def done(future: "asyncio.Future[object]") -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is not None:
                self._on_crash(error)
                return
            now = self._now_ms()
            for sent in told:
                self._freshness.count_rankings(sent, now)

        asyncio.ensure_future(ack).add_done_callback(done)


def _told(reordered: Reordered) -> RankingsSent:
    """What freshness counts of these sets; the ages are the last one's."""
    causes, times = reordered.causes.tolist(), reordered.cause_times.tolist()
    counts: dict[tuple[str, int], int] = {}
    heard: dict[tuple[str, int], int] = {}
    # a change has one time, and is the cause of many sets that stand beside each other
    begin = 0
    for end in range(1, len(causes) + 1):
        if end == len(causes) or causes[end] is not causes[begin]:
            if causes[begin] is not None:
                for found, time in zip((counts, heard), times[begin], strict=True):
                    if time > 0:
                        key = (causes[begin].view, time)
                        found[key] = found.get(key, 0) + end - begin
            begin = end
    youngest, oldest = reordered.youngest[:, -1].tolist(), reordered.oldest[:, -1].tolist()
    ages = {
        view.name: (youngest[place], oldest[place]) for place, view in enumerate(PRODUCT_VIEWS) if youngest[place] >= 0
    }
    return RankingsSent(len(reordered), int(reordered.degraded.sum()), counts, heard, ages)
