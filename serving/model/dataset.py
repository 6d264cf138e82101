"""Events -> lists to learn from: what a shopper was shown, features as of that moment, and what was bought next.

Features are made by the functions that make them in production, from events before the moment, so a list is what
the engine would have ranked then.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from random import Random

import numpy as np
from msgspec import UNSET
from msgspec.structs import replace

from feature_repo.events import Behavior, Product
from feature_repo.features import (
    HISTORY_EVENTS,
    BehaviorState,
    CatalogState,
    behavior_values,
    catalog_ints,
    fold_behavior,
    fold_product,
)
from feature_repo.views import DAY_MS, FAMILIARITY, NUMERIC_FIELDS, PRICE_FIELDS, PRODUCT_CATALOG
from serving.datasets.online_retail import History
from serving.datasets.shirts import COLOUR_NAMES, GARMENT_NAMES, Shirt, sales
from serving.preprocess import PreparedProducts, prepare_products
from serving.preprocess.image import IMAGE_SIZE
from serving.requests import Floats, Ints, ProductContent
from serving.retrieval import TextIndex, queries
from serving.users import residuals

#: candidates of a list of the real shop, as its retrieval gives them
CANDIDATES = 100
#: bought within this time after the moment = wanted at the moment
BOUGHT_WITHIN_MS = DAY_MS
#: windows fill before the first list is made
WARM_UP_MS = 7 * DAY_MS

SHIRTS_SHOWN = 40
#: queries in a row that are shown the same shirts, so that a batch of lists has fewer pictures than rows
PAGE = 4
SHIRTS_BOUGHT = 4
#: tastes of the simulated shirt shopper: the garment and the colour that were asked for count most, among those what
#: sells and what is cheap. They belong to the drawn data, as its colours do; the model has to find them out.
TASTE_MATCH, TASTE_SALES, TASTE_PRICE = 5.0, 0.8, 2.5
#: share of the week in which a shirt's sales happen
PACES = (1.0, 1.0, 0.1, 0.01, 0.003)
#: fen; where the price term of that taste is nil
USUAL_PRICE = 10_000

#: positions that have a click rate of their own; further down it is that of the last
CLICK_POSITIONS = 50
RATE_PRIOR = 50.0

#: what `serving.users` reads: (type, product_id, position, event_time in ms), oldest first
Events = tuple[tuple[str, str, int | None, int], ...]


@dataclass(frozen=True, slots=True)
class RankedList:
    """One list at one moment, n candidates: `items` [n] rows of the shop's catalogue, `numeric` [n, F], `retrieval`
    [n], `bought` [n] 0 or 1, the shopper's events before, and `grade` [n] 0 to 1 where some are wanted more."""

    query: str
    time_ms: int
    items: Ints
    numeric: Floats
    retrieval: Floats
    bought: Floats
    history: Events = ()
    grade: Floats | None = None

    @property
    def relevance(self) -> Floats:
        """[n] how much each was wanted, 0 to 1."""
        return self.bought if self.grade is None else self.grade


@dataclass(frozen=True)
class Shop:
    """A catalogue, and lists that were shown from it in order of time."""

    products: tuple[ProductContent, ...]
    lists: tuple[RankedList, ...]
    #: expected clicks of an impression by position (`click_rates_of`), empty where nobody says what was shown
    click_rates: tuple[float, ...] = ()

    @property
    def prepared(self) -> PreparedProducts:
        """The whole catalogue as the product encoder reads it."""
        return self.prepared_at(IMAGE_SIZE)

    def prepared_at(self, image_size: int) -> PreparedProducts:
        """The same for an encoder of another picture size; made once."""
        if image_size not in self._prepared:
            self._prepared[image_size] = prepare_products(self.products, image_size=image_size)
        return self._prepared[image_size]

    @cached_property
    def _prepared(self) -> dict[int, PreparedProducts]:
        return {}

    def numbers(self, lists: Sequence[RankedList]) -> Floats:
        """[N, F] live numbers of the rows of some lists, as their users see them."""
        numeric = np.concatenate([one.numeric for one in lists])
        numeric[:, FAMILIARITY] = np.concatenate([self._familiarity(one) for one in lists])
        return numeric

    def _familiarity(self, one: RankedList) -> Floats:
        """[n] what the user did with each product of a list before, less expected."""
        known = residuals(one.history, self.click_rates)
        return np.array([known.get(self.products[row].product_id, 0.0) for row in one.items], np.float32)

    def between(self, since_ms: int, until_ms: int) -> tuple[RankedList, ...]:
        """The lists of [since_ms, until_ms)."""
        return tuple(one for one in self.lists if since_ms <= one.time_ms < until_ms)


