"""The show: real events replayed through a running engine, and what became of the lists.

The engine is started by who calls; it tells its figures, the rows in force and the oracle's verdict through `Hooks`.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from rich.console import Console

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.views import DAY_MS, MINUTE_MS, PRODUCT_CATALOG
from serving.datasets import online_retail, shirts
from serving.datasets.online_retail import History
from serving.datasets.shirts import Shirt, Story
from serving.retrieval import TextIndex, queries
from streams import snapshots
from streams.client import ClosedSet, Connection, FreshRanking, Publisher, RankingsReader, Registrar
from streams.metrics import RANKINGS_OUT, RECORDS_IN, ROWS_RESCORE, ROWS_SCORED, ROWS_WRITTEN
from streams.replay import Replayer, Sink, Speed
from streams.settings import Settings
from streams.show import Features, Report, Snapshot, figures_table, list_table, progress, spoken_version

CANDIDATES: Final = 100
SHIRTS: Final = 100
SHIRT_SET: Final = f"search:{shirts.QUERY}"
#: every so many'th list belongs to a known customer
USER_EVERY: Final = 4
#: a query finds so many products; less is asked of a catalogue that has too few such queries
LEAST_MATCHES: Final = (CANDIDATES, 50, 20, 5, 1)
#: how long a reader waits for news before it looks whether it should end
LOOK_S: Final = 0.25
#: differences that are shown when the oracle finds some
DIFFERENCES_SHOWN: Final = 10


class DemoError(Exception):
    """The stack did not do its part; the text says what was waited for."""


class VerifyReport(Protocol):
    """The oracle's verdict."""

    @property
    def equal(self) -> int:
        """Result sets whose newest ranking is what the offline replay computes."""
        ...

    @property
    def total(self) -> int: ...

    @property
    def ok(self) -> bool:
        """Whether stored rows and dead letters are right, too."""
        ...

    @property
    def lines(self) -> list[str]:
        """For a human: the sentence about the sets first, differences last."""
        ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """What only the stack knows. `features` gives the rows in force: product_id -> feature name -> number."""

    measured: Callable[[], snapshots.Snapshot]
    verify: Callable[[], VerifyReport]
    features: Callable[[Sequence[str]], Mapping[str, Features]]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How much is replayed and how fast. `data` None is the project's slice, `events` None the whole last week."""

    data: Path | None = None
    sets: int = 200
    events: int | None = 6_000
    speed: Speed = field(default_factory=lambda: Speed(events_per_s=150))
    seed: int = 2
    #: longest time for the lists to get their order, and to come to rest
    patience_s: float = 90.0
    #: what a busy machine folds of the past, events a second: so much longer the first order may take
    folded_per_s: float = 2_000
    #: they have come to rest when none was published for so long
    rest_s: float = 2.0


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """The figures of one replay; times in ms of wall time where not said otherwise."""

    events_replayed: int
    replay_s: float
    #: messages not yet in force when the last event had been sent, and seconds from then to the last ranking
    messages_behind: int
    caught_up_s: float
    #: records that the workers read, heartbeats included
    events_in: int
    rows_written: int
    rankings_published: int
    rows_scored: int
    rows_full_rescore: int
    #: event published → ranking acknowledged, as the workers measure it; None without any
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    #: price change published → ranking published, as the reader of `rankings` sees it
    price_latency_p50_ms: float | None
    price_latency_p99_ms: float | None
    sets: int
    sets_equal: int
    sets_moved: int
    #: sets, stored rows and dead letters are what the oracle computes
    verified: bool

    @property
    def ok(self) -> bool:
        """Whether the show showed what it is for: lists that moved, and that are right."""
        return self.verified and self.sets_moved > 0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True)
class Scene:
    """What is played: the past to prime with, the live sets, and the events to be replayed in [start_ms, end_ms)."""

    catalog: Sequence[Product]
    past: Sequence[Behavior]
    result_sets: Sequence[ResultSet]
    events: Sequence[Product | Behavior]
    story: Story
    titles: Mapping[str, str]
    start_ms: int
    end_ms: int

    @property
    def heroes(self) -> tuple[str, str, str]:
        """The shirts that the story is about."""
        return self.story.bought, self.story.discounted, self.story.sold_out


class Register(Protocol):
    """What the demo needs of `streams.client.Registrar`."""

    def register(self, result_set: ResultSet) -> None: ...

    def flush(self) -> object: ...


