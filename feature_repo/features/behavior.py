"""Behaviour of a product: integer counts in event-time buckets, and windows over them."""

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from feature_repo.events import Behavior
from feature_repo.features.buckets import NEVER, NONE, Buckets
from feature_repo.features.counting import (
    CLICKED,
    COLUMNS,
    COUNTED_ONCE,
    ORDERED,
    PURCHASED,
    RETURNED,
    counts_of,
)
from feature_repo.features.packing import pack, unpack
from feature_repo.features.repeats import Repeats, event_key
from feature_repo.features.rounding import SHORT, rounded, three_digits
from feature_repo.views import HOUR_MS, MINUTE_MS

#: windows in whole buckets, the current one included
MINUTE_WINDOWS = (10, 60)
HOUR_WINDOWS = (24, 168)
CTR_CLICKS, CTR_VIEWS = 1, 20


class BehaviorState(Struct, gc=False):
    """Counts in minute and hour buckets, totals, and the event ids of the last ten minutes of event time."""

    newest: int = 0
    minutes: Buckets = field(default_factory=lambda: Buckets(MINUTE_WINDOWS))
    hours: Buckets = field(default_factory=lambda: Buckets(HOUR_WINDOWS))
    totals: list[int] = field(default_factory=lambda: [0] * COLUMNS)
    repeats: Repeats = field(default_factory=Repeats)


def fold_behavior(state: BehaviorState, event: Behavior) -> bool:
    """Count the event once. False for an event id seen within ten minutes behind the row's newest event."""
    time = event.event_time
    if not state.repeats.take(event_key(event.event_id), time):
        return False
    if time > state.newest:
        state.newest = time
    counts = counts_of(event)
    state.minutes.add(time // MINUTE_MS, counts)
    state.hours.add(time // HOUR_MS, counts)
    for column, count in counts:
        state.totals[column] += count
    return True


def fold_behaviors(state: BehaviorState, events: Iterable[Behavior]) -> None:
    """`fold_behavior` of each of them: what is counted in one minute is added in one step."""
    take, newest = state.repeats.take, state.newest
    current, tally = NONE, [0] * COLUMNS
    for event in events:
        time = event.event_time
        if not take(event_key(event.event_id), time):
            continue
        if time > newest:
            newest = time
        minute = time // MINUTE_MS
        if minute != current:
            _add(state, current, tally)
            current, tally = minute, [0] * COLUMNS
        once = COUNTED_ONCE.get(event.type)
        if once is None:
            for column, count in counts_of(event):
                tally[column] += count
        else:
            tally[once] += 1
    _add(state, current, tally)
    state.newest = newest


def _add(state: BehaviorState, minute: int, tally: list[int]) -> None:
    counts = [(column, count) for column, count in enumerate(tally) if count]
    if counts:
        state.minutes.add(minute, counts)
        state.hours.add(minute * MINUTE_MS // HOUR_MS, counts)
        for column, count in counts:
            state.totals[column] += count


def behavior_values(state: BehaviorState, as_of: int) -> list[float]:
    """Feature values at `as_of` (ms), rounded, in the order of views.PRODUCT_BEHAVIOR."""
    in_10m, in_1h = state.minutes.sums(as_of // MINUTE_MS)
    in_24h, in_7d = state.hours.sums(as_of // HOUR_MS)
    return _values(in_10m, in_1h, in_24h, in_7d, state.totals)


def only_counts(state: BehaviorState, as_of: int) -> tuple[int, ...] | None:
    """What every window and the totals hold, where that is the same: `values_of_counts` is then `behavior_values`.

    Most products are met in one minute of a week, and their few counts are those of many others.
    """
    counts = state.minutes.only(as_of // MINUTE_MS)
    if counts is not None and counts == state.totals and state.hours.only(as_of // HOUR_MS) == counts:
        return tuple(counts)
    return None


def values_of_counts(counts: Sequence[int]) -> list[float]:
    """Feature values where every window and the totals hold these counts."""
    return _values(counts, counts, counts, counts, counts)


def _values(
    in_10m: Sequence[int], in_1h: Sequence[int], in_24h: Sequence[int], in_7d: Sequence[int], ever: Sequence[int]
) -> list[float]:
    viewed, clicked, carted, ordered, purchased, returned = in_24h
    values = [
        _sold(in_10m[PURCHASED], in_10m[RETURNED]),
        _sold(in_1h[PURCHASED], in_1h[RETURNED]),
        _sold(purchased, returned),
        _sold(in_7d[PURCHASED], in_7d[RETURNED]),
        ordered,
        in_7d[ORDERED],
        in_7d[RETURNED],
        viewed,
        in_1h[CLICKED],
        clicked,
        carted,
        rounded((clicked + CTR_CLICKS) / (viewed + CTR_VIEWS)),
        _sold(ever[PURCHASED], ever[RETURNED]),
        ever[ORDERED],
    ]
    return values if max(values) < SHORT else three_digits(values)


def _sold(purchased: int, returned: int) -> int:
    return purchased - returned if purchased > returned else 0


def next_change(state: BehaviorState, as_of: int) -> int | None:
    """When (ms) the next bucket leaves one of the windows after `as_of`; None when none will."""
    minute = state.minutes.next_leaving(as_of // MINUTE_MS)
    hour = state.hours.next_leaving(as_of // HOUR_MS)
    time = min(minute * MINUTE_MS, hour * HOUR_MS)
    return time if time < NEVER else None


def pack_behavior(state: BehaviorState) -> bytes:
    minutes, hours = state.minutes.to_pack(), state.hours.to_pack()
    return pack((state.newest, minutes, hours, state.totals, state.repeats.to_pack()))


def unpack_behavior(data: bytes) -> BehaviorState:
    newest, minutes, hours, totals, seen = unpack(data)
    is_old = bool(seen) and isinstance(seen[0][0], bytes)
    return BehaviorState(
        newest,
        Buckets.of(MINUTE_WINDOWS, {minute: counts for minute, *counts in minutes}),
        Buckets.of(HOUR_WINDOWS, {hour: counts for hour, *counts in hours}),
        totals,
        Repeats.unpack_old(seen) if is_old else Repeats.unpack(seen),
    )
