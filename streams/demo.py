"""The show: real events replayed through a running stack, and what became of the lists.

The stack is started by who calls; it tells its figures, the rows in force and the oracle's verdict through `Hooks`.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from rich.console import Console

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.views import DAY_MS, MINUTE_MS, PRODUCT_CATALOG
from serving.datasets import online_retail, shirts
from serving.datasets.online_retail import History
from serving.datasets.shirts import Shirt, Story
from serving.retrieval import TextIndex, queries
from streams.client import ClosedSet, Connection, FreshRanking, Publisher, RankingsReader, Registrar
from streams.replay import Replayed, Replayer, Sink, Speed
from streams.settings import Settings
from streams.show import Features, Report, Snapshot, figures_table, list_table, progress

#: what `Hooks.metrics` must tell: counters since the workers' start, and latencies event → ranking since then
COUNTERS: Final = ("events_in", "rows_written", "rankings_published", "rows_scored", "rows_full_rescore")
LATENCIES: Final = ("latency_p50_ms", "latency_p99_ms")

CANDIDATES: Final = 100
SHIRTS: Final = 100
SHIRT_SET: Final = f"search:{shirts.QUERY}"
#: every so many'th list belongs to a known customer
USER_EVERY: Final = 4
#: a query finds so many products; less is asked of a catalogue that has too few such queries
LEAST_MATCHES: Final = (CANDIDATES, 50, 20, 5, 1)
#: the lists have come to rest when none was published for so long
REST_S: Final = 2.0


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


@dataclass(frozen=True, slots=True)
class Hooks:
    """What only the stack knows. `features` gives the rows in force: product_id -> feature name -> number."""

    metrics: Callable[[], Mapping[str, float]]
    verify: Callable[[], VerifyReport]
    features: Callable[[Sequence[str]], Mapping[str, Features]]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How much is replayed and how fast. `data` None is the project's slice, `events` None the whole last week."""

    data: Path | None = None
    sets: int = 200
    events: int | None = 8_000
    speed: Speed = field(default_factory=lambda: Speed(events_per_s=250))
    seed: int = 2
    patience_s: float = 90.0


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """The figures of one replay; times in ms of wall time where not said otherwise."""

    events_replayed: int
    replay_s: float
    events_in: int
    rows_written: int
    rankings_published: int
    rows_scored: int
    rows_full_rescore: int
    latency_p50_ms: float
    latency_p99_ms: float
    #: price change published → ranking published, as the reader of `rankings` sees it
    price_latency_p50_ms: float | None
    price_latency_p99_ms: float | None
    sets: int
    sets_equal: int

    @property
    def verified(self) -> bool:
        return self.sets > 0 and self.sets == self.sets_equal

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


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