class Rankings(Protocol):
    """What the demo needs of `streams.client.RankingsReader`."""

    def follow(self, idle_s: float | None = None) -> Iterator[FreshRanking | ClosedSet]: ...


@dataclass(frozen=True, slots=True)
class Doors:
    """The ways in and out of the engine."""

    publisher: Sink
    registrar: Register
    rankings: Rankings


def run_demo(settings: Settings, console: Console, scene: Scene, options: DemoOptions, hooks: Hooks) -> DemoSummary:
    """The whole show against a running engine. Raises DemoError or ClientError, each one clear line."""
    connection = Connection.from_settings(settings)
    with (
        Publisher(connection) as publisher,
        Registrar(connection) as registrar,
        RankingsReader(connection) as rankings,
    ):
        return perform(scene, console, options, hooks, Doors(publisher, registrar, rankings))


def prepare(options: DemoOptions) -> Scene:
    """The scene: a function of the data and the options."""
    history = online_retail.load(options.data)
    start_ms = history.split_ms
    week = list(islice(history.events(start_ms, history.end_ms), options.events))
    end_ms = history.end_ms if options.events is None or len(week) < options.events else _minute_after(week[-1])
    garments = shirts.products(options.seed, SHIRTS, start_ms - 7 * DAY_MS)
    story = shirts.story(garments, start_ms, end_ms, options.seed)
    catalog = history.catalog_at(start_ms)
    past = history.behavior_between(history.start_ms, start_ms)
    bought = shirts.sales(garments, start_ms, options.seed)
    return Scene(
        catalog=[*catalog, *(shirt.product for shirt in garments)],
        past=list(merge(past, bought, key=_event_time)),
        result_sets=[*_retail_sets(history, catalog, past, options.sets), _shirt_set(garments, start_ms)],
        events=list(merge(week, story.events, key=_event_time)),
        story=story,
        titles={product.product_id: str(product.title) for product in history.products}
        | {shirt.product.product_id: str(shirt.product.title) for shirt in garments},
        start_ms=start_ms,
        end_ms=end_ms,
    )


def perform(scene: Scene, console: Console, options: DemoOptions, hooks: Hooks, doors: Doors) -> DemoSummary:
    """The show on a prepared scene.

    1. Send the past and the catalog.  2. Register the sets and wait for their first order.  3. Replay.
    4. Wait until the lists rest.  5. Show what moved.  6. Ask the oracle.
    """
    replayer = Replayer(doors.publisher, options.speed)
    names = {result_set.result_set_id for result_set in scene.result_sets}
    board = Board(doors.rankings, names, options.patience_s, options.rest_s)
    products = list(scene.titles)

    # 1.
    with progress(console, "the weeks before") as report:
        replayer.prime(scene.catalog, scene.past, scene.start_ms, report)
    # 2.
    for result_set in scene.result_sets:
        doors.registrar.register(result_set)
    doors.registrar.flush()
    with progress(console, "first order of each list") as report:
        board.settle(report, extra_s=len(scene.past) / options.folded_per_s)
    first, features, before = dict(board.table), hooks.features(products), hooks.measured()
    # 3. and 4. The rankings are read while they are made: there may be very many.
    ended, abandoned = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        resting = pool.submit(board.settle, _silent, ended, abandoned)
        try:
            began = time.monotonic()
            with progress(console, "replay") as report:
                replayed = replayer.replay(scene.events, scene.start_ms, scene.end_ms, report)
            sent = time.monotonic()
            behind = sum(row.lag for row in hooks.measured().partitions())
            ended.set()
            price_latencies = resting.result()
        finally:
            abandoned.set()
    last, features_now, measured = board.table, hooks.features(products), hooks.measured().since(before)
    # 5.
    for name in (SHIRT_SET, most_moved(first, last)):
        was, now = Snapshot(first[name].items, features), Snapshot(last[name].items, features_now)
        heroes = scene.heroes if name == SHIRT_SET else ()
        console.print(
            list_table(f"{name} (version {spoken_version(last[name].version)})", was, now, scene.titles, heroes)
        )
    # 6.
    verdict = hooks.verify()
    course = Course(replayed.events, sent - began, behind, max(0.0, board.heard - sent))
    summary = summarize(course, measured, price_latencies, moved(first, last), verdict)
    console.print(figures_table("summary", summary_lines(summary)))
    for line in verdict.lines[: DIFFERENCES_SHOWN + 1]:
        console.print(line, highlight=False, markup=False)
    return summary


