"""The store's two scripts on a real Redis: what a flush writes, what it refuses, and what it does when in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from redis import Redis

from feature_repo import row_store
from feature_repo.row import pack_stamps, unpack_row
from feature_repo.row_store import (
    EMISSION_LIMIT_MS,
    KEEP,
    LAYOUT,
    Flushed,
    Marker,
    RowStore,
    RowWrite,
    Space,
    Stored,
    StoreUnavailable,
    pointer_key,
    unpack_stored,
)
from feature_repo.views import PRODUCT_BEHAVIOR
from streams.local.redis_server import RedisServer
from tests.feature_repo.rows import BASE, blob_of, new_space, packed, stored_of, write_of
from tests.parts import READY_TIMEOUT_S, running

pytestmark = pytest.mark.parts

VIEW = PRODUCT_BEHAVIOR
#: markers in the order in which a worker sets them; b"" before the first
NONE, M1, M2, M3 = b"", *(Marker(offset, BASE + offset).encode() for offset in (1, 2, 3))


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RowStore]:
    opened = RowStore(f"redis://{redis_server.address}")
    yield opened
    await opened.close()


@pytest.fixture
def raw(redis_server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(f"redis://{redis_server.address}") as client:
        yield client


@pytest.fixture
def space() -> Space:
    return new_space(VIEW)


def row(entity: str, number: int, read: int | None = None, due: int | None = None) -> RowWrite:
    """The row at offset `number`, which its writer had read at offset `read`."""
    return write_of(VIEW, entity, number, read={} if read is None else {0: read}, due=due)


async def written(store: RowStore, space: Space, *entities: str) -> list[int | None]:
    """Offset that each row contains, None where there is none."""
    return [None if stored is None else stored.stamps[0] for stored in (await store.load(space, 0, entities)).rows]


def forget(raw: Redis, space: Space, entity: str) -> None:
    """As a Redis that crashed forgets one row and the step that its script left."""
    raw.hdel(space.blobs, entity)
    raw.hdel(space.states, entity)
    raw.delete(space.step(0))


async def marker(store: RowStore, space: Space) -> bytes:
    return (await store.load(space, 0, [])).marker


# --- the marker ----------------------------------------------------------------------------------------------------


async def test_a_flush_moves_the_marker_and_writes_both_halves_of_its_rows(store: RowStore, space: Space) -> None:
    write = row("a", 1)
    flushed = await store.flush(space, 0, NONE, M1, [write], None)
    assert (flushed.status, flushed.marker, flushed.conflicts) == ("ok", b"", ())
    loaded = await store.load(space, 0, ["a", "b"])
    assert (loaded.marker, loaded.rows) == (M1, [stored_of(1), None])
    assert await store.read(space, ["b", "a"]) == [None, write.blob]
    assert await store.markers(space, [0, 1]) == [Marker(1, BASE + 1), None]
    assert await store.markers(space, []) == []


async def test_the_rows_of_a_view_are_two_hashes(store: RowStore, space: Space, raw: Redis) -> None:
    writes = [row("a", 1), row("b", 2)]
    await store.flush(space, 0, NONE, M1, writes, None)
    assert raw.hgetall(space.blobs) == {write.entity.encode(): write.blob for write in writes}
    assert raw.hgetall(space.states) == {write.entity.encode(): write.state for write in writes}


async def test_a_redis_of_another_layout_is_as_empty(
    store: RowStore, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(row_store, "LAYOUT", LAYOUT - 1)
        await store.flush(space, 0, NONE, M1, [row("a", 1, due=1)], None)
        await store.publish_space(space)
        assert await written(store, space, "a") == [1]
        published = pointer_key(VIEW.name)
    assert await store.markers(space, [0]) == [None]
    assert await written(store, space, "a") == [None]
    assert await store.due(space, 0, 1, 1) == []
    assert pointer_key(VIEW.name) != published, "nor do readers find it"


@pytest.mark.parametrize(("there", "expected"), [(M1, M2), (M2, M1), (NONE, M1), (M1, NONE)])
async def test_another_marker_than_expected_refuses_everything(
    store: RowStore, space: Space, there: bytes, expected: bytes
) -> None:
    """Lower: Redis forgot something. Higher: another worker owns the partition. Absent: Redis was emptied."""
    if there:
        assert (await store.flush(space, 0, NONE, there, [], None)).status == "ok"
    flushed = await store.flush(space, 0, expected, M3, [row("a", 1, due=3)], None)
    assert (flushed.status, flushed.marker) == ("marker", there)
    assert await written(store, space, "a") == [None]
    assert await store.due(space, 0, 10, 10) == []
    assert await marker(store, space) == there


async def test_each_partition_has_a_marker_of_its_own(store: RowStore, space: Space) -> None:
    await store.flush(space, 0, NONE, M1, [], None)
    assert (await store.flush(space, 1, NONE, M2, [], None)).status == "ok"
    assert await store.markers(space, [1, 0]) == [Marker(2, BASE + 2), Marker(1, BASE + 1)]


async def test_rows_and_marker_are_read_at_the_same_moment(store: RowStore, space: Space) -> None:
    """A row at offset n is there exactly when the marker is at n, whatever the writer does between the reads."""
    entities = ["a", "b", "c"]

    async def write() -> None:
        expected = NONE
        for number in range(1, 40):
            read = number - 1 if number > 1 else None
            rows = [row(entity, number, read=read) for entity in entities]
            following = Marker(number).encode()
            assert (await store.flush(space, 0, expected, following, rows, None)).status == "ok"
            expected = following

    writing = asyncio.create_task(write())
    seen = set()
    while not writing.done():
        loaded = await store.load(space, 0, entities)
        offset = Marker.decode(loaded.marker).offset if loaded.marker else None
        assert [None if stored is None else stored.stamps[0] for stored in loaded.rows] == [offset] * 3
        seen.add(offset)
    await writing
    assert len(seen) > 3, "reads and writes did interleave"


# --- in doubt ------------------------------------------------------------------------------------------------------


async def flush_twice(
    store: RowStore, space: Space, expected: bytes, following: bytes, rows: Sequence[RowWrite]
) -> Flushed:
    """As it is when an answer is lost: what was carried out is sent again."""
    carry_out = store._scripts

    async def lose(*arguments: Any) -> None:
        await carry_out(*arguments)
        raise StoreUnavailable("the answer was lost")

    with patch.object(store, "_scripts", lose), pytest.raises(StoreUnavailable):
        await store.flush(space, 0, expected, following, rows, None)
    return await store.flush(space, 0, expected, following, rows, None)


async def test_the_same_flush_again_is_ok_and_changes_nothing(store: RowStore, space: Space, raw: Redis) -> None:
    rows = [row("a", 1, due=4), row("b", 1)]
    flushed = await flush_twice(store, space, NONE, M1, rows)
    assert (flushed.status, flushed.handover) == ("ok", None), "whose the rows are now is another question"
    assert raw.zrange(space.agenda(0), 0, -1, withscores=True) in ([(b"a", 4.0)], [[b"a", 4.0]])
    assert await written(store, space, "a", "b") == [1, 1]
    assert await marker(store, space) == M1


async def test_a_script_sent_twice_within_a_flush_of_several(store: RowStore, space: Space) -> None:
    for marker_of_script, entity in ((b"", "a"), (b"", "b"), (M1, "c")):
        flushed = await flush_twice(store, space, NONE, marker_of_script, [row(entity, 1)])
        assert flushed.status == "ok"
    assert await written(store, space, "a", "b", "c") == [1, 1, 1]
    assert await marker(store, space) == M1


async def test_a_marker_that_another_writer_set_is_not_ours_though_it_is_the_same(
    store: RowStore, space: Space
) -> None:
    """Who owned the partition before may be as far: its rows are not ours, which may hold more than the marker says."""
    theirs = await store.flush(space, 0, NONE, M1, [row("a", 1)], None)
    assert theirs.status == "ok"
    await store.markers(space, [0])
    ours = await store.flush(space, 0, NONE, M1, [row("a", 1), row("b", 2)], None)
    assert (ours.status, ours.marker) == ("marker", M1)
    assert await written(store, space, "b") == [None]


async def test_a_second_writer_is_noticed_although_the_marker_stands(redis_server: RedisServer, space: Space) -> None:
    ours, theirs = (RowStore(f"redis://{redis_server.address}") for _ in range(2))
    await ours.flush(space, 0, NONE, M1, [row("a", 1)], None)
    await theirs.markers(space, [0])
    assert (await theirs.flush(space, 0, M1, b"", [row("a", 2, read=1)], None)).status == "ok"
    assert (await ours.flush(space, 0, M1, M2, [write_of(VIEW, "a", 1, is_own=True)], None)).status == "marker"
    assert await written(ours, space, "a") == [2]
    await ours.close()
    await theirs.close()


async def test_a_step_that_redis_forgot_is_noticed_before_the_marker_passes_it(
    store: RowStore, space: Space, raw: Redis
) -> None:
    """A Redis that crashes between two scripts of a flush may lose the first and still hold the marker of before."""
    await store.flush(space, 0, NONE, M1, [], None)
    assert (await store.flush(space, 0, M1, b"", [row("a", 2)], None)).status == "ok"
    forget(raw, space, "a")
    flushed = await store.flush(space, 0, M1, M2, [row("b", 2)], None)
    assert (flushed.status, flushed.marker) == ("marker", M1)
    assert await written(store, space, "b") == [None]
    # whoever resumes from the marker begins anew, and reads and writes all of it again
    assert await store.markers(space, [0]) == [Marker.decode(M1)]
    assert (await store.flush(space, 0, M1, b"", [row("a", 2)], None)).status == "ok"
    assert (await store.flush(space, 0, M1, M2, [row("b", 2)], None)).status == "ok"
    assert await written(store, space, "a", "b") == [2, 2]


async def test_a_step_is_noticed_even_before_the_first_marker(store: RowStore, space: Space, raw: Redis) -> None:
    await store.flush(space, 0, NONE, b"", [row("a", 1)], None)
    forget(raw, space, "a")
    assert (await store.flush(space, 0, NONE, M1, [row("b", 1)], None)).status == "marker"


async def test_rows_beside_a_conflict_are_guarded_by_a_step(store: RowStore, space: Space, raw: Redis) -> None:
    await store.flush(space, 0, NONE, M1, [row("a", 1)], None)
    assert (await store.flush(space, 0, M1, M2, [row("a", 3, read=2), row("b", 2)], None)).status == "conflict"
    forget(raw, space, "b")
    assert (await store.flush(space, 0, M1, M2, [row("a", 2, read=1)], None)).status == "marker"


async def test_a_partition_that_comes_back_is_taken_without_a_rewind(redis_server: RedisServer, space: Space) -> None:
    ours, theirs = (RowStore(f"redis://{redis_server.address}") for _ in range(2))
    await ours.flush(space, 0, NONE, b"", [row("a", 1)], None)
    await ours.flush(space, 0, NONE, M1, [], None)
    await theirs.markers(space, [0])
    await theirs.flush(space, 0, M1, b"", [row("a", 2, read=1)], None)
    await theirs.flush(space, 0, M1, M2, [], None)
    await ours.markers(space, [0])
    assert (await ours.flush(space, 0, M2, b"", [row("a", 3, read=2)], None)).status == "ok"
    assert (await ours.flush(space, 0, M2, M3, [], None)).status == "ok"
    await ours.close()
    await theirs.close()


# --- rows ----------------------------------------------------------------------------------------------------------


async def test_a_row_that_another_writer_wrote_is_refused_alone(redis_server: RedisServer, space: Space) -> None:
    ours, theirs = (RowStore(f"redis://{redis_server.address}") for _ in range(2))
    both = [row("a", 1), row("b", 1), row("c", 1)]
    await ours.flush(space, 0, NONE, M1, both, None)
    # another input partition brings the same product: a marker of its own, the same row
    await theirs.flush(space, 1, NONE, M1, [row("b", 5, read=1)], None)

    flushed = await ours.flush(space, 0, M1, M2, [row(e, 2, read=1, due=9) for e in "abc"], None)
    assert (flushed.status, flushed.conflicts) == ("conflict", ("b",))
    assert await written(ours, space, "a", "b", "c") == [2, 5, 2]
    assert await marker(ours, space) == M1, "the marker waits for the refused row"
    assert sorted(await ours.due(space, 0, 9, 10)) == ["a", "c"], "the refused row's agenda stays"

    assert (await ours.flush(space, 0, M1, M2, [row("b", 6, read=5)], None)).status == "ok"
    assert await written(ours, space, "b") == [6]
    assert await marker(ours, space) == M2
    await ours.close()
    await theirs.close()


# --- rows at home --------------------------------------------------------------------------------------------------


async def at_home(store: RowStore, space: Space, *entities: str) -> bytes:
    """Rows at offset 1 that partition 0 has written; the handover that it saw."""
    flushed = await store.flush(space, 0, NONE, M1, [row(entity, 1) for entity in entities], None)
    assert flushed.status == "ok"
    assert (await store.load(space, 0, entities)).handover == flushed.handover
    return flushed.handover


async def test_rows_at_home_are_written_without_a_look(store: RowStore, space: Space) -> None:
    seen = await at_home(store, space, "a", "b")
    rows = [write_of(VIEW, "a", 2, is_own=True, due=7), write_of(VIEW, "b", 2, read={0: 1}, due=8)]
    flushed = await store.flush(space, 0, M1, M2, rows, None, seen)
    assert (flushed.status, flushed.handover) == ("ok", seen)
    assert await written(store, space, "a", "b") == [2, 2]
    assert await store.due(space, 0, 9, 10) == ["a", "b"]
    left = [write_of(VIEW, "a", 3, is_own=True, due=KEEP), write_of(VIEW, "b", 3, is_own=True)]
    assert (await store.flush(space, 0, M2, M3, left, None, seen)).status == "ok"
    assert await store.due(space, 0, 9, 10) == ["a"]


async def test_no_row_at_home_is_written_once_rows_have_changed_hands(store: RowStore, space: Space) -> None:
    """Another partition's writer takes a row over: whoever had it at home must look at all of them."""
    seen = await at_home(store, space, "a", "b")
    taken = await store.flush(space, 1, NONE, M1, [write_of(VIEW, "b", 5, read={0: 1}, home=1)], None)
    assert taken.handover != seen
    blind = [write_of(VIEW, entity, 2, is_own=True, due=7) for entity in "ab"]
    refused = await store.flush(space, 0, M1, M2, blind, None, seen)
    assert (refused.status, refused.handover) == ("handover", taken.handover)
    assert await written(store, space, "a", "b") == [1, 5]
    assert await store.due(space, 0, 9, 10) == []
    assert await marker(store, space) == M1
    looking = [row(entity, 2, read=1) for entity in "ab"]
    flushed = await store.flush(space, 0, M1, M2, looking, None, refused.handover)
    assert (flushed.status, flushed.conflicts) == ("conflict", ("b",))
    assert [stored and stored.home for stored in (await store.load(space, 0, ["a", "b"])).rows] == [0, 1]


