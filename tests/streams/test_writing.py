"""One owner's rows: what is emitted, when it is written, and what the marker may pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from feature_repo import row_store
from feature_repo.features import content_of
from feature_repo.row import kafka_time_of
from feature_repo.row_store import EMISSION_LIMIT_MS, ROWS_PER_SCRIPT, Marker
from streams import writing
from streams.folding import BehaviorFolding, CatalogFolding
from streams.records import CONTENT, decode_changes, decode_content
from streams.writing import AnotherTopic, Rewind, RowWriter
from tests.streams.bench import HOUR, MINUTE, Bench, bought, patched, row_of
from tests.streams.fakes import REDIS_EPOCH_MS
from tests.streams.loops import settle


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    assert made.stop() == []


def sales_10m(bench: Bench) -> list[tuple[str, float]]:
    return [(change.entity, float(row_of(change).floats[0])) for change in bench.emitted()]


# --- what is emitted -----------------------------------------------------------------------------------------------


async def test_the_first_touch_emits_and_the_flush_writes_what_was_emitted(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0, quantity=2))
    assert sales_10m(bench) == [("a", 2.0)]
    assert await bench.stored(writer, "a") == [None]
    await writer.flush()
    (change,) = bench.emitted()
    assert await bench.doors.store.read(writer.space, ["a"]) == [change.blob]
    assert await bench.marker(writer) == Marker(1)
    assert bench.written == [HOUR + 1]
    assert writer.written == 1


async def test_the_first_touch_of_a_row_that_was_stored_emits_whatever_changed(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0, quantity=10_000))
    await writer.flush()
    bench.forget_emissions()
    again = bench.writer(marker=await bench.marker(writer))
    await bench.take(again, bought("a", 1))
    # 10,001 rounds to 10,000: nothing a reader could see, but nobody knows what the readers saw
    assert bench.emissions() == ["a"]


async def test_values_that_round_to_the_same_emit_nothing_and_are_written(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0, quantity=10_000), bought("a", 1, quantity=1))
    bench.forget_emissions()
    # orders go from 2 to 1,002 in steps of one: three digits tell them apart up to 1,000
    await bench.take(writer, *(bought("a", number) for number in range(2, 1003)))
    bench.forget_emissions()
    await bench.take(writer, bought("a", 1003))
    assert bench.emissions() == []
    await writer.flush()
    (row,) = await bench.stored(writer, "a")
    assert row is not None
    assert row.stamps == {0: 1003}
    assert await bench.marker(writer) == Marker(1004)


async def test_values_that_went_and_came_back_reach_readers_who_saw_them_gone(bench: Bench) -> None:
    """What is read after a rewind was read before, in other batches: a price was seen that these batches pass over."""
    entries = [patched("a", offset, price=price) for offset, price in enumerate((10, 20, 10, 10))]
    writer = bench.writer(CatalogFolding(), end=3)
    await bench.take(writer, entries[0])
    await bench.take(writer, *entries[1:3])
    assert [row_of(change).version for change in bench.emitted()] == [1, 3]
    await bench.take(writer, entries[3])
    assert len(bench.emitted()) == 2, "nobody else has read this one"


async def test_a_batch_emits_each_row_once(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0), bought("b", 1))
    bench.forget_emissions()
    await bench.take(writer, bought("a", 2), bought("b", 3), bought("a", 4))
    assert sales_10m(bench) == [("a", 3.0), ("b", 2.0)]


async def test_what_is_read_again_is_emitted_again_and_not_counted_again(bench: Bench) -> None:
    writer = bench.writer()
    entries = [bought("a", 0), bought("a", 1)]
    await bench.take(writer, *entries)
    await writer.flush()
    bench.forget_emissions()
    resumed = bench.writer(marker=Marker(0))
    resumed.begin(await bench.marker(writer), 0, 0)
    resumed.position = 0
    await bench.take(resumed, *entries)
    assert sales_10m(bench) == [("a", 2.0)]
    # and warm: the cache knows it, the outputs may have died all the same
    bench.forget_emissions()
    resumed.position = 0
    await bench.take(resumed, *entries)
    assert sales_10m(bench) == [("a", 2.0)]


async def test_content_is_forwarded_when_it_changed_and_again_when_it_is_read_again(bench: Bench) -> None:
    writer = bench.writer(CatalogFolding())
    await bench.take(writer, patched("a", 0, title="shirt", price=100))
    await bench.take(writer, patched("a", 1, price=90))
    await bench.take(writer, patched("a", 2, title="shirt", price=80))
    assert [decode_content(m.value or b"").content for m in bench.sender.of(CONTENT)] == [{"title": "shirt"}]
    writer.position = 0
    await bench.take(writer, patched("a", 0, title="shirt", price=100))
    (first, again) = (decode_content(message.value or b"") for message in bench.sender.of(CONTENT))
    assert (first.stamps, again.stamps, again.content) == ({0: 0}, {0: 2}, {"title": "shirt"})


async def test_time_waits_for_rows_that_are_being_loaded(bench: Bench) -> None:
    """Asking for them again and again keeps a process busy; here the clock would stand still for ever."""
    former = bench.writer()
    await bench.take(former, bought("a", 0))
    await former.flush()
    writer = bench.writer(marker=await bench.marker(former), loads=False)
    bench.start(writer.run_agenda())
    await bench.take(writer, bought("a", 1), heartbeats=[(2, HOUR + 11 * MINUTE)])
    await asyncio.sleep(1)
    bench.forget_emissions()
    await writer._load_some(["a"])
    await settle()
    await writer.flush()
    assert bench.emissions()[0] == "a"
    assert await bench.marker(writer) == Marker(3, HOUR + 11 * MINUTE)


# --- loading -------------------------------------------------------------------------------------------------------


async def test_cold_rows_are_loaded_in_bulk_and_their_order_is_kept(bench: Bench) -> None:
    writer = bench.writer(CatalogFolding())
    bench.redis.rounds = 20
    batch = [patched("a", 0, price=1), patched("b", 1, price=2), patched("a", 2, price=3)]
    await writer.take(batch, 3)
    assert bench.emissions() == []
    await writer.take([patched("a", 3, price=4)], 4)
    await settle(200)
    assert [(c.entity, row_of(c).ints[0]) for c in bench.emitted()] == [("a", 4), ("b", 2)]
    assert bench.redis.calls == ["read"]


async def test_a_warm_row_waits_for_its_own_parked_entries(bench: Bench) -> None:
    """The agenda may warm a row whose entries are parked: what follows them must not overtake them."""
    writer = bench.writer(loads=False)
    await writer.take([bought("a", 0, quantity=5)], 1)
    writer._rows["a"] = writer._owned("a", None, b"")
    await writer.take([bought("a", 1, quantity=7)], 2)
    assert bench.emissions() == []
    await writer._load_some(["a"])
    await settle()
    assert sales_10m(bench) == [("a", 12.0)]


async def test_the_cache_lets_go_of_clean_rows_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BehaviorFolding, "cached_rows", 2)
    writer = bench.writer()
    await bench.take(writer, *(bought(entity, number) for number, entity in enumerate("abcd")))
    assert list(writer._rows) == list("abcd"), "nothing is clean yet"
    await writer.flush()
    await bench.take(writer, bought("b", 4))
    await bench.take(writer, bought("e", 5))
    assert list(writer._rows) == ["b", "e"]
    await bench.take(writer, bought("a", 6))
    assert sales_10m(bench)[-1] == ("a", 2.0), "what was let go comes back from the store"


# --- what the marker may pass --------------------------------------------------------------------------------------


async def test_the_marker_does_not_pass_a_parked_entry(bench: Bench) -> None:
    writer = bench.writer(loads=False)
    await writer.take([bought("a", 0)], 1)
    await writer._load_some(["a"])
    await writer.take([bought("a", 1), bought("b", 2), bought("a", 3)], 4)
    await writer.flush()
    assert await bench.marker(writer) == Marker(2)
    (row,) = await bench.stored(writer, "a")
    assert row is not None
    assert row.stamps == {0: 3}, "rows may be ahead of the marker"
    await writer._load_some(["b"])
    await writer.flush()
    assert await bench.marker(writer) == Marker(4)


async def test_the_marker_waits_for_every_acknowledgement(bench: Bench) -> None:
    writer = bench.writer(CatalogFolding())
    bench.sender.held = True
    await bench.take(writer, patched("a", 0, title="x"))
    output: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    writer.track(output)
    flush = asyncio.create_task(writer.flush())
    await settle()
    bench.sender.acknowledge()
    await settle()
    assert await bench.marker(writer) is None, "the output that was tracked is still on its way"
    output.set_result(None)
    await flush
    assert await bench.marker(writer) == Marker(1)


async def test_a_row_is_written_after_its_emission_was_acknowledged(bench: Bench) -> None:
    writer = bench.writer()
    bench.sender.held = True
    await bench.take(writer, bought("a", 0))
    flush = asyncio.create_task(writer.flush())
    await settle()
    assert "write" not in bench.redis.calls
    bench.sender.release()
    await flush
    assert await bench.marker(writer) == Marker(1)


async def test_an_output_that_fails_for_good_keeps_the_marker(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0))
    output: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    writer.track(output)
    output.set_exception(RuntimeError("too large"))
    with pytest.raises(RuntimeError, match="too large"):
        await writer.flush()
    assert await bench.marker(writer) is None


async def test_an_output_of_what_is_read_during_a_flush_belongs_to_the_next(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0))
    bench.redis.rounds = 20
    flush = asyncio.create_task(writer.flush())
    await settle(3)
    await writer.take([bought("a", 1)], 2)
    writer.track(asyncio.get_running_loop().create_future())
    await flush
    assert await bench.marker(writer) == Marker(1)
    (row,) = await bench.stored(writer, "a")
    assert row is not None
    assert row.stamps == {0: 0}
    assert list(writer._dirty) == ["a"]


async def test_nothing_new_makes_no_call(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0))
    await writer.flush()
    calls = len(bench.redis.calls)
    await writer.flush()
    assert len(bench.redis.calls) == calls


async def test_a_large_flush_goes_in_scripts_the_last_of_which_moves_the_marker(bench: Bench) -> None:
    writer = bench.writer()
    count = 2 * ROWS_PER_SCRIPT + 1
    await bench.take(writer, *(bought(f"p{n}", n) for n in range(count)))
    await writer.flush()
    assert bench.redis.calls.count("write") == 3
    assert await bench.marker(writer) == Marker(count)
    assert None not in await bench.stored(writer, *(f"p{n}" for n in range(count)))


# --- another writer ------------------------------------------------------------------------------------------------


async def test_a_conflict_is_mended_with_what_was_pending(bench: Bench) -> None:
    """Two input partitions bring the same product: one of the two writers loses, and adds its part to the other's."""
    ours = bench.writer()
    theirs = bench.writer(partition=1, doors=bench.new_doors())
    await bench.take(ours, bought("a", 0), bought("c", 1))
    await bench.take(theirs, bought("a", 0, partition=1, quantity=10))
    await theirs.flush()
    bench.forget_emissions()
    await ours.flush()
    assert bench.conflicts == [1]
    assert await bench.marker(ours) is None, "the marker waits for the row"
    assert sales_10m(bench) == [("a", 11.0)]
    await ours.flush()
    assert await bench.marker(ours) == Marker(2)
    (row,) = await bench.stored(ours, "a")
    assert row is not None
    assert (row.stamps, row.floats[0]) == ({0: 0, 1: 0}, 11.0)