@dataclass(frozen=True, slots=True)
class Course:
    """How the replay went: events, seconds, messages not in force at its end, seconds until the last ranking."""

    events: int
    seconds: float
    behind: int
    caught_up_s: float


class Patience:
    """A time limit that begins with an event, or at once."""

    def __init__(self, limit_s: float, begins: threading.Event | None) -> None:
        self._limit_s = limit_s
        self._begins = begins
        self._deadline: float | None = None

    def is_over(self) -> bool:
        if self._deadline is None and (self._begins is None or self._begins.is_set()):
            self._deadline = time.monotonic() + self._limit_s
        return self._deadline is not None and time.monotonic() > self._deadline


class Board:
    """The newest ranking of each of `names`, as a reader of the topic sees it."""

    def __init__(self, rankings: Rankings, names: set[str], patience_s: float, rest_s: float) -> None:
        self._rankings = rankings
        self._names = names
        self._patience_s = patience_s
        self._rest_s = rest_s
        self.table: dict[str, FreshRanking] = {}
        #: monotonic seconds when the last news came
        self.heard = 0.0

    def settle(
        self,
        report: Report,
        ended: threading.Event | None = None,
        abandoned: threading.Event | None = None,
        extra_s: float = 0.0,
    ) -> list[int]:
        """Read until every list has an order made by the model and nothing comes any more, but not before `ended`.

        Returns the times in ms from price changes to the rankings that they brought about. Raises DemoError when that
        takes too long (from `ended` on; `extra_s` more than usual), or when it is `abandoned`.
        """
        latencies: list[int] = []
        patience_s = self._patience_s + extra_s
        patience = Patience(patience_s, ended)
        quiet_since = time.monotonic()
        while True:
            last_look = ended is None or ended.is_set()  # asked before: what comes while it ends must still be read
            for news in self._rankings.follow(idle_s=min(LOOK_S, self._rest_s)):
                quiet_since = self.heard = time.monotonic()
                latencies += self._take(news)
                report(len(self.table), len(self._names), 0)
                if patience.is_over():
                    raise DemoError(f"the lists did not come to rest within {patience_s:.0f} s")
            if abandoned is not None and abandoned.is_set():
                raise DemoError("the replay was given up")
            waiting = self._names - {name for name, ranking in self.table.items() if not ranking.degraded}
            if not waiting and last_look and time.monotonic() - quiet_since >= self._rest_s:
                return latencies
            if waiting and patience.is_over():
                raise DemoError(
                    f"{len(waiting)} of {len(self._names)} lists have no order by the model "
                    f"after {patience_s:.0f} s, among them {min(waiting)}"
                )

    def _take(self, news: FreshRanking | ClosedSet) -> list[int]:
        """Put it on the board; the latency if a price brought it about."""
        name = news.result_set_id
        if name not in self._names:
            return []
        if isinstance(news, ClosedSet):
            self.table.pop(name, None)
            return []
        self.table[name] = news
        sent_ms = news.columns.cause_kafka_time
        priced = news.caused_by is not None and news.caused_by.view == PRODUCT_CATALOG.name and sent_ms > 0
        return [news.published_at - sent_ms] if priced else []


def most_moved(first: Mapping[str, FreshRanking], last: Mapping[str, FreshRanking]) -> str:
    """The list, shirts aside, whose first ten have moved the most places together."""
    return max(sorted(set(first) - {SHIRT_SET}), key=lambda name: _places_moved(first[name], last[name]))


def moved(first: Mapping[str, FreshRanking], last: Mapping[str, FreshRanking]) -> int:
    """How many lists have another order."""
    return sum(last[name].columns.product_ids != ranking.columns.product_ids for name, ranking in first.items())