async def test_a_row_that_nobody_had_changes_no_hands_and_is_looked_at(store: RowStore, space: Space) -> None:
    seen = await at_home(store, space, "a")
    new = await store.flush(space, 1, NONE, M1, [write_of(VIEW, "new", 1, home=1)], None)
    assert (new.status, new.handover) == ("ok", seen)
    assert (await store.flush(space, 0, M1, M2, [write_of(VIEW, "new", 2)], None, seen)).conflicts == ("new",)


async def test_a_row_that_comes_back_as_it_was_changed_hands_too(store: RowStore, space: Space) -> None:
    """Time changes a row without another stamp: its old home cannot tell, and takes it over when it looks."""
    await at_home(store, space, "a")
    taken = await store.flush(space, 1, NONE, M1, [write_of(VIEW, "a", 1, read={0: 1}, home=1)], None)
    looking = await store.flush(space, 0, M1, M2, [row("a", 2, read=1)], None, taken.handover)
    assert looking.status == "ok"
    blind = await store.flush(
        space, 1, M1, M2, [write_of(VIEW, "a", 1, home=1, is_own=True)], None, taken.handover
    )  # fmt: skip
    assert (blind.status, blind.handover) == ("handover", looking.handover)
    assert await written(store, space, "a") == [2]


async def test_each_handover_has_a_name_of_its_own(store: RowStore, space: Space) -> None:
    seen: set[bytes | None] = {await at_home(store, space, "a")}
    markers = {0: M1, 1: NONE}
    for number in range(2, 6):
        home, after = number % 2 ^ 1, b"%d:0" % number
        rows = [write_of(VIEW, "a", number, read={0: number - 1}, home=home)]
        flushed = await store.flush(space, home, markers[home], after, rows, None)
        assert flushed.status == "ok"
        markers[home] = after
        seen.add(flushed.handover)
    assert len(seen) == 5