def run_demo(settings: Settings, console: Console, options: DemoOptions, hooks: Hooks) -> DemoSummary:
    """The whole show against a running stack. Raises DemoError, DatasetError or ClientError, each one clear line."""
    connection = Connection.from_settings(settings)
    with (
        Publisher(connection) as publisher,
        Registrar(connection) as registrar,
        RankingsReader(connection) as rankings,
    ):
        console.print("reading the history", highlight=False)
        scene = prepare(options)
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
    board = Board(doors.rankings, {result_set.result_set_id for result_set in scene.result_sets})
    products = list(scene.titles)

    # 1.
    with progress(console, "the weeks before") as report:
        replayer.prime(scene.catalog, scene.past, scene.start_ms, report)
    # 2.
    for result_set in scene.result_sets:
        doors.registrar.register(result_set)
    doors.registrar.flush()
    with progress(console, "first order of each list") as report:
        board.settle(options.patience_s, report)
    first, features, figures = dict(board.table), hooks.features(products), hooks.metrics()
    # 3. and 4. The rankings are read while they are made: there may be very many.
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        resting = pool.submit(board.settle, options.patience_s, _silent, ended)
        try:
            began = time.monotonic()
            with progress(console, "replay") as report:
                replayed = replayer.replay(scene.events, scene.start_ms, scene.end_ms, report)
            replay_s = time.monotonic() - began
        finally:
            ended.set()
        price_latencies = resting.result()
    last, features_now, figures_now = board.table, hooks.features(products), hooks.metrics()
    # 5.
    for name in (SHIRT_SET, most_moved(first, last)):
        before, after = Snapshot(first[name].items, features), Snapshot(last[name].items, features_now)
        heroes = scene.heroes if name == SHIRT_SET else ()
        console.print(list_table(f"{name} (version {last[name].version})", before, after, scene.titles, heroes))
    # 6.
    verdict = hooks.verify()
    summary = summarize(replayed, replay_s, figures, figures_now, price_latencies, verdict)
    console.print(figures_table("summary", summary_lines(summary)))
    console.print(f"verify: {summary.sets_equal} of {summary.sets} result sets equal to the oracle", highlight=False)
    return summary


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

    def __init__(self, rankings: Rankings, names: set[str]) -> None:
        self._rankings = rankings
        self._names = names
        self.table: dict[str, FreshRanking] = {}

    def settle(self, patience_s: float, report: Report, ended: threading.Event | None = None) -> list[int]:
        """Read until every list has an order made by the model and nothing comes any more, but not before `ended`.

        Returns the times in ms from price changes to the rankings that they brought about. Raises DemoError when that
        takes longer than `patience_s` (after `ended`).
        """
        latencies: list[int] = []
        patience = Patience(patience_s, ended)
        while True:
            last_look = ended is None or ended.is_set()  # asked before: what comes while it ends must still be read
            for news in self._rankings.follow(idle_s=REST_S):
                latencies += self._take(news)
                report(len(self.table), len(self._names), 0)
                if patience.is_over():
                    raise DemoError(f"the lists did not come to rest within {patience_s:.0f} s")
            waiting = self._names - {name for name, ranking in self.table.items() if not ranking.degraded}
            if not waiting and last_look:
                return latencies
            if patience.is_over():
                raise DemoError(
                    f"{len(waiting)} of {len(self._names)} lists have no order by the model after {patience_s:.0f} s, "
                    f"among them {min(waiting)}"
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


def summarize(
    replayed: Replayed,
    replay_s: float,
    before: Mapping[str, float],
    after: Mapping[str, float],
    price_latencies: Sequence[int],
    verdict: VerifyReport,
) -> DemoSummary:
    """Counters of the replay alone, latencies and verdict."""
    counted = {name: round(after[name] - before[name]) for name in COUNTERS}
    p50, p99 = np.percentile(price_latencies, (50, 99)).round(1).tolist() if price_latencies else (None, None)
    return DemoSummary(
        events_replayed=replayed.events,
        replay_s=round(replay_s, 1),
        **counted,
        latency_p50_ms=round(after["latency_p50_ms"], 1),
        latency_p99_ms=round(after["latency_p99_ms"], 1),
        price_latency_p50_ms=p50,
        price_latency_p99_ms=p99,
        sets=verdict.total,
        sets_equal=verdict.equal,
    )


def summary_lines(summary: DemoSummary) -> list[tuple[str, str]]:
    """Name and value, as the terminal shows them."""
    share = summary.rows_scored / summary.rows_full_rescore if summary.rows_full_rescore else 1.0
    lines = [
        ("events replayed", f"{summary.events_replayed:,} in {summary.replay_s:.0f} s"),
        ("events in", f"{summary.events_in:,}"),
        ("rows written", f"{summary.rows_written:,}"),
        ("rankings published", f"{summary.rankings_published:,}"),
        (
            "rows scored",
            f"{summary.rows_scored:,}, a full re-score {summary.rows_full_rescore:,} ({share:.1%})",
        ),
        ("event → ranking, p50 / p99", f"{summary.latency_p50_ms:,.1f} / {summary.latency_p99_ms:,.1f} ms"),
    ]
    if summary.price_latency_p50_ms is not None:
        price = f"{summary.price_latency_p50_ms:,.1f} / {summary.price_latency_p99_ms:,.1f} ms"
        lines.append(("price change → ranking, p50 / p99", price))
    return [
        *lines,
        ("lists equal to the oracle", f"{summary.sets_equal} of {summary.sets}"),
        ("where to look next", "freshrank demo --follow\nfreshrank rankings --follow\nfreshrank freshness"),
    ]


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