async def test_a_conflict_in_any_script_of_a_flush_keeps_the_marker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_store, "ROWS_PER_SCRIPT", 1)
    ours, theirs = bench.writer(), bench.writer(partition=1, doors=bench.new_doors())
    await bench.take(ours, bought("a", 0), bought("b", 1), bought("c", 2))
    await bench.take(theirs, bought("a", 0, partition=1))
    await theirs.flush()
    await ours.flush()
    assert None not in await bench.stored(ours, "b", "c")
    assert await bench.marker(ours) is None
    await ours.flush()
    assert await bench.marker(ours) == Marker(3)


async def test_entries_that_come_while_a_conflict_is_mended_are_not_lost(bench: Bench) -> None:
    ours, theirs = bench.writer(), bench.writer(partition=1, doors=bench.new_doors())
    await bench.take(ours, bought("a", 0))
    await bench.take(theirs, bought("a", 0, partition=1, quantity=10))
    await theirs.flush()
    bench.redis.rounds = 10
    flush = asyncio.create_task(ours.flush())
    for offset in range(1, 9):
        await settle(7)
        await ours.take([bought("a", offset)], offset + 1)
    await flush
    bench.redis.rounds = 1
    await ours.flush()
    (row,) = await bench.stored(ours, "a")
    assert row is not None
    assert (row.stamps, row.floats[0]) == ({0: 8, 1: 0}, 19.0)