def click_rates_of(behavior: Iterable[Behavior]) -> tuple[float, ...]:
    """Clicks of an impression by its position, of CLICK_POSITIONS or less; empty without impressions at positions.

    A rate is drawn towards that of all positions by as much as RATE_PRIOR impressions.
    """
    shown, clicked = np.zeros(CLICK_POSITIONS), np.zeros(CLICK_POSITIONS)
    where: dict[tuple[str | None, str | None, str], int] = {}
    for event in behavior:
        place = (event.result_set_id, event.user_id, event.product_id)
        if event.type == "impression" and event.position is not None:
            where[place] = min(event.position, CLICK_POSITIONS - 1)
            shown[where[place]] += 1
        elif event.type == "click" and place in where:
            clicked[where.pop(place)] += 1
    if not shown.any():
        return ()
    rates = (clicked + RATE_PRIOR * clicked.sum() / shown.sum()) / (shown + RATE_PRIOR)
    return tuple(round(rate, 5) for rate in rates[: 1 + int(np.flatnonzero(shown)[-1])].tolist())


def online_retail(
    history: History,
    seed: int,
    per_day: int,
    report: Callable[[int, int], None],
    late_ms: int = 0,
    since_ms: int = 0,
) -> Shop:
    """Lists at up to `per_day` invoices a day: a phrase of a title that was bought asks, the shop's text search
    answers. Wanted is what that customer buys in the 24 hours from the moment on. Live features are those of `late_ms`
    before the moment. Lists of moments before `since_ms` are left out; the others are the same without them.

    `report` is told (days done, days in all).
    """
    index = TextIndex([(product.product_id, _words(product.title)) for product in history.products])
    shelf = Shelf(product.product_id for product in history.products)
    since = {product.product_id: product.event_time for product in history.products}
    events = history.events(history.start_ms, history.end_ms)
    ahead = next(events, None)
    days = (history.end_ms - history.start_ms) // DAY_MS
    lists: list[RankedList] = []
    for visit in (one for one in _visits(history, Random(seed), per_day, late_ms) if one.time_ms >= since_ms):
        while ahead is not None and ahead.event_time < visit.known_ms:
            shelf.fold(ahead)
            ahead = next(events, None)
        answers = index.search(visit.query, 2 * CANDIDATES)
        found = [(name, score) for name, score in answers if since[name] < visit.time_ms]
        lists.append(_ranked_list(shelf, visit, found[:CANDIDATES]))
        report((visit.time_ms - history.start_ms) // DAY_MS, days)
    report(days, days)
    return Shop(tuple(map(_content, history.products)), tuple(one for one in lists if one.bought.any()))


def drawn_shirts(shirts: Sequence[Shirt], seed: int, count: int, until_ms: int) -> Shop:
    """`count` lists of drawn shirts, and what a simulated shopper buys who asks for a colour and a garment.

    Sales are events folded like any others. A title may not name the colour: then only the picture can tell it.
    """
    random = Random(seed)
    by_id = {shirt.product.product_id: shirt for shirt in shirts}
    shelf = Shelf(by_id)
    for shirt in shirts:
        shelf.fold(shirt.product)
    for event in _hurried(sales(shirts, until_ms, seed), random, until_ms):
        shelf.fold(event)
    index = TextIndex([(name, _words(shirt.product.title)) for name, shirt in by_id.items()])
    lists = []
    for number in range(count):
        if number % PAGE == 0:
            shown = random.sample(sorted(by_id), min(SHIRTS_SHOWN, len(by_id)))
        colour, garment = random.choice(list(COLOUR_NAMES)), random.choice(list(GARMENT_NAMES))
        query = look_query(random, colour, garment)
        scores = dict(index.search(query, len(by_id)))
        taste = {name: _taste(by_id[name], colour, garment) + _gumbel(random) for name in shown}
        wanted = frozenset(sorted(shown, key=lambda name: -taste[name])[:SHIRTS_BOUGHT])
        found = [(name, scores.get(name, 0.0)) for name in shown]
        lists.append(_ranked_list(shelf, _Visit(until_ms, until_ms, query, wanted, ()), found))
    return Shop(tuple(_content(shirt.product) for shirt in shirts), tuple(lists))


def look_query(random: Random, colour: str, garment: str) -> str:
    """What is typed for a colour and a garment, in Chinese or English."""
    return random.choice((COLOUR_NAMES[colour] + GARMENT_NAMES[garment], f"{colour} {garment}"))


@dataclass(frozen=True, slots=True)
class _Visit:
    """Somebody asks at a moment; `wanted` is what they buy from then on. `known_ms` is the moment of the features."""

    time_ms: int
    known_ms: int
    query: str
    wanted: frozenset[str]
    history: Events


class Shelf:
    """The state of every product at a moment: folded event by event."""

    def __init__(self, catalogue: Iterable[str]) -> None:
        self._rows = {name: row for row, name in enumerate(catalogue)}
        self._catalog: defaultdict[str, CatalogState] = defaultdict(CatalogState)
        self._patches = 0
        self._behavior: defaultdict[str, BehaviorState] = defaultdict(BehaviorState)
        self._known: dict[tuple[str, int], list[float]] = {}

    def fold(self, event: Product | Behavior) -> None:
        self._known.clear()
        if isinstance(event, Behavior):
            fold_behavior(self._behavior[event.product_id], event)
        elif event.price is not UNSET:
            self._patches += 1
            priced = Product(product_id=event.product_id, event_time=event.event_time, price=event.price)
            fold_product(self._catalog[event.product_id], priced, (event.event_time, self._patches, 0, 0))

    def items(self, names: Sequence[str]) -> Ints:
        """[n] rows of the catalogue."""
        return np.array([self._rows[name] for name in names], np.int32)

    def numeric(self, names: Sequence[str], as_of: int) -> Floats:
        """[n, F] as of a moment in ms, for nobody."""
        values = [self._row(name, as_of) for name in names]
        return np.array(values, np.float32).reshape(len(names), len(NUMERIC_FIELDS))

    def _row(self, name: str, as_of: int) -> list[float]:
        if (name, as_of) not in self._known:
            ints = catalog_ints(self._catalog[name])
            prices = [ints[PRODUCT_CATALOG.offsets[field]] for field in PRICE_FIELDS]
            familiarity = 0.0
            self._known[name, as_of] = [*prices, *behavior_values(self._behavior[name], as_of), familiarity]
        return self._known[name, as_of]


def _ranked_list(shelf: Shelf, visit: _Visit, found: Sequence[tuple[str, float]]) -> RankedList:
    names = [name for name, _ in found]
    return RankedList(
        query=visit.query,
        time_ms=visit.time_ms,
        items=shelf.items(names),
        numeric=shelf.numeric(names, visit.known_ms),
        retrieval=np.array([score for _, score in found], np.float32),
        bought=np.array([name in visit.wanted for name in names], np.float32),
        history=visit.history,
    )


def _visits(history: History, random: Random, per_day: int, late_ms: int) -> list[_Visit]:
    """A sample of the invoices in order of time, each with a query that one of its products would answer."""
    phrases = _phrases(history)
    bought: defaultdict[str, list[Behavior]] = defaultdict(list)
    invoices: defaultdict[str, list[Behavior]] = defaultdict(list)
    for event in history.behavior:
        bought[_customer(event)].append(event)
        if event.type == "purchase":
            invoices[str(event.session_id)].append(event)
    days: defaultdict[int, list[list[Behavior]]] = defaultdict(list)
    for invoice in invoices.values():
        if invoice[0].event_time >= history.start_ms + WARM_UP_MS:
            days[invoice[0].event_time // DAY_MS].append(invoice)
    visits = []
    for _, of_day in sorted(days.items()):
        for invoice in random.sample(of_day, min(per_day, len(of_day))):
            asked = sorted({phrase for event in invoice for phrase in phrases[event.product_id]})
            if asked:
                own = bought[_customer(invoice[0])]
                visits.append(_visit(invoice[0].event_time, late_ms, random.choice(asked), own))
    return sorted(visits, key=lambda visit: visit.time_ms)


def _visit(time_ms: int, late_ms: int, query: str, own: Sequence[Behavior]) -> _Visit:
    """`own` are all events of the customer in order of time; what came before is history, what comes is wanted."""
    moments = (time_ms - late_ms, time_ms, time_ms + BOUGHT_WITHIN_MS)
    known, now, then = (bisect_left(own, moment, key=_event_time) for moment in moments)
    wanted = frozenset(event.product_id for event in own[now:then] if event.type == "purchase")
    past = tuple((e.type, e.product_id, e.position, e.event_time) for e in own[max(0, known - HISTORY_EVENTS) : known])
    return _Visit(time_ms, time_ms - late_ms, query, wanted, past)


def _phrases(history: History) -> dict[str, list[str]]:
    """By product, the queries that its title holds."""
    asked = queries(history, CANDIDATES)
    titles = {product.product_id: f" {_words(product.title).lower()} " for product in history.products}
    return {name: [phrase for phrase in asked if f" {phrase} " in title] for name, title in titles.items()}


def _taste(shirt: Shirt, colour: str, garment: str) -> float:
    """How much the simulated shopper likes a shirt."""
    price = shirt.product.price
    if not isinstance(price, int):
        raise ValueError(f"{shirt.product.product_id} has no price")
    match = (shirt.colour == colour) + (shirt.garment == garment)
    return TASTE_MATCH * match + TASTE_SALES * log(1 + shirt.weekly_sales) - TASTE_PRICE * log(price / USUAL_PRICE)


def _hurried(events: Sequence[Behavior], random: Random, until_ms: int) -> list[Behavior]:
    """The sales of a week, of some shirts crowded into its last day or hours: a run on a shirt is no rare thing."""
    pace = {name: random.choice(PACES) for name in sorted({event.product_id for event in events})}
    crowded = [
        replace(event, event_time=until_ms - int((until_ms - event.event_time) * pace[event.product_id]))
        for event in events
    ]
    return sorted(crowded, key=_event_time)


def _gumbel(random: Random) -> float:
    """Noise that makes a choice by the greatest utility a choice by softmax."""
    return -log(-log(random.uniform(1e-12, 1 - 1e-12)))


def _content(product: Product) -> ProductContent:
    return ProductContent(
        product_id=product.product_id,
        title=_words(product.title),
        description=_words(product.description),
        brand=_words(product.brand),
        category=tuple(product.category) if isinstance(product.category, list) else (),
        attributes=product.attributes if isinstance(product.attributes, dict) else {},
        image=product.image if isinstance(product.image, bytes) else None,
    )


def _words(value: object) -> str:
    return value if isinstance(value, str) else ""


def _customer(event: Behavior) -> str:
    """Who bought; an invoice without a customer is one of its own."""
    return event.user_id or f"invoice {event.session_id}"


def _event_time(event: Behavior) -> int:
    return event.event_time
