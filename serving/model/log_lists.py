"""The log of an engine -> lists to learn from: result sets as they were shown, and what came of them. Pure.

    moments    a result set is judged anew whenever it is registered and whenever a batch of its products is shown
    features   of a moment: the feature functions over all that was visible before it, and nothing else
    relevance  of a moment: clicks, carts and purchases that name the set, until its next moment or the horizon

What a feature knows is decided by `Told.visible_ms` alone, so an event that happened before a moment and became visible
after it is not known in it. What products looked like is a feature like others: each content that a product has had is
a row of the catalogue of its own.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.features import CatalogState, UserState, content_of, current, fold_product, fold_user, user_events
from serving.model.dataset import Events, RankedList, Shelf, Shop, click_rates_of
from serving.requests import ProductContent

#: how much it says about a product that it was clicked, put into a cart, bought
GRADES: Final[Mapping[str, float]] = {"click": 0.2, "cart": 0.5, "purchase": 1.0}
#: impressions of one set within this time of the first of them are one batch
BATCH_MS: Final = 1_000
MEDIA: Final = ("image", "video", "audio")

#: (modality, bytes or a reference) -> the bytes, None for a medium that cannot be had or is broken
Medium = Callable[[str, bytes | str], bytes | None]
#: (offset, partition, place in the message): tells records of one kind apart
Place = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Told:
    """A record of the log. It is known to what happens after `visible_ms`, never to what happens at or before it."""

    record: Product | Behavior | ResultSet
    visible_ms: int
    place: Place

    def __post_init__(self) -> None:
        if self.visible_ms < self.record.event_time:
            raise ValueError(f"visible at {self.visible_ms}, before it happened at {self.record.event_time}")


def log_lists(
    log: Iterable[Told],
    medium: Medium,
    horizon_ms: int,
    tested: float,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Shop:
    """Lists in order of time, rows in order of product id. The order in which the log comes does not matter.

    Lists of which everything or nothing was wanted say nothing about an order and are left out, and so are products
    that were delisted. Click rates by position are, like weights, learned of what was visible before the lists that are
    `tested`, that share of them. `tell` hears of moments.
    """
    told = sorted(log, key=_order)
    moments = _moments(told, horizon_ms)
    known = [one for one in told if not isinstance(one.record, ResultSet)]
    shop = _Visible(medium)
    lists = []
    read = 0
    for done, moment in enumerate(moments, 1):
        while read < len(known) and known[read].visible_ms < moment.time_ms:
            shop.fold(known[read])
            read += 1
        found = shop.list_of(moment)
        if 0 < np.count_nonzero(found.bought) < len(found.bought):
            lists.append(found)
        tell(done, len(moments))
    first = first_tested(len(lists), tested)
    learned = [one.record for one in known if not lists[first:] or one.visible_ms < lists[first].time_ms]
    rates = click_rates_of(sorted((one for one in learned if isinstance(one, Behavior)), key=_event_time))
    return Shop(tuple(shop.contents.products), tuple(lists), rates)


def first_tested(lists: int, tested: float) -> int:
    """Where the last share of so many lists begins."""
    return lists - max(1, int(tested * lists))


class Users:
    """The last events of every user at a moment."""

    def __init__(self) -> None:
        self._states: defaultdict[str, UserState] = defaultdict(UserState)

    def fold(self, event: Behavior, place: Place) -> None:
        if event.user_id is not None:
            offset, partition, number = place
            fold_user(self._states[event.user_id], event, partition, offset, number)

    def history(self, user_id: str | None) -> Events:
        """As `serving.users` reads it."""
        return () if user_id is None or user_id not in self._states else tuple(user_events(self._states[user_id]))


class Contents:
    """What products look like at a moment; `products` are all the looks that somebody asked for."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._states: defaultdict[str, CatalogState] = defaultdict(CatalogState)
        self._rows: dict[str, int] = {}
        self.products: list[ProductContent] = []

    def fold(self, patch: Product, place: Place) -> None:
        if fold_product(self._states[patch.product_id], patch, (patch.event_time, *place)):
            self._rows.pop(patch.product_id, None)

    def row(self, product_id: str) -> int:
        """Where in `products` the product stands as it looks now."""
        if product_id not in self._rows:
            self._rows[product_id] = len(self.products)
            self.products.append(self._look(product_id))
        return self._rows[product_id]

    def name(self, product_id: str) -> str:
        """What the product as it looks now is called in `products`: other looks of it have other names."""
        return self.products[self.row(product_id)].product_id

    def is_delisted(self, product_id: str) -> bool:
        return product_id in self._states and current(self._states[product_id], "delisted") is True

    def _look(self, product_id: str) -> ProductContent:
        content: dict[str, Any] = content_of(self._states[product_id]) if product_id in self._states else {}
        image, video, audio = (self._medium(name, content[name]) if name in content else None for name in MEDIA)
        return ProductContent(
            f"{len(self.products)}:{product_id}",
            title=content.get("title", ""),
            description=content.get("description", ""),
            brand=content.get("brand", ""),
            category=tuple(content.get("category", ())),
            attributes=content.get("attributes", {}),
            image=image,
            video=video,
            audio=audio,
        )


