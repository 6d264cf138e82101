"""Behaviour of a product: integer counts in event-time buckets, and windows over them."""

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from feature_repo.events import Behavior
from feature_repo.features.counting import (
    CARTED,
    CLICKED,
    COLUMNS,
    ORDERED,
    PURCHASED,
    RETURNED,
    VIEWED,
    counts_of,
)
from feature_repo.features.packing import pack, unpack
from feature_repo.features.repeats import REMEMBER_MS, event_key, is_repeated, remembered
from feature_repo.features.rounding import three_digits
from feature_repo.views import HOUR_MS, MINUTE_MS

MINUTE_BUCKETS = 60
HOUR_BUCKETS = 7 * 24
#: windows in whole buckets, the current one included
MINUTE_WINDOWS = (10, 60)
HOUR_WINDOWS = (24, 168)
CTR_CLICKS, CTR_VIEWS = 1, 20


class BehaviorState(Struct):
    """Counts in minute and hour buckets, totals, and the event ids of the last ten minutes of event time."""

    newest: int = 0
    minutes: dict[int, list[int]] = {}
    hours: dict[int, list[int]] = {}
    totals: list[int] = field(default_factory=lambda: [0] * COLUMNS)
    seen: dict[bytes, int] = {}


def fold_behavior(state: BehaviorState, event: Behavior) -> bool:
    """Count the event once. False for an event id seen within ten minutes behind the row's newest event."""
    key = event_key(event.event_id)
    if is_repeated(state.seen, key, state.newest):
        return False
    time = event.event_time
    minute, hour = time // MINUTE_MS, time // HOUR_MS
    if time > state.newest:
        entered_minute = minute > state.newest // MINUTE_MS
        state.newest = time
        if entered_minute:
            _prune(state)
    if time > state.newest - REMEMBER_MS:
        state.seen[key] = time
    counts = counts_of(event)
    if minute > state.newest // MINUTE_MS - MINUTE_BUCKETS:
        _add(state.minutes, minute, counts)
    if hour > state.newest // HOUR_MS - HOUR_BUCKETS:
        _add(state.hours, hour, counts)
    for column, count in counts:
        state.totals[column] += count
    return True


def _add(buckets: dict[int, list[int]], bucket: int, counts: Iterable[tuple[int, int]]) -> None:
    row = buckets.setdefault(bucket, [0] * COLUMNS)
    for column, count in counts:
        row[column] += count


def _prune(state: BehaviorState) -> None:
    oldest_minute = state.newest // MINUTE_MS - MINUTE_BUCKETS
    oldest_hour = state.newest // HOUR_MS - HOUR_BUCKETS
    for minute in [m for m in state.minutes if m <= oldest_minute]:
        del state.minutes[minute]
    for hour in [h for h in state.hours if h <= oldest_hour]:
        del state.hours[hour]
    state.seen = remembered(state.seen, state.newest)


def window(buckets: dict[int, list[int]], newest_bucket: int, length: int) -> list[int]:
    """Sums of the columns over the buckets in (newest_bucket - length, newest_bucket]."""
    inside = [counts for bucket, counts in buckets.items() if newest_bucket - length < bucket <= newest_bucket]
    return [sum(column) for column in zip(*inside, strict=True)] if inside else [0] * COLUMNS


def behavior_values(state: BehaviorState, as_of: int) -> list[float]:
    """Feature values at `as_of` (ms), rounded, in the order of views.PRODUCT_BEHAVIOR."""
    minute, hour = as_of // MINUTE_MS, as_of // HOUR_MS
    in_10m, in_1h = (window(state.minutes, minute, length) for length in MINUTE_WINDOWS)
    in_24h, in_7d = (window(state.hours, hour, length) for length in HOUR_WINDOWS)
    return three_digits(
        (
            _sales(in_10m),
            _sales(in_1h),
            _sales(in_24h),
            _sales(in_7d),
            in_24h[ORDERED],
            in_7d[ORDERED],
            in_7d[RETURNED],
            in_24h[VIEWED],
            in_1h[CLICKED],
            in_24h[CLICKED],
            in_24h[CARTED],
            (in_24h[CLICKED] + CTR_CLICKS) / (in_24h[VIEWED] + CTR_VIEWS),
            _sales(state.totals),
            state.totals[ORDERED],
        )
    )


def _sales(counts: Sequence[int]) -> int:
    return max(0, counts[PURCHASED] - counts[RETURNED])


def next_change(state: BehaviorState, as_of: int) -> int | None:
    """When (ms) the next bucket leaves one of the windows after `as_of`; None when none will."""
    minute, hour = as_of // MINUTE_MS, as_of // HOUR_MS
    leaving = [b + length for b in state.minutes for length in MINUTE_WINDOWS if b + length > minute]
    leaving_hours = [b + length for b in state.hours for length in HOUR_WINDOWS if b + length > hour]
    times = [m * MINUTE_MS for m in leaving] + [h * HOUR_MS for h in leaving_hours]
    return min(times, default=None)


def pack_behavior(state: BehaviorState) -> bytes:
    return pack(
        [
            state.newest,
            [[minute, *counts] for minute, counts in sorted(state.minutes.items())],
            [[hour, *counts] for hour, counts in sorted(state.hours.items())],
            state.totals,
            list(remembered(state.seen, state.newest).items()),
        ]
    )


def unpack_behavior(data: bytes) -> BehaviorState:
    newest, minutes, hours, totals, seen = unpack(data)
    return BehaviorState(
        newest,
        {minute: counts for minute, *counts in minutes},
        {hour: counts for hour, *counts in hours},
        totals,
        dict(seen),
    )