async def test_a_conflict_over_a_row_that_time_changed_is_mended_with_nothing_pending(bench: Bench) -> None:
    ours, theirs = bench.writer(), bench.writer(partition=1, doors=bench.new_doors())
    await bench.take(ours, bought("a", 0))
    await ours.flush()
    await bench.take(theirs, bought("a", 0, partition=1, quantity=10))
    await theirs.flush()
    await bench.take(ours, heartbeats=[(1, HOUR + 11 * MINUTE)])
    await ours.flush()
    assert bench.conflicts == [1]
    assert await bench.marker(ours) == Marker(2, HOUR + 11 * MINUTE)
    (row,) = await bench.stored(ours, "a")
    assert row is not None
    assert (row.stamps, row.floats[0]) == ({0: 0, 1: 0}, 0.0)
    assert bench.stop() == []


async def test_two_flushes_mend_a_conflict_once(bench: Bench) -> None:
    ours, theirs = bench.writer(), bench.writer(partition=1, doors=bench.new_doors())
    await bench.take(ours, bought("a", 0))
    await bench.take(theirs, bought("a", 0, partition=1, quantity=10))
    await theirs.flush()
    await asyncio.gather(ours.flush(), ours.flush(), ours.flush())
    assert bench.conflicts == [1]
    assert await bench.marker(ours) == Marker(1)


