"""Partitions come and go: writers resume at their markers, and nothing of a dropped one is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from feature_repo.row_store import EMISSION_LIMIT_MS, Marker, Space
from streams.folding import BehaviorFolding, CatalogFolding
from streams.owning import CHECK_S, LOOK_S, Bounds, GapInLog, Ownership
from streams.records import BEHAVIOR, CATALOG, Place, decode_changes
from tests.streams.bench import HOUR, Bench, bought, patched
from tests.streams.loops import settle

SPACES = {topic: Space("cluster", topic, topic) for topic in (CATALOG, BEHAVIOR)}
FLUSH_S = 0.05


@dataclass
class Owner:
    """An ownership, and what it asked of its process."""

    bench: Bench
    accept_gap: bool = False
    rewinds: list[str] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)
    ownership: Ownership = field(init=False)

    def __post_init__(self) -> None:
        self.ownership = Ownership(
            {CATALOG: (CatalogFolding(), SPACES[CATALOG]), BEHAVIOR: (BehaviorFolding(), SPACES[BEHAVIOR])},
            self.bench.doors,
            flush_s=FLUSH_S,
            accept_gap=self.accept_gap,
            on_rewind=self.rewinds.append,
            on_crash=self.crashes.append,
        )

    async def marker(self, topic: str = BEHAVIOR, partition: int = 0) -> Marker | None:
        return (await self.bench.doors.store.markers(SPACES[topic], [partition]))[0]

    def set_marker(self, marker: Marker, topic: str = BEHAVIOR, partition: int = 0) -> None:
        self.bench.redis.keys[SPACES[topic].marker(partition).encode()] = marker.encode()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.stop()


@pytest.fixture
async def owner(bench: Bench) -> AsyncIterator[Owner]:
    made = Owner(bench)
    yield made
    await made.ownership.drop()
    assert made.crashes == []


def at(start: int, end: int, *places: Place) -> dict[Place, Bounds]:
    return dict.fromkeys(places or ((BEHAVIOR, 0),), Bounds(start, end))


async def test_writers_resume_at_their_markers_or_at_the_start_of_the_log(owner: Owner) -> None:
    owner.set_marker(Marker(7, HOUR), BEHAVIOR, 1)
    places = ((CATALOG, 0), (BEHAVIOR, 0), (BEHAVIOR, 1))
    assert await owner.ownership.resume(at(3, 9, *places)) == {(CATALOG, 0): 3, (BEHAVIOR, 0): 3, (BEHAVIOR, 1): 7}
    assert owner.ownership.places == places
    assert owner.ownership.committed() == {(BEHAVIOR, 1): 7}
    assert owner.ownership.reached() == {(CATALOG, 0): 3, (BEHAVIOR, 0): 3, (BEHAVIOR, 1): 7}
    assert owner.ownership.clocks(BEHAVIOR) == {1: HOUR}
    await settle()
    assert [decode_changes(message.value or b"") for message in owner.bench.sender.sent] == [{1: HOUR}]
    assert owner.ownership.writer(BEHAVIOR, 2) is None


async def test_what_is_taken_is_written_by_itself(owner: Owner) -> None:
    await owner.ownership.resume(at(0, 0, (BEHAVIOR, 0), (CATALOG, 0)))
    for topic, entry in ((BEHAVIOR, bought("a", 0)), (CATALOG, patched("a", 0, price=1))):
        writer = owner.ownership.writer(topic, 0)
        assert writer is not None
        await writer.take([entry], 1)
    await asyncio.sleep(2 * FLUSH_S)
    assert owner.ownership.committed() == {(BEHAVIOR, 0): 1, (CATALOG, 0): 1}


async def test_a_writer_that_has_nothing_to_flush_seldom_looks_and_is_there_at_once_when_it_has(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owner.ownership.resume(at(0, 0))
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    looks = []
    flush = writer.flush

    async def look() -> None:
        looks.append(asyncio.get_running_loop().time())
        await flush()

    monkeypatch.setattr(writer, "flush", look)
    await asyncio.sleep(20 * LOOK_S)
    assert 15 <= len(looks) <= 20
    for offset in range(3):
        await asyncio.sleep(0.3 * LOOK_S)
        await writer.take([bought("a", offset)], offset + 1)
        await asyncio.sleep(2 * FLUSH_S)
        assert owner.ownership.committed() == {(BEHAVIOR, 0): offset + 1}


async def test_a_dropped_writer_writes_nothing_more(owner: Owner) -> None:
    await owner.ownership.resume(at(0, 0))
    await asyncio.sleep(2 * FLUSH_S)
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    await writer.take([bought("a", 0)], 1)
    await owner.ownership.drop()
    assert owner.ownership.places == ()
    await asyncio.sleep(10 * FLUSH_S)
    assert await owner.marker() == Marker(0)


async def test_resuming_waits_for_the_store(owner: Owner) -> None:
    owner.set_marker(Marker(4))
    owner.bench.redis.away = True
    resuming = asyncio.create_task(owner.ownership.resume(at(0, 9)))
    await asyncio.sleep(5)
    assert not resuming.done()
    owner.bench.redis.away = False
    assert await resuming == {(BEHAVIOR, 0): 4}


@pytest.mark.parametrize(
    ("marker", "why"),
    [(2, "retention has cut what was needed"), (10, "another topic of this name")],
)
async def test_a_marker_outside_the_log_stops_the_worker(owner: Owner, marker: int, why: str) -> None:
    owner.set_marker(Marker(marker))
    with pytest.raises(GapInLog, match=rf"behavior\[0\]: marker at {marker}, the log holds 3 to 9: {why}"):
        await owner.ownership.resume(at(3, 9))


async def test_an_end_that_is_not_exact_stops_nobody(owner: Owner) -> None:
    owner.set_marker(Marker(10))
    bounds = {(BEHAVIOR, 0): Bounds(3, 9, is_end_exact=False)}
    assert await owner.ownership.resume(bounds) == {(BEHAVIOR, 0): 10}


async def test_a_gap_that_is_accepted_is_passed_and_the_marker_follows(bench: Bench) -> None:
    owner = Owner(bench, accept_gap=True)
    owner.set_marker(Marker(2, HOUR))
    assert await owner.ownership.resume(at(5, 9)) == {(BEHAVIOR, 0): 5}
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    await writer.take([bought("a", 5)], 6)
    await asyncio.sleep(3 * FLUSH_S)
    assert owner.rewinds == []
    assert await owner.marker() == Marker(6, HOUR)
    await owner.ownership.drop()


async def test_a_store_that_forgot_asks_for_a_rewind_and_the_marker_says_where(owner: Owner) -> None:
    await owner.ownership.resume(at(0, 9))
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    await writer.take([bought("a", 0)], 1)
    await asyncio.sleep(2 * FLUSH_S)
    owner.bench.redis.keys.clear()
    await writer.take([bought("a", 1)], 2)
    await asyncio.sleep(2 * FLUSH_S)
    assert owner.rewinds == ["marker b'' found, b'1:0' expected"]
    assert await owner.ownership.resume(at(0, 9)) == {(BEHAVIOR, 0): 0}


async def test_a_store_that_forgot_a_quiet_partition_is_noticed(owner: Owner) -> None:
    """Nothing is flushed and nothing loaded, but new sets would read rows that are not there."""
    await owner.ownership.resume(at(0, 9))
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    await writer.take([bought("a", 0)], 1)
    await asyncio.sleep(2 * CHECK_S)
    assert owner.rewinds == []
    owner.bench.redis.keys.clear()
    await asyncio.sleep(CHECK_S)
    assert owner.rewinds == ["marker b'' found, b'1:0' expected"]


@pytest.mark.parametrize("how", ["rewind", "rebalance"])
async def test_a_batch_that_waits_for_a_store_that_comes_back_empty_ends(owner: Owner, how: str) -> None:
    """Else the agent waits for room, the drain for the agent, and the seek for the drain."""
    await owner.ownership.resume(at(0, 9))
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    await writer.take([bought("a", 0)], 1)
    await asyncio.sleep(2 * FLUSH_S)
    owner.bench.redis.away = True
    await writer.take([bought("a", 1)], 2)
    await asyncio.sleep(EMISSION_LIMIT_MS / 1000 + 1)
    taking = asyncio.create_task(writer.take([bought("a", 2)], 3))
    await asyncio.sleep(10)
    assert not taking.done()
    if how == "rewind":
        owner.bench.redis.keys.clear()
        owner.bench.redis.away = False
    else:
        await owner.ownership.drop()
    await asyncio.wait_for(taking, 1)
    assert len(owner.rewinds) == (how == "rewind")


async def test_a_last_flush_that_finds_another_marker_asks_for_a_rewind(owner: Owner) -> None:
    await owner.ownership.resume(at(0, 9))
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    await writer.take([bought("a", 0)], 1)
    await settle()
    owner.set_marker(Marker(5))
    await owner.ownership.flush()
    assert owner.rewinds == ["marker b'5:0' found, b'' expected"]


async def test_whatever_else_fails_ends_the_process(bench: Bench) -> None:
    owner = Owner(bench)
    await owner.ownership.resume(at(0, 9))
    writer = owner.ownership.writer(BEHAVIOR, 0)
    assert writer is not None
    output: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    output.set_exception(RuntimeError("refused for good"))
    writer.track(output)
    await writer.take([bought("a", 0)], 1)
    await asyncio.sleep(2 * FLUSH_S)
    assert [str(error) for error in owner.crashes] == ["refused for good"]
    assert await owner.marker() in (None, Marker(0))
    await owner.ownership.drop()