@dataclass
class _Moment:
    """A result set as somebody saw it."""

    time_ms: int
    registration: ResultSet
    grades: dict[str, float] = field(default_factory=dict)


class _Visible:
    """All that can be known at a moment."""

    def __init__(self, medium: Medium) -> None:
        self.contents = Contents(medium)
        self._numbers = Shelf(())
        self._users = Users()

    def fold(self, told: Told) -> None:
        match told.record:
            case Product() as patch:
                self.contents.fold(patch, told.place)
                self._numbers.fold(patch)
            case Behavior() as event:
                self._numbers.fold(event)
                self._users.fold(event, told.place)

    def list_of(self, moment: _Moment) -> RankedList:
        asked = moment.registration
        candidates = [one for one in sorted(asked.candidates) if not self.contents.is_delisted(one[0])]
        names = [name for name, _ in candidates]
        grade = np.array([moment.grades.get(name, 0.0) for name in names], np.float32)
        return RankedList(
            query=asked.query or "",
            time_ms=moment.time_ms,
            items=np.array([self.contents.row(name) for name in names], np.int32),
            numeric=self._numbers.numeric(names, moment.time_ms),
            retrieval=np.array([score for _, score in candidates], np.float32),
            bought=(grade > 0).astype(np.float32),
            history=tuple(
                (kind, self.contents.name(product_id), position, time)
                for kind, product_id, position, time in self._users.history(asked.user_id)
            ),
            grade=grade,
        )


def _moments(told: Sequence[Told], horizon_ms: int) -> list[_Moment]:
    """In order of time, with what came of each."""
    registered: defaultdict[str, list[Told]] = defaultdict(list)
    events: defaultdict[str, list[Behavior]] = defaultdict(list)
    for one in told:
        if isinstance(one.record, ResultSet):
            registered[one.record.result_set_id].append(one)
        elif isinstance(one.record, Behavior) and one.record.result_set_id is not None:
            events[one.record.result_set_id].append(one.record)
    found = []
    for name, records in registered.items():
        own = sorted(events[name], key=_event_time)
        found += _of_set(sorted(records, key=lambda one: (one.record.event_time, one.place)), own, horizon_ms)
    return sorted(found, key=lambda moment: (moment.time_ms, moment.registration.result_set_id))


def _of_set(registered: Sequence[Told], events: Sequence[Behavior], horizon_ms: int) -> list[_Moment]:
    """The moments of one set; of several registrations at one time the last counts."""
    registrations = {one.record.event_time: one.record for one in registered if isinstance(one.record, ResultSet)}
    since = sorted(registrations)
    times = sorted({*since, *(time for time in _batches(events) if time >= since[0])})
    moments = [_Moment(time, registrations[since[bisect_right(since, time) - 1]]) for time in times]
    for event in events:
        at = bisect_right(times, event.event_time) - 1
        if event.type in GRADES and at >= 0 and event.event_time < times[at] + horizon_ms:
            grades = moments[at].grades
            grades[event.product_id] = max(GRADES[event.type], grades.get(event.product_id, 0.0))
    return moments


def _batches(events: Sequence[Behavior]) -> list[int]:
    """When (ms) batches of impressions begin; events in order of time."""
    begins: list[int] = []
    for event in events:
        if event.type == "impression" and (not begins or event.event_time >= begins[-1] + BATCH_MS):
            begins.append(event.event_time)
    return begins


def _event_time(event: Behavior) -> int:
    return event.event_time


def _order(told: Told) -> tuple[int, int, Place]:
    return told.visible_ms, told.record.event_time, told.place
