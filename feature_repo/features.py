"""Pure functions: state + event -> state, state + as_of -> feature values. Engine and oracle share nothing else.

Counts are integers in event-time buckets, pruned by the row's own newest event time, so any order of the same events
gives the same bits. Nothing here looks at a clock.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgpack
import numpy as np
from msgspec import UNSET, Struct, field, structs

from feature_repo.events import Behavior, Product
from feature_repo.views import HOUR_MS, MINUTE_MS, UNKNOWN

#: event ids are remembered for this long in event time
REMEMBER_MS = 10 * MINUTE_MS
MINUTE_BUCKETS = 60
HOUR_BUCKETS = 7 * 24
#: windows in whole buckets, the current one included
MINUTE_WINDOWS = (10, 60)
HOUR_WINDOWS = (24, 168)
HISTORY_EVENTS = 50
CTR_CLICKS, CTR_VIEWS = 1, 20

# columns of one bucket and of the totals
VIEWED, CLICKED, CARTED, ORDERED, PURCHASED, RETURNED = range(6)
COLUMNS = 6

#: (event_time, offset, partition, place in the message): the later one wins a field
Order = tuple[int, int, int, int]

PATCH_FIELDS = (
    "title", "description", "brand", "category", "attributes", "price", "currency", "stock",
    "image", "video", "audio", "delisted",
)  # fmt: skip
CONTENT_FIELDS = ("title", "description", "brand", "category", "attributes", "image", "video", "audio")


def three_digits(values: Sequence[float]) -> list[float]:
    """Round derived features to 3 significant digits, half to even, in float64: what the model can tell apart."""
    return [float(f"{value:.3g}") for value in values]


# --- catalog -------------------------------------------------------------------------------------------------------


class CatalogState(Struct):
    """Per field the winning value and its order; `newest` is the newest event time (ms) of the row."""

    fields: dict[str, tuple[Order, object]] = {}
    newest: int = 0


def fold_product(state: CatalogState, patch: Product, order: Order) -> bool:
    """Last writer wins, per field. True when a content field changed its value."""
    content = False
    state.newest = max(state.newest, patch.event_time)
    for name in PATCH_FIELDS:
        value = getattr(patch, name)
        if value is UNSET:
            continue
        known = state.fields.get(name)
        if known is None or order > known[0]:
            content |= name in CONTENT_FIELDS and (known[1] if known else None) != value
            state.fields[name] = (order, value)
    return content


def current(state: CatalogState, name: str) -> object:
    """The value of a field now; None when it was never set or was cleared."""
    known = state.fields.get(name)
    return None if known is None else known[1]


def catalog_ints(state: CatalogState) -> list[int]:
    """price, stock, delisted: in the order of views.PRODUCT_CATALOG."""
    price, stock = current(state, "price"), current(state, "stock")
    return [
        price if isinstance(price, int) else UNKNOWN,
        stock if isinstance(stock, int) else UNKNOWN,
        int(current(state, "delisted") is True),
    ]


def catalog_strings(state: CatalogState) -> list[str]:
    """title, brand, category, currency: in the order of views.PRODUCT_CATALOG."""
    category = current(state, "category")
    return [
        str(current(state, "title") or ""),
        str(current(state, "brand") or ""),
        " > ".join(category) if isinstance(category, list) else "",
        str(current(state, "currency") or ""),
    ]


def content_of(state: CatalogState) -> dict[str, object]:
    """The whole content of a product, without the fields that are missing."""
    found = {name: current(state, name) for name in CONTENT_FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def delisting(product_id: str, event_time: int) -> Product:
    """What a null value on `catalog` means."""
    return Product(product_id=product_id, event_time=event_time, delisted=True)


def pack_catalog(state: CatalogState) -> bytes:
    return _pack([state.newest, [[name, *entry] for name, entry in sorted(state.fields.items())]])


def unpack_catalog(data: bytes) -> CatalogState:
    newest, fields = _unpack(data)
    return CatalogState({name: (tuple(order), value) for name, order, value in fields}, newest)


# --- behaviour of a product ----------------------------------------------------------------------------------------


class BehaviorState(Struct):
    """Counts in minute and hour buckets, totals, and the event ids of the last ten minutes of event time."""

    newest: int = 0
    minutes: dict[int, list[int]] = {}
    hours: dict[int, list[int]] = {}
    totals: list[int] = field(default_factory=lambda: [0] * COLUMNS)
    seen: dict[bytes, int] = {}


def event_key(event_id: str) -> bytes:
    """8 bytes that stand for an event id in the state of a row."""
    return blake2b(event_id.encode(), digest_size=8).digest()


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
    counts = _counts(event)
    if minute > state.newest // MINUTE_MS - MINUTE_BUCKETS:
        _add(state.minutes, minute, counts)
    if hour > state.newest // HOUR_MS - HOUR_BUCKETS:
        _add(state.hours, hour, counts)
    for column, count in counts:
        state.totals[column] += count
    return True


def is_repeated(seen: dict[bytes, int], key: bytes, newest: int) -> bool:
    """Whether an event id is remembered: ids older than ten minutes behind `newest` no longer are, pruned or not."""
    return seen.get(key, newest - REMEMBER_MS) > newest - REMEMBER_MS


def remembered(seen: dict[bytes, int], newest: int) -> dict[bytes, int]:
    """The ids that count as seen, in order: what is packed is a function of the events alone."""
    return {key: time for key, time in sorted(seen.items()) if time > newest - REMEMBER_MS}


def _counts(event: Behavior) -> tuple[tuple[int, int], ...]:
    match event.type:
        case "impression":
            return ((VIEWED, 1),)
        case "click":
            return ((CLICKED, 1),)
        case "cart":
            return ((CARTED, 1),)
        case "purchase":
            return ((ORDERED, 1), (PURCHASED, event.quantity))
        case "return":
            return ((RETURNED, event.quantity),)


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
    return _pack(
        [
            state.newest,
            [[minute, *counts] for minute, counts in sorted(state.minutes.items())],
            [[hour, *counts] for hour, counts in sorted(state.hours.items())],
            state.totals,
            list(remembered(state.seen, state.newest).items()),
        ]
    )


def unpack_behavior(data: bytes) -> BehaviorState:
    newest, minutes, hours, totals, seen = _unpack(data)
    return BehaviorState(
        newest,
        {minute: counts for minute, *counts in minutes},
        {hour: counts for hour, *counts in hours},
        totals,
        dict(seen),
    )


# --- behaviour of a user -------------------------------------------------------------------------------------------

#: (event_time, origin partition, offset, place, type, product_id, position)
UserEvent = tuple[int, int, int, int, str, str, int]


class UserState(Struct):
    """The user's last events in order of (event_time, origin partition, offset, place), and totals.

    Event ids are remembered by origin partition, each behind that partition's newest event: a double comes where its
    original came, but how partitions interleave on the way here is luck.
    """

    events: list[UserEvent] = []
    totals: list[int] = field(default_factory=lambda: [0] * COLUMNS)
    newest_of: dict[int, int] = {}
    seen_of: dict[int, dict[bytes, int]] = {}

    @property
    def newest(self) -> int:
        """Newest event time (ms) of the row."""
        return max(self.newest_of.values(), default=0)


def fold_user(state: UserState, event: Behavior, partition: int, offset: int, place: int) -> bool:
    """Remember the event. False for an event id seen within ten minutes behind its partition's newest event."""
    key, time = event_key(event.event_id), event.event_time
    newest, seen = state.newest_of.get(partition, 0), state.seen_of.setdefault(partition, {})
    if is_repeated(seen, key, newest):
        return False
    if time > newest:
        state.newest_of[partition] = time
        if time // MINUTE_MS > newest // MINUTE_MS:
            seen = state.seen_of[partition] = remembered(seen, time)
    if time > state.newest_of.get(partition, 0) - REMEMBER_MS:
        seen[key] = time
    position = UNKNOWN if event.position is None else event.position
    state.events.append((time, partition, offset, place, event.type, event.product_id, position))
    state.events.sort()
    del state.events[:-HISTORY_EVENTS]
    for column, count in _counts(event):
        state.totals[column] += count
    return True