# --- several scripts -----------------------------------------------------------------------------------------------


@pytest.fixture
def two_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "ROWS_PER_SCRIPT", 2)


@pytest.mark.usefixtures("two_a_script")
async def test_the_last_of_several_scripts_sets_the_marker(store: RowStore, space: Space) -> None:
    flushed = await flush_twice(store, space, NONE, M1, [row(entity, 1) for entity in "abcde"])
    assert flushed.status == "ok"
    assert await written(store, space, *"abcde") == [1] * 5
    assert await marker(store, space) == M1
    assert (await store.flush(space, 0, M1, M2, [row("a", 2, read=1)], None)).status == "ok"


@pytest.mark.usefixtures("two_a_script")
@pytest.mark.parametrize("taken", list("abcde"))
async def test_a_conflict_in_any_script_keeps_the_marker(store: RowStore, space: Space, taken: str) -> None:
    await store.flush(space, 0, NONE, M1, [row(entity, 1) for entity in "abcde"], None)
    await store.flush(space, 1, NONE, M1, [write_of(VIEW, taken, 9, read={0: 1}, home=1)], None)
    for _ in range(2):
        flushed = await store.flush(space, 0, M1, M2, [row(entity, 2, read=1) for entity in "abcde"], None)
        assert (flushed.status, flushed.conflicts) == ("conflict", (taken,))
    assert await written(store, space, *"abcde") == [9 if entity == taken else 2 for entity in "abcde"]
    assert await marker(store, space) == M1
    assert (await store.flush(space, 0, M1, M2, [row(taken, 10, read=9)], None)).status == "ok"
    assert await marker(store, space) == M2


