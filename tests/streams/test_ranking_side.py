"""Tables, loading, publishing: what crosses Kafka and the store on the way from a change to a ranking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec import structs

from streams import ranking_side
from streams.fetching import Message
from streams.loading import READ_LIMIT_MS
from streams.minute import KEEP_MS
from streams.records import DEAD_LETTER, RANKINGS, decode_headers, encode_ranking, encode_record, partition_for
from streams.transport import Batch
from tests.streams.bench import HOUR
from tests.streams.fakes import Sent
from tests.streams.lists import BUNDLE, Lists, behavior_row, catalog_row, content_row, registration, user_row
from tests.streams.loops import settle
from tests.streams.ranking_bench import RankingBench


@pytest.fixture
async def bench() -> AsyncIterator[RankingBench]:
    made = RankingBench()
    yield made
    made.stop()


@pytest.fixture
async def ready(bench: RankingBench) -> RankingBench:
    await bench.ready()
    return bench


def ranking_of(result_set_id: str, *product_ids: str) -> bytes:
    """A ranking of these products with falling scores, as some other worker published it."""
    lists = Lists()
    lists.register(result_set_id, [(product, -float(rank)) for rank, product in enumerate(product_ids)])
    (ranking,) = lists.rank()
    return encode_ranking(ranking)


# --- registering and loading ---------------------------------------------------------------------------------------


async def test_a_registration_is_ranked_from_the_store_and_published_beside_its_set(ready: RankingBench) -> None:
    await ready.store(catalog_row("a", 0, price=500), catalog_row("b", 0, price=100, stock=3))
    await ready.store(behavior_row("a", 0, sales_1h=80), content_row("b", 0, text="red"))
    await ready.register("s", ["a", "b", "unknown"], query="red")
    (sent,) = ready.log()
    assert (sent.topic, sent.key, sent.partition) == (RANKINGS, b"s", 0)
    assert decode_headers(sent.headers) == (ready.side.writer, 1 << 32 | 1)
    ranking = ready.last()
    assert ranking.version == 1 << 32 | 1
    assert ranking.product_ids == ("a", "unknown", "b")
    assert set(ranking.feature_age_ms) == {"product_catalog", "product_behavior", "product_content"}
    assert not ranking.degraded


@pytest.mark.parametrize("missing", ["clock", "bundle", "feature-changes", "rankings"])
async def test_nothing_is_published_before_everything_is_known(bench: RankingBench, missing: str) -> None:
    await bench.assign()
    steps: dict[str, Callable[[], None]] = {
        "bundle": bench.bundle,
        "feature-changes": bench.side.on_caught_up,
        "rankings": lambda: bench.side.on_rankings_read(0),
        "clock": bench.clock,
    }
    last = steps.pop(missing)
    for step in steps.values():
        step()
    if missing == "clock":
        bench.side.on_clock({0: HOUR})
    await bench.register("s", ["a"])
    assert bench.published() == []
    last()
    await settle(200)
    assert bench.published() == [("s", ("a",))]


async def test_a_change_that_arrived_before_the_registration_is_newer_than_the_store(ready: RankingBench) -> None:
    await ready.store(catalog_row("a", 0, price=1000), catalog_row("b", 0, price=2000))
    await ready.emit(catalog_row("a", 1, price=3000))
    await asyncio.sleep(KEEP_MS / 1000 - 1)
    await ready.register("s", ["a", "b"])
    assert ready.published() == [("s", ("b", "a"))]


async def test_a_change_that_arrives_during_the_read_is_newer_than_the_store(ready: RankingBench) -> None:
    await ready.store(catalog_row("a", 0, price=1000), catalog_row("b", 0, price=2000))
    ready.redis.rounds = 50
    record = registration("s", ["a", "b"])
    await ready.message("s", encode_record(record))
    await settle(60)
    ready.arrive(catalog_row("a", 1, price=3000))
    await settle(2000)
    assert [ids for _, ids in ready.published()] == [("b", "a")]


async def test_a_row_in_the_store_that_is_newer_than_the_minute_wins(ready: RankingBench) -> None:
    await ready.emit(catalog_row("a", 1, price=3000))
    await ready.store(catalog_row("a", 2, price=1000), catalog_row("b", 0, price=2000))
    await ready.register("s", ["a", "b"])
    assert ready.published() == [("s", ("a", "b"))]


async def test_what_re_ranking_takes_is_measured_from_the_rows_coming(ready: RankingBench) -> None:
    """Of each ranking that a row brought about; a registration is none."""
    await asyncio.sleep(1)
    await ready.register("s", ["a", "b"])
    await ready.register("t", ["a", "c"])
    assert ready.measured().rerank == {}
    await ready.emit(catalog_row("a", 1, price=3000))
    assert {view: found.count for view, found in ready.measured().rerank.items()} == {"product_catalog": 2}


async def test_a_read_that_took_too_long_for_the_minute_is_repeated(ready: RankingBench) -> None:
    await ready.store(catalog_row("a", 0, price=1000))
    ready.redis.calls.clear()
    ready.redis.delays_s = [READ_LIMIT_MS / 1000 - 1, READ_LIMIT_MS / 1000 + 1]
    await ready.register("s", ["a"])
    await asyncio.sleep(3 * READ_LIMIT_MS / 1000)
    assert ready.redis.calls == ["read"] * 4, "three views, the second of them twice"
    assert ready.published() == [("s", ("a",))]


async def test_registrations_wait_for_a_store_that_is_away_and_other_sets_go_on(ready: RankingBench) -> None:
    await ready.register("s", [("a", 1.0), ("b", 2.0)])
    ready.redis.away = True
    await ready.register("t", ["c"])
    await ready.emit(catalog_row("b", 0, price=2000))
    assert ready.published() == [("s", ("b", "a")), ("s", ("a", "b"))]
    ready.redis.away = False
    await asyncio.sleep(1)
    assert ready.published()[-1] == ("t", ("c",))


async def test_a_set_that_is_loaded_while_a_query_is_encoded_is_ranked_with_its_own(ready: RankingBench) -> None:
    await ready.store(content_row("a", 0, text="red"), content_row("b", 0, text="blue"))
    ready.scorer.hold()
    await ready.register("s", ["a", "b"], query="red")
    assert ready.scorer.queries == [["red"]]
    await ready.register("t", ["a", "b"], query="blue")
    ready.scorer.release()
    await settle(200)
    assert ready.scorer.queries == [["red"], ["blue"]]
    alone = RankingBench()
    await alone.ready()
    await alone.store(content_row("a", 0, text="red"), content_row("b", 0, text="blue"))
    await alone.register("t", ["a", "b"], query="blue")
    assert ready.last().result_set_id == "t"
    assert ready.last().scores.tolist() == alone.last().scores.tolist()
    alone.stop()


async def test_the_history_of_a_user_is_read_with_the_content_of_its_products(ready: RankingBench) -> None:
    await ready.store(user_row("u", 0, "x"), content_row("x", 0, text="red"))
    await ready.store(content_row("a", 0, text="blue"), content_row("b", 0, text="red"))
    await ready.register("s", ["a", "b"], user_id="u")
    (request,) = ready.scorer.requests
    assert request.user[0].any()
    # a product that enters the history later is read, too
    await ready.store(content_row("y", 0, text="green"))
    await ready.emit(user_row("u", 1, "x", "y"))
    assert not (ready.scorer.requests[-1].user == request.user).all()
    before = ready.scorer.requests[-1].user.copy()
    await ready.emit(content_row("y", 1, text="violet"))
    assert not (ready.scorer.requests[-1].user == before).all(), "and watched"


async def test_the_same_bytes_again_do_nothing_and_other_bytes_rank_anew(ready: RankingBench) -> None:
    await ready.register("s", [("a", 1.0), ("b", 2.0)])
    await ready.register("s", [("a", 1.0), ("b", 2.0)])
    assert len(ready.scorer.requests) == 1
    await ready.register("s", [("a", 1.0), ("c", 2.0)])
    assert ready.published() == [("s", ("b", "a")), ("s", ("c", "a"))]
    assert ready.last().previous_ranks.tolist() == [-1, 1]
    assert ready.versions() == [(1, 1), (1, 2)]


async def test_hashes_of_what_nobody_needs_any_more_are_not_watched(ready: RankingBench) -> None:
    await ready.register("s", ["a"])
    await ready.close("s")
    await ready.emit(catalog_row("a", 0, price=5))
    assert len(ready.side.minute.watched) == 0
    await ready.register("s", ["a"])
    await ready.emit(catalog_row("a", 1, price=7))
    assert ready.last().scores[0] == pytest.approx(-0.007)


async def test_a_registration_that_is_not_valid_is_buried_and_the_next_one_taken(ready: RankingBench) -> None:
    await ready.message("s", b"\xc1")
    await ready.message("t", encode_record(registration("another", ["a"])))
    await ready.register("u", ["a"])
    letters = ready.sender.of(DEAD_LETTER)
    assert [dict(letter.headers)["reason"] for letter in letters] == [b"not_msgpack", b"key_mismatch"]
    assert ready.published() == [("u", ("a",))]


async def test_what_was_committed_is_read_for_the_table_and_not_buried_again(bench: RankingBench) -> None:
    await bench.assign(end=2, committed=2)
    await bench.message("s", b"\xc1", offset=0)
    await bench.message("s", b"\xc1", offset=2)
    assert len(bench.sender.of(DEAD_LETTER)) == 1


async def test_a_batch_whose_partition_went_meanwhile_registers_nothing(ready: RankingBench) -> None:
    """Its set would belong to a partition that nobody owns here: nothing could withdraw it."""
    messages = [Message(0, b"s", b"\xc1", HOUR, ()), Message(1, *_pair(registered("t", "a")), HOUR, ())]
    ready.sender.held = True
    batch = asyncio.create_task(ready.side.on_result_sets(Batch("result-sets", 0, messages, 1)))
    await settle()
    ready.side.drop()
    ready.sender.release()
    await batch
    await settle(200)
    assert ready.scorer.requests == []
    assert not ready.side._to_register
    assert len(ready.side._reranker.sets) == 0


# --- tables --------------------------------------------------------------------------------------------------------


async def read_tables(bench: RankingBench, rankings: dict[str, bytes | None], *, epoch: int = 3) -> None:
    """What lies on `rankings` when the partition is assigned."""
    for result_set_id, value in rankings.items():
        await bench.foreign(result_set_id, value, epoch=epoch)
    bench.side.on_rankings_read(0)


async def own(bench: RankingBench, *records: tuple[str, bytes | None], generation: int = 1) -> None:
    await bench.assign(end=len(records), generation=generation)
    bench.bundle()
    bench.side.on_caught_up()
    bench.clock()
    for offset, (key, value) in enumerate(records):
        await bench.message(key, value, offset=offset)


def _pair(record: tuple[str, bytes]) -> tuple[bytes, bytes]:
    return record[0].encode(), record[1]


def registered(result_set_id: str, *candidates: str | tuple[str, float], **fields: object) -> tuple[str, bytes]:
    return result_set_id, encode_record(registration(result_set_id, candidates, **fields))


async def test_only_the_last_record_of_a_key_counts_while_the_tables_are_read(bench: RankingBench) -> None:
    await own(
        bench,
        registered("s", "old"),
        registered("closed", "a"),
        registered("s", ("a", 1.0), ("b", 2.0)),
        ("closed", None),
    )
    await settle(200)
    assert bench.published() == []
    await read_tables(bench, {})
    await settle(200)
    assert bench.published() == [("s", ("b", "a"))]
    assert bench.side.committed() == {("result-sets", 0): 4}


async def test_a_takeover_is_loaded_in_portions(bench: RankingBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_side, "LOAD_SETS", 2)
    await bench.store(*(catalog_row(f"p{number}", 0, price=10 + number) for number in range(7)))
    await own(bench, *(registered(f"s{number}", f"p{number}", "shared") for number in range(7)))
    bench.redis.calls.clear()
    await read_tables(bench, {})
    await settle(600)
    assert sorted(bench.published()) == [(f"s{number}", ("shared", f"p{number}")) for number in range(7)]
    assert bench.redis.calls == ["read"] * 12, "three views of each portion's new products"


async def test_a_new_owner_publishes_only_what_does_not_stand(bench: RankingBench) -> None:
    await own(bench, registered("same", "a", ("b", -1.0)), registered("moved", ("a", -5.0), ("b", -1.0)))
    await read_tables(bench, {"same": ranking_of("same", "a", "b"), "moved": ranking_of("moved", "a", "b")})
    await settle(200)
    assert bench.published() == [("moved", ("b", "a"))]
    assert bench.last().previous_ranks.tolist() == [1, 0]


async def test_closed_and_forgotten_sets_get_a_null_once(bench: RankingBench) -> None:
    await own(bench, registered("closed", "a"), ("closed", None), ("null", None))
    await read_tables(bench, {"closed": ranking_of("closed", "a"), "lost": ranking_of("lost", "a"), "null": None})
    await settle(200)
    assert sorted(bench.published()) == [("closed", None), ("lost", None)]
    await bench.close("closed")
    await bench.close("never there")
    assert len(bench.published()) == 2


@pytest.mark.parametrize(("generation", "found", "epoch"), [(1, 3, 4), (7, 3, 7), (4, 3, 4), (0, 0, 1)])
async def test_an_epoch_is_above_every_other_in_the_partition(
    bench: RankingBench, generation: int, found: int, epoch: int
) -> None:
    await own(bench, registered("s", "a"), generation=generation)
    await read_tables(bench, {"other": None} if found else {}, epoch=found)
    await settle(200)
    assert bench.versions() == [(epoch, 1)]


async def test_a_process_never_uses_an_epoch_again(ready: RankingBench) -> None:
    """What it sent may still be under way when the partition comes back to it: nothing of it is in the table."""
    await ready.register("s", ["a"])
    assert ready.versions() == [(1, 1)]
    await own(ready, registered("s", "a"))
    await read_tables(ready, {})
    await settle(200)
    assert ready.versions() == [(1, 1), (2, 1)]


async def test_a_rebalance_begins_anew_and_drops_what_is_in_flight(ready: RankingBench) -> None:
    await ready.register("s", [("a", 1.0), ("b", 2.0)])
    ready.scorer.hold()
    await ready.emit(catalog_row("b", 0, price=5000))
    ready.side.drop()
    ready.scorer.release()
    await settle(200)
    assert ready.published() == [("s", ("b", "a"))]
    assert ready.side.owned == ()
    await ready.emit(catalog_row("a", 0, price=5000))
    await ready.close("s")
    assert len(ready.published()) == 1


async def test_a_partition_that_comes_back_during_a_call_is_ranked_anew(ready: RankingBench) -> None:
    await ready.register("s", [("a", 1.0), ("b", 2.0)])
    ready.scorer.hold()
    await ready.emit(catalog_row("b", 0, price=5000))
    await own(ready, registered("s", ("a", 1.0), ("b", 2.0)), generation=2)
    await read_tables(ready, {"s": ranking_of("s", "b", "a")}, epoch=1)
    ready.scorer.release()
    await settle(300)
    assert ready.published() == [("s", ("b", "a")), ("s", ("a", "b"))], "the minute still knows the price"
    assert ready.versions() == [(1, 1), (2, 1)]


# --- other writers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [ranking_of("s", "b", "a"), None])
async def test_another_writers_record_is_answered_with_what_should_stand(
    ready: RankingBench, value: bytes | None
) -> None:
    await ready.register("s", ["a", "b"])
    await ready.foreign("s", value, epoch=0)
    assert ready.published() == [("s", ("a", "b")), ("s", ("a", "b"))]
    assert ready.rereads == []


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x80", b"\x01"])
async def test_a_record_that_nobody_can_read_is_replaced(ready: RankingBench, value: bytes) -> None:
    """While it is followed, and when it stands in the table that an owner begins with."""
    await ready.register("s", ["a", "b"])
    await ready.foreign("s", value, epoch=0)
    assert ready.published() == [("s", ("a", "b")), ("s", ("a", "b"))]
    await own(ready, registered("s", "a", "b"))
    await read_tables(ready, {"s": value, "gone": value}, epoch=1)
    await settle(200)
    assert sorted(ready.published()[2:]) == [("gone", None), ("s", ("a", "b"))]


async def test_ones_own_record_is_not_answered(ready: RankingBench) -> None:
    await ready.register("s", ["a", "b"])
    ready.read(ready.log()[0])
    await settle(200)
    assert len(ready.published()) == 1


async def test_ones_own_record_from_before_an_assignment_is_answered(ready: RankingBench) -> None:
    await ready.register("s", ["a", ("b", -1.0)])
    (late,) = ready.log()
    await own(ready, registered("s", "a", ("b", -1.0)))
    await read_tables(ready, {"s": ranking_of("s", "a", "b")}, epoch=1)
    ready.read(late)
    await settle(200)
    assert len(ready.published()) == 2


async def test_a_writer_with_the_same_epoch_is_answered_with_a_higher_version(ready: RankingBench) -> None:
    await ready.register("s", ["a", "b"])
    await ready.foreign("s", ranking_of("s", "b", "a"), epoch=1, counter=40)
    assert ready.versions() == [(1, 1), (1, 41)]


async def test_a_higher_epoch_asks_for_the_tables_again(ready: RankingBench) -> None:
    await ready.register("s", ["a", "b"])
    await ready.foreign("s", ranking_of("s", "b", "a"), epoch=2)
    assert ready.rereads == ["rankings[0] has epoch 2, this owner 1"]
    await own(ready, registered("s", "a", "b"))
    await read_tables(ready, {"s": ranking_of("s", "b", "a")}, epoch=2)
    await settle(200)
    assert ready.published()[-1] == ("s", ("a", "b"))
    assert ready.versions()[-1] == (3, 1)


async def test_a_record_of_a_closed_set_is_answered_with_a_null(ready: RankingBench) -> None:
    await ready.register("s", ["a"])
    await ready.close("s")
    await ready.foreign("s", ranking_of("s", "a"), epoch=0)
    await ready.foreign("s", None, epoch=0)
    await ready.foreign("never", ranking_of("never", "a"), epoch=0)
    assert ready.published() == [("s", ("a",)), ("s", None), ("s", None), ("never", None)]


@pytest.mark.parametrize("when", ["awaited", "loading", "scoring"])
async def test_a_frozen_owners_record_during_a_takeover_does_not_stand(bench: RankingBench, when: str) -> None:
    """What the table says is what the set will be ranked to: only the late record calls for a publication."""
    await own(bench, registered("s", "a", ("b", -1.0)))
    if when == "awaited":
        bench.side._caught_up = False
    if when == "loading":
        bench.redis.away = True
    if when == "scoring":
        bench.scorer.hold()
    await read_tables(bench, {"s": ranking_of("s", "a", "b")})
    await settle(200)
    await bench.foreign("s", ranking_of("s", "b", "a"), epoch=2)
    bench.redis.away = False
    bench.scorer.release()
    bench.side.on_caught_up()
    await asyncio.sleep(1)
    assert bench.published() == [("s", ("a", "b"))]


async def test_a_frozen_owners_record_of_a_set_that_expires_while_it_is_awaited_does_not_stand(
    bench: RankingBench,
) -> None:
    await own(bench, registered("s", "a", expires_at=HOUR + 5))
    bench.redis.away = True
    await read_tables(bench, {"s": None})
    await bench.foreign("s", ranking_of("s", "a"), epoch=2)
    bench.clock(HOUR + 5)
    bench.redis.away = False
    await asyncio.sleep(1)
    assert bench.published() == [("s", None)]


# --- the end of a set ----------------------------------------------------------------------------------------------


async def test_a_set_expires_by_the_least_of_all_heartbeats(ready: RankingBench) -> None:
    await ready.register("s", ["a"], expires_at=HOUR + 10)
    ready.side.on_clock({0: HOUR + 50, 1: HOUR + 9})
    await settle()
    assert ready.published() == [("s", ("a",))]
    ready.side.on_clock({1: HOUR + 10})
    ready.side.on_clock({1: HOUR + 20})
    await settle()
    assert ready.published() == [("s", ("a",)), ("s", None)]
    await ready.emit(catalog_row("a", 0, price=7))
    assert len(ready.published()) == 2


async def test_a_clock_that_goes_back_is_not_believed(ready: RankingBench) -> None:
    ready.clock(HOUR + 10)
    ready.clock(HOUR)
    assert ready.side.clock == HOUR + 10


async def test_a_set_that_was_registered_twice_with_one_expiry_gets_one_null(ready: RankingBench) -> None:
    await ready.register("s", ["a"], expires_at=HOUR + 10)
    await ready.register("s", ["b"], expires_at=HOUR + 10)
    ready.clock(HOUR + 10)
    await settle()
    assert ready.published() == [("s", ("a",)), ("s", ("b",)), ("s", None)]


async def test_nothing_expires_before_each_partition_was_heard(bench: RankingBench) -> None:
    await own(bench, registered("s", "a", expires_at=HOUR - 1))
    bench.side._clocks.clear()
    bench.side.on_clock({0: HOUR})
    await read_tables(bench, {"s": ranking_of("s", "a")})
    await settle(200)
    assert bench.published() == []
    bench.side.on_clock({1: HOUR})
    await settle()
    assert bench.published() == [("s", None)]


async def test_a_set_that_has_expired_when_it_is_registered_is_never_ranked(ready: RankingBench) -> None:
    await ready.register("s", ["a"], expires_at=HOUR)
    assert ready.published() == []


async def test_a_set_that_closes_and_opens_again_begins_with_a_null_between(ready: RankingBench) -> None:
    await ready.register("s", ["a"])
    await ready.close("s")
    await ready.register("s", ["a"])
    assert ready.published() == [("s", ("a",)), ("s", None), ("s", ("a",))]
    assert ready.versions() == [(1, 1), (1, 2), (1, 3)]
    assert ready.last().previous_ranks.tolist() == [-1]


async def test_a_set_that_closes_during_a_call_is_not_published(ready: RankingBench) -> None:
    await ready.register("s", ["a"])
    ready.scorer.hold()
    await ready.emit(catalog_row("a", 0, price=7))
    await ready.close("s")
    ready.scorer.release()
    await settle(200)
    assert ready.published() == [("s", ("a",)), ("s", None)]


async def test_a_null_in_another_partition_closes_nothing() -> None:
    bench = RankingBench(partitions=2)
    await bench.ready()
    bench.side.on_rankings_read(1)
    partition = partition_for("s", 2)
    await bench.register("s", ["a"], at=partition)
    await bench.message("s", None, partition=1 - partition)
    await settle(200)
    assert bench.published() == [("s", ("a",))]
    await bench.message("s", None, partition=partition)
    await settle(200)
    assert bench.published() == [("s", ("a",)), ("s", None)]
    bench.stop()


# --- the model -----------------------------------------------------------------------------------------------------


async def test_degraded_while_the_model_is_away_and_redone_when_it_is_back(ready: RankingBench) -> None:
    await ready.register("s", [("a", 1.0), ("b", 2.0)], query="red")
    ready.scorer.away = True
    await ready.emit(catalog_row("b", 0, price=2000))
    assert ready.last().degraded
    await ready.register("t", [("a", 1.0), ("b", 2.0)], query="blue")
    assert (ready.last().result_set_id, ready.last().degraded, ready.last().product_ids) == ("t", True, ("b", "a"))
    await asyncio.sleep(5)
    count = len(ready.published())
    ready.scorer.away = False
    await asyncio.sleep(1)
    assert sorted(ready.published()[count:]) == [("s", ("a", "b")), ("t", ("a", "b"))]
    assert not ready.last().degraded
    assert ready.scorer.queries[-1] == ["blue"], "the query that could not be encoded was"


async def test_another_version_of_the_ranker_ranks_everything_anew(ready: RankingBench) -> None:
    await ready.register("s", ["a"])
    ready.side.on_bundle(structs.replace(BUNDLE, version=2))
    await settle(200)
    assert ready.last().model_version == "default/2"


async def test_another_encoder_ends_the_worker(ready: RankingBench) -> None:
    for model in ("product_encoder", "query_encoder"):
        with pytest.raises(ValueError, match="another encoder"):
            ready.side.on_bundle(structs.replace(BUNDLE, version=2, models=BUNDLE.models | {model: 2}))


# --- publishing ----------------------------------------------------------------------------------------------------


async def test_a_send_that_fails_for_good_ends_the_process(ready: RankingBench) -> None:
    ready.sender.held = True
    await ready.register("s", ["a"])
    (ack,) = ready.sender._waiting
    ack.set_exception(RuntimeError("refused for good"))
    await settle()
    assert [str(error) for error in ready.crashes] == ["refused for good"]
    ready.crashes.clear()


async def test_versions_of_a_partition_only_grow(ready: RankingBench) -> None:
    for number in range(5):
        await ready.register(f"s{number % 2}", ["a", f"p{number}"])
        await ready.emit(catalog_row("a", number, price=number + 1))
    await ready.close("s0")
    versions = ready.versions()
    assert versions == sorted(set(versions))
    assert len(versions) > 8


async def test_coalescing_all_that_is_dirty_goes_into_one_request(ready: RankingBench) -> None:
    for name in "stu":
        await ready.register(name, ["a", "b", "c"])
    ready.scorer.hold()
    await ready.emit(catalog_row("a", 0, price=100))
    requests = len(ready.scorer.requests)
    for number in range(1, 20):
        ready.arrive(catalog_row("b", number, price=100 + number), catalog_row("c", number, price=50 + number))
    ready.scorer.release()
    await settle(300)
    assert len(ready.scorer.requests) == requests + 1
    assert ready.scorer.requests[-1].rows == 6
    assert ready.last().product_ids == ("c", "a", "b")


async def test_a_record_of_a_partition_that_is_not_owned_is_nobodys_business(ready: RankingBench) -> None:
    ready.read(Sent(RANKINGS, ranking_of("s", "a"), b"s", 5, ()))
    await settle()
    assert ready.published() == []
