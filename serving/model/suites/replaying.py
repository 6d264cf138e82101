"""A log of impressions and clicks -> the lists that were shown, with features as they were known at that moment.

An event is known to what happens after its time, not at its time; so a list knows neither its own impressions nor the
clicks that come. `check` proves it of a way to build lists: what is cut off the log after a moment changes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from feature_repo.events import Behavior
from feature_repo.features import UserState, fold_user, user_events
from serving.errors import ServingError
from serving.model.dataset import Events, RankedList, Shelf

#: events that come in one partition, in order: their offset is their number
PARTITION: Final = 0


@dataclass(frozen=True, slots=True)
class Late:
    """How many events later than they happened the features of products and of users know of them."""

    products: int = 0
    users: int = 0


@dataclass
class Shown:
    """A list that was shown: products by position, and those that were clicked sooner or later."""

    time_ms: int
    user_id: str
    positions: dict[str, int] = field(default_factory=dict)
    clicked: set[str] = field(default_factory=set)


#: the ids of the catalogue's products, and the log in order of event time -> lists by result_set_id
Build = Callable[[Sequence[str], Sequence[Behavior]], Mapping[str, RankedList]]


class LeakError(ServingError):
    """A feature knows what had not happened yet: figures made of it mean nothing."""


def lists(
    catalogue: Sequence[str],
    behavior: Sequence[Behavior],
    late: Late | None = None,
    since_ms: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, RankedList]:
    """The lists shown from `since_ms` on, by result_set_id in order of time.

    Rows are in order of product id; `retrieval` is the length of the list by the place it was shown at, counted from 1:
    first and second place differ by more than the last two, as people look.
    """
    late = late or Late()
    shelf, users = Shelf(catalogue), _Users()
    for_products, for_users = _Ahead(behavior, late.products), _Ahead(behavior, late.users)
    shown = sorted(_shown(behavior).items(), key=lambda item: item[1].time_ms)
    found: dict[str, RankedList] = {}
    for done, (name, one) in enumerate(shown, 1):
        for _, event in for_products.until(one.time_ms):
            shelf.fold(event)
        for number, event in for_users.until(one.time_ms):
            users.fold(number, event)
        if one.time_ms >= since_ms:
            found[name] = _list(shelf, one, users.history(one.user_id))
        tell(done, len(shown))
    return found


def check(build: Build, catalogue: Sequence[str], behavior: Sequence[Behavior], moments: Sequence[int]) -> None:
    """Raise LeakError if a list of one of these moments (ms) differs from what is built of the log that ends there,
    ValueError if none was shown then.

    Of the moment itself only impressions are left in: they say what was shown.
    """
    whole = build(catalogue, behavior)
    for moment in moments:
        known = [event for event in behavior if event.event_time < moment or _says_what_was_shown(event, moment)]
        then = {name: one for name, one in build(catalogue, known).items() if one.time_ms == moment}
        if not then:
            raise ValueError(f"no list was shown at {moment}: nothing can be seen there")
        for name, one in then.items():
            if differs := _difference(one, whole[name]):
                raise LeakError(f"{differs} of list {name}, shown at {moment}, depends on what happened later")


def without_positions(one: RankedList) -> RankedList:
    """The same list, if nobody says where its rows were shown."""
    return replace(one, retrieval=np.zeros_like(one.retrieval))


class _Ahead:
    """A log that is read up to a moment, less the last `late` events before it."""

    def __init__(self, behavior: Sequence[Behavior], late: int) -> None:
        self._behavior = behavior
        self._late = late
        self._happened = 0
        self._read = 0

    def until(self, moment: int) -> Iterator[tuple[int, Behavior]]:
        """What became known since the last call, each with its number."""
        while self._happened < len(self._behavior) and self._behavior[self._happened].event_time < moment:
            self._happened += 1
        while self._read < self._happened - self._late:
            yield self._read, self._behavior[self._read]
            self._read += 1


class _Users:
    """The state of every user at a moment."""

    def __init__(self) -> None:
        self._states: defaultdict[str, UserState] = defaultdict(UserState)
        self._names: dict[str, str] = {}

    def fold(self, number: int, event: Behavior) -> None:
        if event.user_id is not None:
            fold_user(self._states[event.user_id], event, PARTITION, number, 0)

    def history(self, user_id: str) -> Events:
        """As `serving.users` reads it. Equal names are one object: histories are long."""
        if user_id not in self._states:
            return ()
        events = user_events(self._states[user_id])
        return tuple((self._one(kind), self._one(product), position, time) for kind, product, position, time in events)

    def _one(self, name: str) -> str:
        return self._names.setdefault(name, name)


def _shown(behavior: Sequence[Behavior]) -> dict[str, Shown]:
    """What was shown and clicked, by result_set_id."""
    found: dict[str, Shown] = {}
    for event in behavior:
        if event.result_set_id is None:
            continue
        if event.type == "impression":
            one = found.setdefault(event.result_set_id, Shown(event.event_time, event.user_id or ""))
            one.positions[event.product_id] = len(one.positions) if event.position is None else event.position
        elif event.type == "click" and event.result_set_id in found:
            found[event.result_set_id].clicked.add(event.product_id)
    return found


def _list(shelf: Shelf, one: Shown, history: Events) -> RankedList:
    names = sorted(one.positions)
    places = np.array([one.positions[name] for name in names], np.float32)
    return RankedList(
        query="",
        time_ms=one.time_ms,
        items=shelf.items(names),
        numeric=shelf.numeric(names, one.time_ms),
        retrieval=(places.max(initial=0) + 1) / (places + 1),
        bought=np.array([name in one.clicked for name in names], np.float32),
        history=history,
    )


def _says_what_was_shown(event: Behavior, moment: int) -> bool:
    return event.event_time == moment and event.type == "impression"


def _difference(one: RankedList, other: RankedList) -> str | None:
    """Which input of the model is not the same."""
    for name in ("items", "numeric", "retrieval"):
        if not np.array_equal(getattr(one, name), getattr(other, name)):
            return name
    return None if one.history == other.history else "history"