@pytest.mark.usefixtures("two_a_script")
async def test_what_refuses_one_script_refuses_those_behind_it(store: RowStore, space: Space) -> None:
    """The first takes a row over, so that the second finds another handover than it was told; the third sets no marker.

    The flush itself sorts its rows so that this does not happen to it; another writer can do it between two scripts.
    """
    seen = await at_home(store, space, *"abcde")
    carry_out, turns = store._scripts, iter(range(9))

    async def one_by_one(script: str, keys: Any, arguments: Any, many: int) -> list[Any]:
        answers = []
        for some in arguments():
            if next(turns) == 1:
                with patch.object(store, "_scripts", carry_out):
                    taken = [write_of(VIEW, "e", 9, read={0: 1}, home=1)]
                    assert (await store.flush(space, 1, NONE, M1, taken, None)).status == "ok"
            answers += await carry_out(script, keys, partial(list, [some]), 1)
        return answers

    rows = [write_of(VIEW, entity, 2, is_own=True) for entity in "abcde"]
    with patch.object(store, "_scripts", one_by_one):
        flushed = await store.flush(space, 0, M1, M2, rows, None, seen)
    assert flushed.status == "handover"
    assert await written(store, space, *"abcde") == [2, 2, 1, 1, 9]
    assert await marker(store, space) == M1
    looking = [row(entity, 2, read=1) for entity in "abcde"]
    again = await store.flush(space, 0, M1, M2, looking, None)
    assert (again.status, again.conflicts) == ("conflict", ("e",))
    assert await written(store, space, *"abcde") == [2, 2, 2, 2, 9]
    assert await marker(store, space) == M1
    assert (await store.flush(space, 0, M1, M2, [row("e", 10, read=9)], None)).status == "ok"