async def test_the_loser_of_a_conflict_forwards_content_that_holds_both(bench: Bench) -> None:
    """It forwarded its title at a higher version than the winner's description: the last word must hold both."""
    ours = bench.writer(CatalogFolding(), start=1000)
    theirs = bench.writer(CatalogFolding(), partition=1, doors=bench.new_doors())
    await bench.take(theirs, patched("a", 5, partition=1, title="new", description="new", time=HOUR + 9))
    await bench.take(ours, patched("a", 1000, title="old"))
    await theirs.flush()
    await ours.flush()
    await settle()
    messages = [decode_content(message.value or b"") for message in bench.sender.of(CONTENT)]
    last = max(messages, key=lambda message: sum(offset + 1 for offset in message.stamps.values()))
    assert last.stamps == {0: 1000, 1: 5}
    assert last.content == {"title": "new", "description": "new"}


# --- the marker is not what was expected ---------------------------------------------------------------------------


@pytest.mark.parametrize("found", [Marker(1), Marker(9), None])
async def test_another_marker_rewinds_a_flush_and_a_load(bench: Bench, found: Marker | None) -> None:
    writer = bench.writer(loads=False)
    await writer.take([bought("a", 0), bought("b", 1), bought("b", 2)], 3)
    await writer._load_some(["a"])
    await writer._load_some(["b"])
    await writer.flush()
    key = writer.space.marker(0).encode()
    if found is None:
        del bench.redis.keys[key]
    else:
        bench.redis.keys[key] = found.encode()
    await writer.take([bought("a", 3), bought("cold", 4)], 5)
    with pytest.raises(Rewind, match=r"3:0.* expected"):
        await writer.flush()
    with pytest.raises(Rewind, match=r"3:0.* expected"):
        await writer._load_some(["cold"])


