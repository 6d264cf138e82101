"""Behaviour of a user: the last events, and totals."""

import struct
from bisect import insort
from dataclasses import dataclass, field

from feature_repo.events import Behavior
from feature_repo.features.counting import CARTED, CLICKED, COLUMNS, ORDERED, VIEWED, counts_of
from feature_repo.features.packing import list_header, pack, unpack
from feature_repo.features.repeats import Repeats, event_key
from feature_repo.features.rounding import three_digits
from feature_repo.views import HISTORY_EVENTS, UNKNOWN

#: (event_time, origin partition, offset, place), so that the order of the bytes is that of the numbers
_ORDER = struct.Struct(">QIQI")

#: (type, product_id, position, event_time in ms)
UserEvent = tuple[str, str, int, int]


@dataclass(slots=True)
class UserState:
    """The user's last events in order of (event_time, origin partition, offset, place), and totals.

    An event is kept as bytes: that order, then what readers get of it. Event ids are remembered by origin partition,
    each behind that partition's newest event: a double comes where its original came, but how partitions interleave on
    the way here is luck.
    """

    events: list[bytes] = field(default_factory=list)
    totals: list[int] = field(default_factory=lambda: [0] * COLUMNS)
    newest_of: dict[int, int] = field(default_factory=dict)
    repeats_of: dict[int, Repeats] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """Newest event time (ms) of the row."""
        return max(self.newest_of.values(), default=0)


def fold_user(state: UserState, event: Behavior, partition: int, offset: int, place: int) -> bool:
    """Remember the event. False for an event id seen within ten minutes behind its partition's newest event."""
    time = event.event_time
    repeats = state.repeats_of.get(partition)
    if repeats is None:
        repeats = state.repeats_of[partition] = Repeats()
    if not repeats.take(event_key(event.event_id), time):
        return False
    state.newest_of[partition] = max(time, state.newest_of.get(partition, 0))
    position = UNKNOWN if event.position is None else event.position
    _remember(state.events, (time, partition, offset, place), (event.type, event.product_id, position, time))
    for column, count in counts_of(event):
        state.totals[column] += count
    return True


def _remember(events: list[bytes], order: tuple[int, int, int, int], event: UserEvent) -> None:
    packed = _ORDER.pack(*order) + pack(event)
    if not events or packed > events[-1]:
        events.append(packed)
    else:
        insort(events, packed)
    if len(events) > HISTORY_EVENTS:
        del events[0]


def user_values(state: UserState) -> list[float]:
    """views_total, clicks_total, carts_total, orders_total, rounded."""
    return three_digits([state.totals[column] for column in (VIEWED, CLICKED, CARTED, ORDERED)])


def user_history(state: UserState) -> bytes:
    """[[type, product_id, position, event_time], ...], oldest first."""
    return list_header(len(state.events)) + b"".join([event[_ORDER.size :] for event in state.events])


def user_events(state: UserState) -> list[UserEvent]:
    """The same, unpacked."""
    return [tuple(event) for event in unpack(user_history(state))]


def pack_user(state: UserState) -> bytes:
    partitions = [
        (partition, newest, state.repeats_of[partition].to_pack())
        for partition, newest in sorted(state.newest_of.items())
    ]
    return pack((state.events, state.totals, partitions))


def unpack_user(data: bytes) -> UserState:
    events, totals, partitions = unpack(data)
    is_old = bool(events) and isinstance(events[0], list)
    unpack_repeats = Repeats.unpack_old if is_old else Repeats.unpack
    state = UserState(
        [] if is_old else events,
        totals,
        {partition: newest for partition, newest, _ in partitions},
        {partition: unpack_repeats(seen) for partition, _, seen in partitions},
    )
    if is_old:
        for time, partition, offset, place, kind, product, position in events:
            _remember(state.events, (time, partition, offset, place), (kind, product, position, time))
    return state