@pytest.mark.usefixtures("two_a_script")
@pytest.mark.parametrize("why", ["marker", "late", "handover"])
async def test_what_refuses_the_first_script_refuses_all(store: RowStore, space: Space, why: str) -> None:
    seen = await at_home(store, space, *"abcde")
    rows = [write_of(VIEW, "a", 2, is_own=True), *(row(entity, 2, read=1) for entity in "bcde")]
    flushed = await store.flush(
        space,
        0,
        NONE if why == "marker" else M1,
        M2,
        rows,
        1 if why == "late" else None,
        b"another" if why == "handover" else seen,
    )
    assert flushed.status == why
    assert await written(store, space, *"abcde") == [1] * 5
    assert (await store.flush(space, 0, M1, M2, rows, None, seen)).status == "ok"
    assert await written(store, space, *"abcde") == [2] * 5


async def test_stamps_are_compared_whole_not_by_their_sum(store: RowStore, space: Space) -> None:
    await store.flush(space, 0, NONE, M1, [write_of(VIEW, "a", 3)], None)
    other = write_of(VIEW, "a", 4, read={0: 1, 1: 1})
    assert (await store.flush(space, 0, M1, M2, [other], None)).conflicts == ("a",)


async def test_a_row_whose_emission_is_too_old_is_not_written(store: RowStore, space: Space) -> None:
    now = await store.now_ms()
    late = await store.flush(space, 0, NONE, M1, [row("a", 1)], now - EMISSION_LIMIT_MS - 1)
    assert late.status == "late"
    assert late.redis_ms >= now
    assert await written(store, space, "a") == [None]
    assert await marker(store, space) == NONE
    assert (await store.flush(space, 0, NONE, M1, [row("a", 1)], late.redis_ms)).status == "ok"


