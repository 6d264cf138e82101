"""What a terminal shows: progress, a list before and after, a summary. Plain lines where there is no terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isclose
from typing import Final, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from serving.explaining import Movement, Passing, most
from serving.model.suites.rows import COLUMNS, Finding
from serving.requests import CONTRIBUTIONS
from streams.client import ClosedSet, FreshRanking, RankedItem
from streams.records import EPOCH_BITS
from streams.snapshots import FreshnessRow, PartitionRow
from streams.topics import Topic

#: one product's numbers in force by feature name; price in minor units
Features = Mapping[str, float]
#: called with (done, total, event time in ms)
Report = Callable[[int, int, int], None]

#: features that can be a reason, those that say most first
REASONS: Final = ("price", "stock", "sales_1h", "sales_24h", "sales_7d", "sales_10m", "sales_total")
MOST_REASONS: Final = 2
MINOR_UNITS: Final = 100
#: lines of progress where there is no terminal
PLAIN_STEPS: Final = 4
#: columns where there is no terminal
PLAIN_WIDTH: Final = 120


def terminal(*, stderr: bool = False) -> Console:
    """Where commands print: as wide as the terminal, or as a file should be."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A list at one moment: its items by rank, and the numbers of each product."""

    items: Sequence[RankedItem]
    features: Mapping[str, Features]

    @property
    def ranks(self) -> dict[str, int]:
        return {item.product_id: item.rank for item in self.items}


def reasons(before: Features, after: Features) -> str:
    """What changed about a product, at most two things: `price 4.25 → 3.75, sales_1h 3 → 9`."""
    changed = [name for name in REASONS if name in after and after[name] != before.get(name, after[name])]
    facts = [name for name in changed if name in ("price", "stock")]
    windows = sorted(set(changed) - set(facts), key=lambda name: (-_growth(before[name], after[name]), name))
    return ", ".join(_change(name, before[name], after[name]) for name in (facts + windows)[:MOST_REASONS])


def movement(before: int | None, after: int) -> str:
    """`▲ 3`, `▼ 2`, `=` or `new`, in rich's markup."""
    if before is None:
        return "[cyan]new[/]"
    if before == after:
        return "[dim]=[/]"
    return f"[green]▲ {before - after}[/]" if before > after else f"[red]▼ {after - before}[/]"


def list_table(
    caption: str, before: Snapshot, after: Snapshot, titles: Mapping[str, str], also: Sequence[str] = (), top: int = 10
) -> Table:
    """The first `top` of a list as it is now, where each was before and why; then the products of `also`."""
    table = _table(caption)
    for name in ("rank", "was"):
        table.add_column(name, justify="right")
    table.add_column("move", no_wrap=True)
    table.add_column("product")
    table.add_column("score", justify="right")
    table.add_column("because")
    was = before.ranks
    for item in after.items:
        if item.rank > top and item.product_id not in also:
            continue
        product = item.product_id
        table.add_row(
            str(item.rank),
            str(was.get(product, "-")),
            movement(was.get(product), item.rank),
            titles.get(product, product),
            f"{item.score:.3f}",
            reasons(before.features.get(product, {}), after.features.get(product, {})),
        )
    return table