async def test_a_store_that_was_emptied_before_the_first_flush_rewinds_a_load(bench: Bench) -> None:
    """No marker is not one that is on its way: rows would begin anew in the middle of the log."""
    writer = bench.writer(marker=Marker(3), loads=False)
    await writer.take([bought("a", 3)], 4)
    with pytest.raises(Rewind, match=r"3:0.* expected"):
        await writer._load_some(["a"])


async def test_rows_that_were_read_and_are_gone_rewind_though_there_was_no_marker_yet(bench: Bench) -> None:
    """A first flush with a conflict wrote rows and no marker; to mend them with what is pending would lose the rest."""
    former, other = bench.writer(), bench.writer(partition=1, doors=bench.new_doors())
    await bench.take(former, bought("a", 0), bought("b", 1))
    await bench.take(other, bought("b", 0, partition=1))
    await other.flush()
    await former.flush()
    writer = bench.writer(doors=bench.new_doors())
    await bench.take(writer, bought("a", 0), bought("b", 1))
    bench.redis.restore({})
    with pytest.raises(Rewind, match="no longer holds what was read there"):
        await writer.flush()
    assert await bench.marker(writer) is None


async def test_a_load_takes_the_marker_of_a_flush_in_flight(bench: Bench) -> None:
    writer = bench.writer(loads=False)
    await writer.take([bought("a", 0)], 1)
    await writer._load_some(["a"])
    bench.redis.unanswered = 1
    flush = asyncio.create_task(writer.flush())
    await settle(20)
    assert bench.redis.keys[writer.space.marker(0).encode()] == Marker(1).encode()
    assert writer.written is None, "the answer was lost: the writer does not know yet"
    await writer.take([bought("cold", 1)], 2)
    await writer._load_some(["cold"])
    await flush
    assert writer.written == 1


async def test_in_doubt_the_same_script_goes_again_and_the_cache_is_kept(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, *(bought(f"p{n}", n) for n in range(ROWS_PER_SCRIPT + 1)))
    bench.redis.unanswered = 3
    await writer.flush()
    assert await bench.marker(writer) == Marker(ROWS_PER_SCRIPT + 1)
    bench.forget_emissions()
    await bench.take(writer, bought("p0", ROWS_PER_SCRIPT + 1))
    assert sales_10m(bench) == [("p0", 2.0)], "from the cache, which did not go"


async def test_a_gap_that_was_accepted_is_passed(bench: Bench) -> None:
    """Retention has cut the records between the marker and the log's start."""
    first = bench.writer()
    await bench.take(first, bought("a", 0))
    await first.flush()
    writer = bench.writer(marker=await bench.marker(first), start=10)
    assert writer.position == 10
    await bench.take(writer, bought("a", 10))
    await writer.flush()
    assert await bench.marker(writer) == Marker(11)


async def test_an_offset_behind_what_was_read_is_another_topic(bench: Bench) -> None:
    writer = bench.writer(marker=Marker(5))
    with pytest.raises(AnotherTopic, match=r"product_behavior\[0\]: read offset 3 where 5 was to come"):
        await writer.take([bought("a", 3)], 4)


# --- the store is away ---------------------------------------------------------------------------------------------


