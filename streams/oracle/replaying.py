"""Messages of the input topics -> states of products, users and result sets. Pure: the messages are passed in.

What is kept is a function of the log alone: messages of one partition must come in order of offset, partitions may
come in any order.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from feature_repo.events import Behavior, Bundle, Heartbeat, Product, ResultSet
from feature_repo.features import (
    BehaviorState,
    CatalogState,
    UserState,
    fold_behavior,
    fold_product,
    fold_user,
)
from streams.records import BEHAVIOR, CATALOG, MODELS, RESULT_SETS, partition_for
from streams.settings import Limits
from streams.validation import Reason, decode

INPUTS = (CATALOG, BEHAVIOR, RESULT_SETS, MODELS)


class Message(NamedTuple):
    """One record of Kafka; `kafka_time` in ms UTC."""

    topic: str
    partition: int
    offset: int
    kafka_time: int
    key: bytes | None
    value: bytes | None


class Place(NamedTuple):
    """Where a record stood; `place` is its index in the message, -1 for the message as a whole."""

    topic: str
    partition: int
    offset: int
    place: int


class UserEvent(NamedTuple):
    """An event of a user, to be folded in order of arrival: `arrived` never falls along a partition."""

    arrived: int
    partition: int
    offset: int
    place: int
    event: Behavior


@dataclass(slots=True)
class Tally:
    """Each record of `behavior` in exactly one of these."""

    counted: int = 0
    doubled: int = 0
    rejected: int = 0
    heartbeats: int = 0


@dataclass(slots=True)
class Behaved:
    """What shoppers did with a product, and the partitions of `behavior` that told of it."""

    state: BehaviorState = field(default_factory=BehaviorState)
    origins: set[int] = field(default_factory=set)


class Runs:
    """Which offsets of a partition were read: compaction and retention leave holes."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __contains__(self, offset: int) -> bool:
        run = bisect_right(self._firsts, offset) - 1
        return run >= 0 and offset <= self._lasts[run]

    def add(self, offset: int) -> None:
        """The next offset, higher than all before."""
        if self._lasts and self._lasts[-1] == offset - 1:
            self._lasts[-1] = offset
        else:
            self._firsts.append(offset)
            self._lasts.append(offset)


class Replay:
    """The state of the shop after the messages so far. `partitions` are the broker's, by topic."""

    def __init__(
        self, partitions: Mapping[str, int], limits: Limits | None = None, media_hosts: Sequence[str] = ()
    ) -> None:
        self._partitions = partitions
        self._limits = limits or Limits()
        self._media_hosts = media_hosts
        self._read: dict[tuple[str, int], Runs] = {}
        self._heartbeats: dict[int, int] = {}
        self._arrived: dict[int, int] = {}
        self._user_events: dict[str, list[UserEvent]] = {}
        self.catalog: dict[str, CatalogState] = {}
        self.behavior: dict[str, Behaved] = {}
        #: last registration by id; None for a set that was closed
        self.registrations: dict[str, ResultSet | None] = {}
        self.bundle: Bundle | None = None
        self.rejected: dict[Place, Reason] = {}
        self.tally = Tally()

    def take(self, message: Message) -> None:
        """One message of an input topic."""
        decoded = decode(
            message.topic,
            message.key,
            message.value,
            kafka_time=message.kafka_time,
            partition=message.partition,
            partitions=self._partitions[message.topic],
            limits=self._limits,
            media_hosts=self._media_hosts,
        )
        self._read.setdefault((message.topic, message.partition), Runs()).add(message.offset)
        for rejected in decoded.rejected:
            self.rejected[Place(message.topic, message.partition, message.offset, rejected.place)] = rejected.reason
        if message.topic == BEHAVIOR:
            self.tally.rejected += len(decoded.rejected)
            self._arrived[message.partition] = max(message.kafka_time, self._arrived.get(message.partition, 0))
        elif message.topic == RESULT_SETS and message.value is None:
            self._close(message)
        for place, record in decoded.records:
            match record:
                case Product():
                    state = self.catalog.setdefault(record.product_id, CatalogState())
                    fold_product(state, record, (record.event_time, message.offset, message.partition, place))
                case Behavior():
                    self._count(message, place, record)
                case Heartbeat():
                    self.tally.heartbeats += 1
                    newest = self._heartbeats.get(message.partition, 0)
                    self._heartbeats[message.partition] = max(newest, record.event_time)
                case ResultSet():
                    self.registrations[record.result_set_id] = record
                case Bundle():
                    self.bundle = record

    def _count(self, message: Message, place: int, event: Behavior) -> None:
        behaved = self.behavior.setdefault(event.product_id, Behaved())
        behaved.origins.add(message.partition)
        if fold_behavior(behaved.state, event):
            self.tally.counted += 1
        else:
            self.tally.doubled += 1
        if event.user_id is not None:
            arrived = self._arrived[message.partition]
            told = UserEvent(arrived, message.partition, message.offset, place, event)
            self._user_events.setdefault(event.user_id, []).append(told)

    def _close(self, message: Message) -> None:
        """A null closes the set of its key, where that set has its place."""
        if message.key is None:
            return
        result_set_id = message.key.decode(errors="replace")
        owner = partition_for(result_set_id, self._partitions[RESULT_SETS])
        if result_set_id in self.registrations and owner == message.partition:
            self.registrations[result_set_id] = None

    # --- what the states say ---------------------------------------------------------------------------------------

    def has_read(self, place: Place) -> bool:
        """Whether the message of a place was taken."""
        return place.offset in self._read.get((place.topic, place.partition), ())

    @property
    def clock(self) -> int | None:
        """The log's clock (ms): the least of all partitions' newest heartbeats; None before each was heard."""
        everyone = len(self._heartbeats) == self._partitions[BEHAVIOR]
        return min(self._heartbeats.values()) if everyone else None

    def as_of(self, product_id: str) -> int:
        """When (ms) the windows of a product that has behaviour are evaluated."""
        behaved = self.behavior[product_id]
        return max(behaved.state.newest, *(self._heartbeats.get(origin, 0) for origin in behaved.origins))

    @property
    def users(self) -> list[str]:
        return sorted(self._user_events)

    def user(self, user_id: str) -> UserState:
        """The events of a user, folded in order of arrival; an empty state for a user who did nothing.

        An event id that comes twice in different partitions, or late, is judged by what the row knew when it came.
        Between partitions Kafka keeps no order: its timestamps stand for it here.
        """
        state = UserState()
        for _, partition, offset, place, event in sorted(self._user_events.get(user_id, ()), key=_arrival):
            fold_user(state, event, partition, offset, place)
        return state


def _arrival(told: UserEvent) -> tuple[int, int, int, int]:
    return told.arrived, told.partition, told.offset, told.place