def summarize(
    course: Course,
    measured: snapshots.Snapshot,
    price_latencies: Sequence[int],
    sets_moved: int,
    verdict: VerifyReport,
) -> DemoSummary:
    """Counters and latencies of the replay alone, and the verdict."""
    latency = measured.latency_of("ranking")
    p50, p99 = np.percentile(price_latencies, (50, 99)).round(1).tolist() if price_latencies else (None, None)
    return DemoSummary(
        events_replayed=course.events,
        replay_s=round(course.seconds, 1),
        messages_behind=course.behind,
        caught_up_s=round(course.caught_up_s, 1),
        events_in=measured.total(RECORDS_IN),
        rows_written=measured.total(ROWS_WRITTEN),
        rankings_published=measured.total(RANKINGS_OUT),
        rows_scored=measured.total(ROWS_SCORED),
        rows_full_rescore=measured.total(ROWS_RESCORE),
        latency_p50_ms=_rounded(latency.quantile(0.5)),
        latency_p99_ms=_rounded(latency.quantile(0.99)),
        price_latency_p50_ms=p50,
        price_latency_p99_ms=p99,
        sets=verdict.total,
        sets_equal=verdict.equal,
        sets_moved=sets_moved,
        verified=verdict.ok,
    )


def summary_lines(summary: DemoSummary) -> list[tuple[str, str]]:
    """Name and value, as the terminal shows them."""
    share = summary.rows_scored / summary.rows_full_rescore if summary.rows_full_rescore else 1.0
    rate = summary.events_replayed / max(summary.replay_s, 0.1)
    return [
        ("events replayed", f"{summary.events_replayed:,} in {summary.replay_s:.0f} s ({rate:,.0f}/s)"),
        ("records in, with heartbeats", f"{summary.events_in:,}"),
        ("rows written", f"{summary.rows_written:,}"),
        ("rankings published", f"{summary.rankings_published:,}"),
        ("rows scored", f"{summary.rows_scored:,}, a full re-score {summary.rows_full_rescore:,} ({share:.1%})"),
        ("event → ranking, p50 / p99", _pair(summary.latency_p50_ms, summary.latency_p99_ms)),
        ("price change → ranking, p50 / p99", _pair(summary.price_latency_p50_ms, summary.price_latency_p99_ms)),
        (
            "lag at the last event",
            f"{summary.messages_behind:,} messages, caught up after {summary.caught_up_s:.1f} s",
        ),
        ("lists with another order", f"{summary.sets_moved} of {summary.sets}"),
        ("lists equal to the oracle", f"{summary.sets_equal} of {summary.sets}"),
    ]


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 1)


def _pair(p50: float | None, p99: float | None) -> str:
    return "none" if p50 is None or p99 is None else f"{p50:,.1f} / {p99:,.1f} ms"


def _retail_sets(
    history: History, catalog: Sequence[Product], past: Sequence[Behavior], count: int
) -> Iterator[ResultSet]:
    """`count` searches of real words; some belong to the customers who bought most."""
    index = TextIndex([(product.product_id, str(product.title)) for product in catalog])
    customers = Counter(event.user_id for event in past if event.user_id is not None)
    regulars = sorted(customers, key=lambda user: (-customers[user], user))
    for number, query in enumerate(_asked(history, count)):
        turn, rest = divmod(number, USER_EVERY)
        yield ResultSet(
            result_set_id=f"search:{query}",
            event_time=history.split_ms,
            kind="search",
            query=query,
            candidates=index.candidates(query, CANDIDATES),
            user_id=regulars[turn % len(regulars)] if rest == 0 and regulars else None,
        )


def _asked(history: History, count: int) -> list[str]:
    for least in LEAST_MATCHES:
        found = queries(history, least)
        if len(found) >= count:
            return found[:count]
    raise DemoError(f"the titles give {len(found)} queries, {count} lists were asked for")


def _shirt_set(garments: Sequence[Shirt], event_time: int) -> ResultSet:
    index = TextIndex([(shirt.product.product_id, str(shirt.product.title)) for shirt in garments])
    return ResultSet(
        result_set_id=SHIRT_SET,
        event_time=event_time,
        kind="search",
        query=shirts.QUERY,
        candidates=index.candidates(shirts.QUERY, CANDIDATES),
    )


def _places_moved(first: FreshRanking, last: FreshRanking, top: int = 10) -> int:
    was = {item.product_id: item.rank for item in first.items}
    return sum(abs(item.rank - was.get(item.product_id, len(was) + 1)) for item in last.items[:top])


def _silent(done: int, total: int, event_ms: int) -> None:
    """A report that nobody reads."""


def _minute_after(event: Product | Behavior) -> int:
    return (event.event_time // MINUTE_MS + 1) * MINUTE_MS


def _event_time(event: Product | Behavior) -> int:
    return event.event_time