def ranking_table(news: FreshRanking, titles: Mapping[str, str], limit: int | None = None) -> Table:
    """The first `limit` of a ranking: rank, how far that moved it, product, score, and which product was the cause."""
    degraded = ", degraded: made without the model" if news.degraded else ""
    at = datetime.fromtimestamp(news.published_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    head = f"{escape(news.result_set_id)}  version {spoken_version(news.version)}, {len(news.items)} products{degraded}"
    caption = f"{at}, model {escape(news.model_version)}, because of: {because(news)}"
    table = _table(head, caption)
    table.add_column("rank", justify="right")
    table.add_column("move", no_wrap=True)
    for name in ("product", "title"):
        table.add_column(name)
    table.add_column("score", justify="right")
    table.add_column("why")
    cause = news.caused_by.entity if news.caused_by else None
    for item in news.items[:limit]:
        table.add_row(
            str(item.rank),
            movement(item.previous_rank, item.rank),
            escape(item.product_id),
            escape(titles.get(item.product_id, "")),
            f"{item.score:.3f}",
            ", ".join((*([because(news)] if item.product_id == cause else ()), *_contributions(news, item.rank))),
        )
    return table


def _contributions(news: FreshRanking, rank: int) -> list[str]:
    """The parts of a score that weigh most, where the set asked for them."""
    if news.columns.contributions is None:
        return []
    parts = zip(CONTRIBUTIONS, news.columns.contributions[rank - 1].tolist(), strict=True)
    most = sorted(parts, key=lambda part: -abs(part[1]))[:MOST_REASONS]
    return [f"{name} {value:+.2f}" for name, value in most]


def overview(news: FreshRanking, titles: Mapping[str, str], limit: int) -> str:
    """A ranking in a line, in rich's markup: which list, its version and its first `limit` products."""
    first = ", ".join(escape(titles.get(item.product_id, item.product_id)) for item in news.items[:limit])
    rest = f" [dim]and {len(news.items) - limit} more[/]" if len(news.items) > limit else ""
    degraded = "  [yellow]degraded[/]" if news.degraded else ""
    return f"[bold]{escape(news.result_set_id)}[/]  {spoken_version(news.version)}  {first}{rest}{degraded}"


def freshness_table(rows: Sequence[FreshnessRow]) -> Table:
    """Latencies by view and stage."""
    table = _table("freshness: ms from an event's Kafka timestamp")
    table.add_column("view")
    table.add_column("stage")
    for name in ("events", "p50", "p99", "SLO", "within SLO"):
        table.add_column(name, justify="right")
    for row in rows:
        within = "-" if row.within_slo is None else f"{row.within_slo:.2%}"
        figures = (f"{row.events:,}", _ms(row.p50_ms), _ms(row.p99_ms), f"{row.slo_ms:,}", within)
        table.add_row(row.view, row.stage, *figures)
    return table


def partitions_table(rows: Sequence[PartitionRow]) -> Table:
    """Progress of every partition that a worker owns."""
    table = _table("partitions")
    table.add_column("topic")
    for name in ("partition", "marker", "lag", "newest read"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for row in rows:
        colour = {"late": "red", "quiet": "dim", "current": "green"}[row.state]
        ago = f"{row.read_age_ms / 1000:,.0f} s ago"
        figures = (str(row.partition), f"{row.marker:,}", f"{row.lag:,}", ago)
        table.add_row(row.topic, *figures, f"[{colour}]{row.state}[/]")
    return table


def topics_table(topics: Sequence[Topic]) -> Table:
    """Each topic as it should be."""
    table = _table("topics")
    table.add_column("topic")
    table.add_column("partitions", justify="right")
    table.add_column("what")
    table.add_column("settings")
    for topic in topics:
        settings = ", ".join(f"{name}={value}" for name, value in sorted(topic.config.items()))
        table.add_row(topic.name, str(topic.partitions), topic.about, settings)
    return table


def quality_table(shops: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> Table:
    """How well lists are ordered: (by what, NDCG@10 on each of the shops)."""
    table = _table("NDCG@10 on lists that were not learned from")
    table.add_column("ordered by")
    for shop in shops:
        table.add_column(shop, justify="right")
    for name, values in rows:
        table.add_row(name, *(f"{value:.4f}" for value in values))
    return table


def finding_table(finding: Finding) -> Table:
    """What a suite of `freshrank evaluate` found; columns in which nothing stands are left out."""
    table = _table(finding.title, "\n".join(finding.about))
    for column in finding.columns:
        table.add_column(COLUMNS[column], justify="left" if column == 0 else "right")
    colours = {"yes": "[green]yes[/]", "no": "[red]no[/]"}
    for row in finding.rows:
        cells = [row.cells[column] for column in finding.columns]
        table.add_row(*(colours.get(cell, cell) for cell in cells))
    return table


def _table(title: str, caption: str = "", header: bool = True) -> Table:
    """How all tables look: as narrow as can be."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption or None,
        caption_justify="left",
        show_header=header,
        box=SIMPLE_HEAD,
        pad_edge=False,
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def spoken_version(version: int) -> str:
    """`2.17`: the writer's epoch, then its counter."""
    return f"{version >> EPOCH_BITS}.{version & (1 << EPOCH_BITS) - 1}"


def news_line(news: FreshRanking | ClosedSet, titles: Mapping[str, str]) -> str:
    """A new order in a line: when, which list, why, and who moved most notably. In rich's markup."""
    name = escape(news.result_set_id)
    if isinstance(news, ClosedSet):
        return f"{name} {spoken_version(news.version)} [dim]closed[/]"
    at = datetime.fromtimestamp(news.published_at / 1000, UTC).strftime("%H:%M:%S")
    words = [at, f"[bold]{name}[/]", spoken_version(news.version), _moves(news, titles), f"[dim]{because(news)}[/]"]
    return "  ".join(word for word in words if word) + ("  [yellow]degraded[/]" if news.degraded else "")


def because(news: FreshRanking) -> str:
    """`product_catalog of 85123A, 9 ms`: the row whose change brought a ranking about, and how long that took."""
    cause = news.caused_by
    if cause is None or not cause.view:
        return "registered, or another model"
    sent_ms = news.columns.cause_kafka_time
    took = f", {news.published_at - sent_ms} ms" if sent_ms > 0 else ""
    return escape(f"{cause.view} of {cause.entity}{took}")


def _moves(news: FreshRanking, titles: Mapping[str, str]) -> str:
    """The product that was the cause, if it moved, else the first that did."""
    moved = [item for item in news.items if item.previous_rank != item.rank]
    if not moved:
        return "same order, other scores"
    entity = news.caused_by.entity if news.caused_by else ""
    item = next((item for item in moved if item.product_id == entity), moved[0])
    title = escape(titles.get(item.product_id, item.product_id))
    return f"{movement(item.previous_rank, item.rank)} to {item.rank}: {title}, {len(moved)} moved"


def figures_table(caption: str, figures: Sequence[tuple[str, str]]) -> Table:
    """Names and values."""
    table = _table(caption, header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, value in figures:
        table.add_row(name, value)
    return table


@contextmanager
def starting(console: Console, names: Sequence[str]) -> Iterator[Callable[[str, str, float], None]]:
    """What is being started, to be told (name, where it is, seconds until it answered): on a terminal a table that
    fills, elsewhere a line each."""
    if not console.is_terminal:
        yield lambda name, place, seconds: console.print(
            f"{name} at {place}, ready after {seconds:.1f} s", highlight=False
        )
        return
    ready: dict[str, tuple[str, str]] = {}

    def table() -> Table:
        shown = _table("local parts")
        for column in ("name", "address", "ready"):
            shown.add_column(column)
        for name in names:
            shown.add_row(name, *ready.get(name, ("", "[dim]starting[/]")))
        return shown

    live = Live(console=console, get_renderable=table, refresh_per_second=8)

    def tell(name: str, place: str, seconds: float) -> None:
        ready[name] = (place, f"[green]after {seconds:.1f} s[/]")
        if len(ready) == len(names):
            live.stop()

    with live:
        yield tell


@contextmanager
def progress(console: Console, label: str) -> Iterator[Report]:
    """A bar on a terminal, some lines elsewhere."""
    if not console.is_terminal:
        yield _plain(console, label)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(label, total=None)

        def report(done: int, total: int, event_ms: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{label} {when(event_ms)}")

        yield report


@contextmanager
def bar(console: Console, label: str) -> Iterator[Report]:
    """A bar on a terminal, nothing elsewhere: for work whose result says enough."""
    if not console.is_terminal:
        yield lambda done, total, event_ms: None
        return
    with progress(console, label) as report:
        yield report


class Stages(Protocol):
    """Told how far a stage is, and what there is to say of it."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def stages(console: Console) -> Iterator[Stages]:
    """Progress of named stages: a bar for each on a terminal, nothing elsewhere."""

    def silent(stage: str, done: int, total: int, note: str = "") -> None:
        """Nobody looks."""

    if not console.is_terminal:
        yield silent
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=None, note=note)
            bars.update(tasks[stage], completed=done, total=total or None, note=note)

        yield report


def when(event_ms: int) -> str:
    """`Mon 28 Nov 2011 09:15`, or nothing for 0."""
    return datetime.fromtimestamp(event_ms / 1000, UTC).strftime("%a %d %b %Y %H:%M") if event_ms else ""


def _plain(console: Console, label: str) -> Report:
    told = 0

    def report(done: int, total: int, event_ms: int) -> None:
        nonlocal told
        step = done * PLAIN_STEPS // total if total else PLAIN_STEPS
        if step > told:
            told = step
            console.print(f"{label}: {done:,} of {total:,} {when(event_ms)}".rstrip(), highlight=False)

    return report


def _change(name: str, before: float, after: float) -> str:
    if name == "price":
        return f"price {before / MINOR_UNITS:.2f} → {after / MINOR_UNITS:.2f}"
    return f"{name} {_short(before)} → {_short(after)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if isclose(value, round(value), abs_tol=1e-6) else f"{value:.3g}"


def _growth(before: float, after: float) -> float:
    """How many times as much or as little; one piece more than nothing counts as two."""
    return max((after + 1) / (before + 1), (before + 1) / (after + 1))


def movements_table(caption: str, moved: Sequence[Movement], titles: Mapping[str, str]) -> Table:
    """What happened to the products of a list between two of its rankings, and by what."""
    table = _table(caption)
    for name in ("rank", "was"):
        table.add_column(name, justify="right")
    for name in ("product", "title"):
        table.add_column(name)
    for name in ("score", "change"):
        table.add_column(name, justify="right")
    table.add_column("why")
    for movement in moved:
        table.add_row(
            str(movement.rank_after or "gone"),
            str(movement.rank_before or "new"),
            escape(movement.product_id),
            escape(titles.get(movement.product_id, "")),
            "" if movement.score_after is None else f"{movement.score_after:.3f}",
            f"{movement.change:+.3f}" if movement.change else "",
            ", ".join((*filter(None, (movement.stock,)), *_changes(movement.parts))),
        )
    return table


def passings_table(caption: str, product_id: str, passings: Sequence[Passing], titles: Mapping[str, str]) -> Table:
    """Whom a product passed and who passed it, and by what."""
    table = _table(caption)
    for name in ("", "product", "title", "by"):
        table.add_column(name)
    for passing in passings:
        won = passing.winner == product_id
        other = passing.loser if won else passing.winner
        stock = (f"{escape(one)} is {said}" for one, said in passing.stock.items())
        table.add_row(
            "passed" if won else "was passed by",
            escape(other),
            escape(titles.get(other, "")),
            ", ".join((*stock, *_changes(passing.parts))),
        )
    return table


def _changes(parts: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:+.3f}" for name, value in most(parts, MOST_REASONS)]
