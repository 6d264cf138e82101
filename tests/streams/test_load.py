"""More than the ranking side can do: coarser, not later, and nothing grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from serving.requests import ScoreRequest, Scores
from streams import reranking
from streams.dirty import Since
from streams.emitting import OnWritten, Outbound
from streams.records import Cause, Ranking, decode_ranking, encode_record
from streams.reranking import Reranker
from tests.streams.bench import HOUR
from tests.streams.fakes import FakeScorer, RecordingSender
from tests.streams.lists import BUNDLE, Lists, catalog_row, registration
from tests.streams.loops import settle
from tests.streams.ranking_bench import RankingBench

SETS = 30


@dataclass(slots=True)
class JammedSender(RecordingSender):
    """Takes no more rankings while the way is closed, like a client whose buffers are full."""

    way: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    async def send_many(
        self, topic: str, partition: int, messages: Sequence[Outbound], on_written: OnWritten | None = None
    ) -> Awaitable[object]:
        self.waiting += len(messages)
        await self.way.wait()
        self.waiting -= len(messages)
        return await RecordingSender.send_many(self, topic, partition, messages, on_written)


@dataclass(slots=True)
class TurnedScorer(FakeScorer):
    """Answers each call when its gate is opened, in whatever turn."""

    gates: list[asyncio.Event] = field(default_factory=list)

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        self.gates.append(gate := asyncio.Event())
        await gate.wait()
        return await FakeScorer.score(self, request, version, explain=explain)


@pytest.fixture
async def bench() -> AsyncIterator[RankingBench]:
    """Thirty sets that hold "hot", each with a product of its own."""
    sender = JammedSender()
    sender.way.set()
    made = RankingBench(sender=sender)
    await made.ready()
    for number in range(SETS):
        await made.register(f"s{number}", ["hot", f"p{number}"])
    made.forget()
    made.scorer.requests.clear()
    yield made
    made.stop()


def last_scores(bench: RankingBench) -> set[float]:
    """The score of "hot" in the newest ranking of each set."""
    found = {}
    for sent in bench.log():
        ranking = ranking_in(sent.value)
        found[ranking.result_set_id] = round(float(ranking.scores[ranking.product_ids.index("hot")]), 5)
    assert len(found) == SETS
    return set(found.values())


def caused(bench: RankingBench) -> list[int]:
    """The version of the row that caused each ranking, in order of publication."""
    causes = [ranking_in(sent.value).caused_by for sent in bench.log()]
    return [cause.version for cause in causes if cause is not None]


def ranking_in(value: bytes | None) -> Ranking:
    assert value is not None
    return decode_ranking(value)


async def test_a_hot_product_is_published_once_a_round_however_often_it_changes(bench: RankingBench) -> None:
    bench.scorer.hold()
    await bench.emit(catalog_row("hot", 0, price=1_000))
    for number in range(1, 200):
        bench.arrive(catalog_row("hot", number, price=1_000 + number))
    bench.scorer.release()
    await settle(300)
    assert [request.rows for request in bench.scorer.requests] == [SETS, SETS]
    assert len(bench.log()) == 2 * SETS
    assert last_scores(bench) == {-1.199}


async def test_other_sets_have_their_turn_while_a_hot_product_never_rests(
    bench: RankingBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hot sets come in portions, and who became dirty first is taken first."""
    monkeypatch.setattr(reranking, "ORDERED_ROWS", 80)
    await bench.register("cold", ["q"])
    bench.forget()
    await bench.emit(catalog_row("hot", 0, price=1))
    bench.forget()
    bench.scorer.hold()
    bench.arrive(catalog_row("hot", 1, price=2), catalog_row("q", 0, price=3))
    rounds = 0
    while "cold" not in dict(bench.published()):
        rounds += 1
        assert rounds <= SETS * 8 // 80 + 2
        bench.arrive(catalog_row("hot", 1 + rounds, price=2 + rounds))
        bench.scorer.release()
        await asyncio.sleep(0)
        bench.scorer.hold()
        await settle(20)
    bench.scorer.release()
    await settle(300)