def user_values(state: UserState) -> list[float]:
    """views_total, clicks_total, carts_total, orders_total, rounded."""
    return three_digits([state.totals[column] for column in (VIEWED, CLICKED, CARTED, ORDERED)])


def user_history(state: UserState) -> bytes:
    """[[type, product_id, position, event_time], ...], oldest first."""
    return _pack([[kind, product, position, time] for time, _, _, _, kind, product, position in state.events])


def pack_user(state: UserState) -> bytes:
    partitions = [
        [partition, newest, list(remembered(state.seen_of.get(partition, {}), newest).items())]
        for partition, newest in sorted(state.newest_of.items())
    ]
    return _pack([state.events, state.totals, partitions])


def unpack_user(data: bytes) -> UserState:
    events, totals, partitions = _unpack(data)
    return UserState(
        [tuple(event) for event in events],
        totals,
        {partition: newest for partition, newest, _ in partitions},
        {partition: dict(seen) for partition, _, seen in partitions},
    )


# --- content of a product ------------------------------------------------------------------------------------------


class ContentState(Struct):
    """The vectors of the newest content: `numbers` are the float32 fields of views.PRODUCT_CONTENT, packed."""

    version: int = 0
    newest: int = 0
    encoder: str = ""
    content_hash: str = ""
    numbers: bytes = b""


def content_values(state: ContentState) -> list[float]:
    """float32 fields of views.PRODUCT_CONTENT, flattened."""
    values: list[float] = np.frombuffer(state.numbers, dtype="<f4").tolist()
    return values


def pack_content(state: ContentState) -> bytes:
    return _pack(structs.astuple(state))


def unpack_content(data: bytes) -> ContentState:
    return ContentState(*_unpack(data))


def _pack(value: object) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def _unpack(data: bytes) -> list:  # type: ignore[type-arg]
    # our own bytes from our own store; strict_map_key is off because buckets are lists, not maps
    unpacked = msgpack.unpackb(data)
    assert isinstance(unpacked, list)
    return unpacked