async def test_rows_that_are_cached_go_on_while_the_store_is_away(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("warm", 0))
    bench.redis.away = True
    bench.forget_emissions()
    await bench.take(writer, bought("warm", 1), bought("cold", 2))
    assert bench.emissions() == ["warm"]
    flush = asyncio.create_task(writer.flush())
    await asyncio.sleep(1)
    bench.redis.away = False
    await flush
    await asyncio.sleep(1)
    assert bench.emissions() == ["warm", "cold"]
    await writer.flush()
    assert await bench.marker(writer) == Marker(3)


async def flushing(writer: RowWriter) -> None:
    while True:
        await asyncio.sleep(0.05)
        await writer.flush()


async def blocked(bench: Bench, writer: RowWriter) -> asyncio.Task[None]:
    """A batch that waits for room, since rows have been unwritten for too long."""
    await bench.take(writer, bought("a", 0))
    bench.redis.away = True
    bench.start(flushing(writer))
    await asyncio.sleep(EMISSION_LIMIT_MS / 1000 - 1)
    await writer.take([bought("a", 1)], 2)
    await asyncio.sleep(2)
    taking = asyncio.create_task(writer.take([bought("a", 2)], 3))
    await settle()
    assert not taking.done()
    return taking


async def test_input_waits_while_rows_are_unwritten_for_too_long_and_then_goes_on(bench: Bench) -> None:
    writer = bench.writer()
    taking = await blocked(bench, writer)
    assert [value for _, value in sales_10m(bench)] == [1, 2, 3], "what was read is out, only the next batch waits"
    bench.redis.away = False
    await asyncio.wait_for(taking, 1)
    await asyncio.sleep(1)
    assert await bench.marker(writer) == Marker(3)


async def test_a_batch_that_waits_ends_when_the_rows_are_dropped(bench: Bench) -> None:
    writer = bench.writer()
    taking = await blocked(bench, writer)
    writer.abandon()
    await asyncio.wait_for(taking, 1)


async def test_input_waits_while_too_much_is_unwritten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "UNWRITTEN_ENTRIES", 2)
    writer = bench.writer()
    await bench.take(writer, *(bought("a", number) for number in range(2)))
    taking = asyncio.create_task(writer.take([bought("a", 2)], 3))
    await settle()
    assert not taking.done(), "three are unwritten"
    await writer.flush()
    await asyncio.wait_for(taking, 1)
    await bench.take(writer, bought("a", 3), bought("a", 4))
    assert sales_10m(bench)[-1] == ("a", 5.0)


async def test_what_is_unwritten_is_told_after_a_conflict(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that are applied again to another writer's row are still unwritten, and no more than once."""
    monkeypatch.setattr(writing, "UNWRITTEN_ENTRIES", 1)
    one, two = bench.writer(partition=0), bench.writer(partition=1)
    await bench.take(two, bought("a", 0, partition=1))
    await two.flush()
    await bench.take(one, bought("a", 0))
    await two.take([bought("a", 1, partition=1)], 2)
    await two.flush()
    await one.flush()
    assert bench.conflicts == [1]
    taking = asyncio.create_task(one.take([bought("a", 1)], 2))
    await settle()
    assert not taking.done()
    await one.flush()
    await asyncio.wait_for(taking, 1)
    await one.flush()
    (row,) = await bench.stored(one, "a")
    assert row is not None
    assert row.stamps == {0: 1, 1: 1}
    await bench.take(one, bought("a", 2))


async def test_input_waits_while_too_much_is_parked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PARKED_ENTRIES", 2)
    bench.redis.away = True
    writer = bench.writer()
    await writer.take([bought("a", 0), bought("b", 1)], 2)
    taking = asyncio.create_task(writer.take([bought("c", 2)], 3))
    await asyncio.sleep(1)
    assert not taking.done()
    bench.redis.away = False
    await asyncio.wait_for(taking, 1)


async def test_a_row_whose_emission_has_grown_old_is_emitted_again_before_it_is_written(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0), bought("b", 1))
    await asyncio.sleep(EMISSION_LIMIT_MS / 1000 + 1)
    bench.forget_emissions()
    bench.sender.held = True
    flush = asyncio.create_task(writer.flush())
    await settle()
    assert bench.emissions() == ["a", "b"]
    assert await bench.stored(writer, "a", "b") == [None, None], "not before the emission was acknowledged"
    bench.sender.release()
    await flush
    assert None not in await bench.stored(writer, "a", "b")
    # and what follows is young
    bench.forget_emissions()
    await bench.take(writer, bought("a", 2))
    await writer.flush()
    assert bench.emissions() == ["a"]