async def test_rounds_are_published_in_the_order_in_which_they_were_taken(bench: RankingBench) -> None:
    """Two are scored at once, not three; the answer that comes early waits."""
    scorer = TurnedScorer()
    made = RankingBench(scorer=scorer)
    await made.ready()
    await made.message("s", encode_record(registration("s", ["hot", "cold"])))
    await settle(200)
    scorer.gates[0].set()
    await settle(200)
    made.forget()
    for number, price in enumerate((9_000, 2_000, 3_000)):
        await made.emit(catalog_row("hot", number, price=price))
    assert len(scorer.gates) == 3, "of the registration, and of two changes"
    scorer.gates[2].set()
    await settle(200)
    assert made.published() == []
    scorer.gates[1].set()
    await settle(200)
    scorer.gates[3].set()
    await settle(200)
    assert caused(made) == [1, 2, 3]
    made.stop()


async def test_while_kafka_takes_nothing_no_queue_grows_and_afterwards_all_is_right(bench: RankingBench) -> None:
    sender = bench.sender
    assert isinstance(sender, JammedSender)
    sender.way.clear()
    for number in range(300):
        await bench.emit(catalog_row("hot", number, price=1_000 + number))
    assert sender.waiting == SETS, "what was handed over first"
    assert len(bench.scorer.requests) == 1, "and nobody scores what could not be sent"
    sender.way.set()
    await settle(300)
    assert len(bench.log()) == 2 * SETS
    assert last_scores(bench) == {-1.299}


async def test_a_null_follows_the_ranking_that_waits_to_be_sent(bench: RankingBench) -> None:
    sender = bench.sender
    assert isinstance(sender, JammedSender)
    sender.way.clear()
    await bench.emit(catalog_row("hot", 0, price=7))
    await bench.close("s3")
    sender.way.set()
    await settle(300)
    assert [ids for name, ids in bench.published() if name == "s3"] == [("p3", "hot"), None]
    assert bench.versions() == sorted(bench.versions())


async def test_what_waits_to_be_sent_is_dropped_with_its_partition(bench: RankingBench) -> None:
    sender = bench.sender
    assert isinstance(sender, JammedSender)
    sender.way.clear()
    await bench.emit(catalog_row("hot", 0, price=7))
    await bench.close("s3")
    bench.side.drop()
    sender.way.set()
    await settle(300)
    assert all(ids is not None for _, ids in bench.published()), "handed over before, but for the null"


# --- what is dirty -------------------------------------------------------------------------------------------------


def test_the_first_that_became_dirty_is_the_first_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "ORDERED_ROWS", 8)
    lists = Lists()
    for name in "stu":
        lists.register(name, [name])
    lists.rank()
    for product in ("u", "s", "t", "u"):
        lists.price(product, 10 + lists.offset)
    order = []
    while (work := lists.reranker.take()) is not None:
        order += [ranking.result_set_id for ranking in lists.apply(work)]
        if len(order) == 1:
            lists.price("u", 99)
    assert order == ["u", "s", "t", "u"]


def test_a_set_whose_number_is_given_again_is_dirty_once() -> None:
    """The old set was dirty and went; the new one has its number, and comes in its own time."""
    reranker = Reranker()
    reranker.bundle = BUNDLE
    found = registration("s", ["a"])
    needs = reranker.register(found, encode_record(found), 0)
    assert needs is not None
    reranker.begin(needs.live)
    assert reranker.remove("s")
    assert not reranker.is_dirty
    again = reranker.register(found, encode_record(found), 0)
    assert again is not None
    assert again.live.number == needs.live.number
    reranker.begin(again.live)
    work = reranker.take(encoded_only=False)
    assert work is not None
    assert [part.numbers.tolist() for part in work.parts] == [[again.live.number]]
    assert reranker.take(encoded_only=False) is None


def test_a_set_keeps_the_first_cause_until_it_is_taken() -> None:
    lists = Lists()
    lists.register("s", ["a", "b"])
    lists.rank()
    lists.price("b", 5, time=HOUR + 1)
    lists.price("a", 6, time=HOUR + 2)
    work = lists.take()
    assert work.causes.tolist() == [Cause("product_catalog", "b", 2, HOUR + 1)]
    lists.price("a", 7, time=HOUR + 3)
    lists.apply(work)
    assert lists.take().causes.tolist() == [Cause("product_catalog", "a", 4, HOUR + 3)]
    assert np.array_equal(work.cause_times, [Since(HOUR + 1)])