async def test_nothing_to_write_still_moves_the_marker(store: RowStore, space: Space) -> None:
    assert (await store.flush(space, 0, NONE, M1, [], None)).status == "ok"
    assert await marker(store, space) == M1


async def test_entities_of_any_text(store: RowStore, space: Space) -> None:
    entities = ["a:b", "白色T恤", "with space", "\x00", "é" * 64]
    flushed = await store.flush(space, 0, NONE, M1, [row(e, n, due=1) for n, e in enumerate(entities)], None)
    assert flushed.status == "ok"
    assert await store.read(space, entities) == [blob_of(VIEW, n) for n in range(5)]
    assert sorted(await store.due(space, 0, 1, 10)) == sorted(entities)
    conflict = await store.flush(space, 0, M1, M2, [row(e, n, read=99) for n, e in enumerate(entities, 5)], None)
    assert list(conflict.conflicts) == entities


async def test_a_thousand_rows_are_read_in_order(store: RowStore, space: Space) -> None:
    entities = [f"p{n}" for n in range(1000)]
    await store.flush(space, 0, NONE, M1, [row(e, n) for n, e in enumerate(entities) if n % 2], None)
    found = await store.read(space, entities[::-1])
    assert [blob and unpack_row(VIEW, blob).stamps[0] for blob in found] == [
        n if n % 2 else None for n in reversed(range(1000))
    ]


async def test_ids_of_every_length_are_found(store: RowStore, space: Space) -> None:
    entities = ["ü" * length for length in (1, 15, 16, 64)] + ["p" * length for length in (31, 32, 127, 128)]
    await store.flush(space, 0, NONE, M1, [row(e, n) for n, e in enumerate(entities)], None)
    found = await store.load(space, 0, entities)
    assert [stored and stored.stamps for stored in found.rows] == [{0: n} for n in range(len(entities))]


@pytest.mark.parametrize("stamps", [{}, {0: 5}, {2: 7, 0: 2**40}])
def test_what_a_writer_stores_is_what_it_loads(stamps: dict[int, int]) -> None:
    stored = Stored(513, stamps, BASE, BASE + 9, b"\x00state")
    data = packed(stored)
    assert unpack_stored(data) == stored
    length = int.from_bytes(data[2:4], "big")
    assert data[4 : 4 + length] == pack_stamps(stamps), "what the script compares"


# --- the agenda ----------------------------------------------------------------------------------------------------


async def test_the_agenda_is_replaced_and_removed_with_its_row(store: RowStore, space: Space) -> None:
    await store.flush(space, 0, NONE, M1, [row("a", 1, due=30), row("b", 1, due=20), row("c", 1, due=10)], None)
    assert await store.due(space, 0, 30, 10) == ["c", "b", "a"]
    assert await store.due(space, 0, 29, 10) == ["c", "b"]
    assert await store.due(space, 0, 30, 1) == ["c"]
    await store.flush(space, 0, M1, M2, [row("b", 2, read=1), row("c", 2, read=1, due=40)], None)
    assert await store.due(space, 0, 40, 10) == ["a", "c"]
    assert await store.due(space, 1, 40, 10) == []