async def test_what_changed_during_a_late_flush_keeps_the_time_of_its_own_emission(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0))
    await asyncio.sleep(EMISSION_LIMIT_MS / 1000 + 1)
    bench.redis.rounds = 20
    flush = asyncio.create_task(writer.flush())
    await settle(3)
    await writer.take([bought("a", 1)], 2)
    await flush
    bench.forget_emissions()
    await asyncio.sleep(EMISSION_LIMIT_MS / 1000 + 1)
    await writer.flush()
    assert bench.emissions() == ["a"], "the second change was emitted too long ago by now"


# --- the agenda ----------------------------------------------------------------------------------------------------


def beat(offset: int, time: int) -> tuple[int, int]:
    return offset, time


async def test_a_bucket_that_leaves_a_window_re_evaluates_exactly_its_rows(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("old", 0, time=HOUR), bought("young", 1, time=HOUR + 5 * MINUTE))
    await bench.take(writer, heartbeats=[beat(2, HOUR + 9 * MINUTE)])
    bench.forget_emissions()
    await bench.take(writer, heartbeats=[beat(3, HOUR + 10 * MINUTE)])
    assert sales_10m(bench) == [("old", 0.0)]
    (change,) = bench.emitted()
    assert kafka_time_of(change.blob) == 0, "time changed it, not an event"
    assert row_of(change).as_of == HOUR + 10 * MINUTE
    await writer.flush()
    assert await bench.marker(writer) == Marker(4, HOUR + 10 * MINUTE)
    assert bench.written[-1] == 0


async def test_a_cold_row_of_the_agenda_is_loaded(bench: Bench) -> None:
    first = bench.writer()
    await bench.take(first, bought("a", 0), bought("b", 1))
    await first.flush()
    bench.forget_emissions()
    writer = bench.writer(marker=await bench.marker(first))
    await bench.take(writer, heartbeats=[beat(2, HOUR + 30 * MINUTE)])
    assert sorted(sales_10m(bench)) == [("a", 0.0), ("b", 0.0)]
    rows = await bench.stored(writer, "a", "b")
    assert [row and row.floats[1] for row in rows] == [1.0, 1.0], "still in the hour"


async def test_the_marker_waits_for_the_agenda_of_a_heartbeat(bench: Bench) -> None:
    writer = bench.writer(loads=False)
    await writer.take([bought("a", 0)], 1)
    await writer._load_some(["a"])
    await writer.take([bought("a", 2)], 3, [beat(1, HOUR + 30 * MINUTE)])
    await writer.flush()
    assert await bench.marker(writer) == Marker(1), "the heartbeat was read, its agenda not visited"
    bench.start(writer.run_agenda())
    await settle(100)
    await writer.flush()
    assert await bench.marker(writer) == Marker(3, HOUR + 30 * MINUTE)


async def test_only_the_newest_of_many_heartbeats_is_visited(bench: Bench) -> None:
    writer = bench.writer()
    await bench.take(writer, bought("a", 0))
    bench.forget_emissions()
    beats = [beat(number, HOUR + number * 20 * MINUTE) for number in range(1, 60)]
    await bench.take(writer, heartbeats=beats)
    assert len(bench.emitted()) == 1
    await writer.flush()
    assert await bench.marker(writer) == Marker(60, HOUR + 59 * 20 * MINUTE)


