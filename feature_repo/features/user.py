"""Behaviour of a user: the last events, and totals."""

from msgspec import Struct, field

from feature_repo.events import Behavior
from feature_repo.features.counting import CARTED, CLICKED, COLUMNS, ORDERED, VIEWED, counts_of
from feature_repo.features.packing import pack, unpack
from feature_repo.features.repeats import REMEMBER_MS, event_key, is_repeated, remembered
from feature_repo.features.rounding import three_digits
from feature_repo.views import MINUTE_MS, UNKNOWN

HISTORY_EVENTS = 50

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
    for column, count in counts_of(event):
        state.totals[column] += count
    return True


def user_values(state: UserState) -> list[float]:
    """views_total, clicks_total, carts_total, orders_total, rounded."""
    return three_digits([state.totals[column] for column in (VIEWED, CLICKED, CARTED, ORDERED)])


def user_history(state: UserState) -> bytes:
    """[[type, product_id, position, event_time], ...], oldest first."""
    return pack([[kind, product, position, time] for time, _, _, _, kind, product, position in state.events])


def pack_user(state: UserState) -> bytes:
    partitions = [
        [partition, newest, list(remembered(state.seen_of.get(partition, {}), newest).items())]
        for partition, newest in sorted(state.newest_of.items())
    ]
    return pack([state.events, state.totals, partitions])


def unpack_user(data: bytes) -> UserState:
    events, totals, partitions = unpack(data)
    return UserState(
        [tuple(event) for event in events],
        totals,
        {partition: newest for partition, newest, _ in partitions},
        {partition: dict(seen) for partition, _, seen in partitions},
    )