# --- a Redis that goes away ----------------------------------------------------------------------------------------


async def every_call(store: RowStore, space: Space) -> list[str]:
    """Names of the methods that do not raise StoreUnavailable."""
    calls = {
        "check": store.check(),
        "now_ms": store.now_ms(),
        "load": store.load(space, 0, ["a"]),
        "read": store.read(space, ["a"]),
        "markers": store.markers(space, [0]),
        "flush": store.flush(space, 0, NONE, M1, [row("a", 1)], None),
        "due": store.due(space, 0, 1, 1),
        "publish_space": store.publish_space(space),
    }
    answers = await asyncio.gather(*calls.values(), return_exceptions=True)
    return [name for name, answer in zip(calls, answers, strict=True) if not isinstance(answer, StoreUnavailable)]


async def test_a_redis_that_is_killed_and_comes_back_empty(tmp_path: Path, space: Space) -> None:
    with running(RedisServer(tmp_path)) as server:
        store = RowStore(f"redis://{server.address}", timeout_s=1.0)
        await store.check()
        await store.flush(space, 0, NONE, M1, [row("a", 1)], None)
        server.kill()
        assert await every_call(store, space) == []
        server.start()
        server.ready(READY_TIMEOUT_S)
        # the client reconnects without a word: only the marker tells that everything is gone
        assert (await store.load(space, 0, ["a"])).marker == NONE
        flushed: Flushed = await store.flush(space, 0, M1, M2, [row("a", 2, read=1)], None)
        assert (flushed.status, flushed.marker) == ("marker", NONE)
        await store.close()


async def test_in_doubt_the_same_script_again_is_right(tmp_path: Path, space: Space) -> None:
    """A frozen Redis: the answer is lost, the script is not. It is carried out when Redis goes on."""
    with running(RedisServer(tmp_path)) as server:
        store = RowStore(f"redis://{server.address}", timeout_s=0.2)
        await store.flush(space, 0, NONE, M1, [], None)
        for marker_of_script, entity in ((b"", "a"), (b"", "b"), (M2, "c")):
            server.freeze()
            with pytest.raises(StoreUnavailable):
                await store.flush(space, 0, M1, marker_of_script, [row(entity, 2)], None)
            server.thaw()
            with Redis.from_url(f"redis://{server.address}") as witness:
                assert witness.hexists(space.states, entity), "it was carried out"
            assert (await store.flush(space, 0, M1, marker_of_script, [row(entity, 2)], None)).status == "ok"
        assert await written(store, space, "a", "b", "c") == [2, 2, 2]
        assert await marker(store, space) == M2
        await store.close()


async def test_redis_is_away_where_nothing_listens(space: Space) -> None:
    store = RowStore("redis://127.0.0.1:1", timeout_s=1.0)
    assert await every_call(store, space) == []


async def test_a_redis_that_evicts_is_refused(tmp_path: Path) -> None:
    with running(RedisServer(tmp_path)) as server, Redis.from_url(f"redis://{server.address}") as raw:
        store = RowStore(f"redis://{server.address}")
        raw.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ValueError, match=r"evicts rows \(maxmemory-policy allkeys-lru\); expected noeviction"):
            await store.check()
        await store.close()


async def test_the_pointer_tells_where_a_view_is(store: RowStore, raw: Redis) -> None:
    space = Space("cluster", "topic", "a_view_of_this_test", "7")
    await store.publish_space(space)
    assert (
        raw.get(pointer_key("a_view_of_this_test"))
        == f"freshrank:{LAYOUT}:cluster:topic:a_view_of_this_test:7".encode()
    )


async def test_what_was_remembered_first_stays(store: RowStore, space: Space) -> None:
    name = f"{space.prefix}:of"
    assert await store.remember_first(name, "a") == "a"
    assert await store.remember_first(name, "b") == "a"
    assert await store.remember_first(name, "a") == "a"