async def test_the_agenda_is_visited_a_slice_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "AGENDA_SLICE", 2)
    writer = bench.writer()
    await bench.take(writer, *(bought(entity, number) for number, entity in enumerate("abcde")))
    bench.forget_emissions()
    await bench.take(writer, heartbeats=[beat(5, HOUR + 10 * MINUTE)])
    await settle(300)
    assert sorted(sales_10m(bench)) == [(entity, 0.0) for entity in "abcde"]
    await writer.flush()
    assert await bench.marker(writer) == Marker(6, HOUR + 10 * MINUTE)


async def test_an_agenda_visit_that_dies_is_done_by_the_next_owner(bench: Bench) -> None:
    first = bench.writer(loads=False)
    await first.take([bought("a", 0)], 1)
    await first._load_some(["a"])
    await first.take([], 2, [beat(1, HOUR + 30 * MINUTE)])
    await first.flush()
    bench.forget_emissions()
    marker = await bench.marker(first)
    assert marker == Marker(1)
    writer = bench.writer(marker=marker)
    await bench.take(writer, heartbeats=[beat(1, HOUR + 30 * MINUTE)])
    assert sales_10m(bench) == [("a", 0.0)]


async def test_a_row_that_is_parked_when_its_window_moves_is_evaluated_at_the_new_time(bench: Bench) -> None:
    writer = bench.writer()
    bench.redis.rounds = 5
    await writer.take([bought("a", 0)], 2, [beat(1, HOUR + 30 * MINUTE)])
    await settle(300)
    assert sales_10m(bench)[-1] == ("a", 0.0)
    await writer.flush()
    assert await bench.marker(writer) == Marker(2, HOUR + 30 * MINUTE)


async def test_heartbeats_are_passed_on_at_once(bench: Bench) -> None:
    writer = bench.writer(partition=2)
    await bench.take(writer, heartbeats=[beat(0, HOUR)])
    (message,) = bench.sender.of("feature-changes")
    assert decode_changes(message.value or b"") == {2: HOUR}


# --- what a crash leaves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [True, False])
async def test_a_writer_that_dies_in_a_flush_leaves_what_the_next_one_needs(bench: Bench, answered: bool) -> None:
    entries = [bought(f"p{n % 3}", n) for n in range(9)]
    first = bench.writer(loads=False)
    await first.take(entries[:6], 6)
    await first._load_some(["p0", "p1", "p2"])
    if answered:
        await first.flush()
    else:
        bench.redis.unanswered = 1
        dying = asyncio.create_task(first.flush())
        await settle(10)
        dying.cancel()
    marker = await bench.marker(first)
    writer = bench.writer(marker=marker)
    assert marker == Marker(6)
    await bench.take(writer, *entries[6:])
    await writer.flush()
    rows = await bench.stored(writer, "p0", "p1", "p2")
    assert [row and row.floats[0] for row in rows] == [3.0, 3.0, 3.0]


async def test_rows_and_content_of_a_state_go_together(bench: Bench) -> None:
    """What a packed row says is what its state says, after any number of loads."""
    folding = CatalogFolding()
    writer = bench.writer(folding)
    await bench.take(writer, patched("a", 0, title="x", price=5), patched("a", 1, title=None, stock=0))
    await writer.flush()
    loaded = await bench.doors.store.load(writer.space, 0, ["a"])
    (stored,) = loaded.rows
    assert stored is not None
    state = folding.unpack(stored.state)
    (row,) = await bench.stored(writer, "a")
    assert row is not None
    assert row.ints == (5, 5, 0, 0)
    assert folding.values(state, 0).numbers == np.array(row.ints, "<i8").tobytes()
    assert content_of(state) == {}
    assert loaded.redis_ms >= REDIS_EPOCH_MS
