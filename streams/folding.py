"""What each view does with its input: one small class a view, all the same shape, over `feature_repo.features`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from feature_repo import features
from feature_repo.events import Behavior, Product
from feature_repo.row import NO_STRINGS, Stamps, Values, numbers_of, pack_strings, pack_values, version_of
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, PRODUCT_CONTENT, USER_BEHAVIOR, View
from streams.records import CONTENT, ContentMessage, encode_content

S = TypeVar("S")


class Entry(Struct, frozen=True, gc=False):
    """What one message says of one entity; folded whole or not at all.

    `stamps` are the origin offsets it brings, `input_offset` is its place in the partition that is being read.
    `replaces`: it takes the place of the whole row, whose stamps it brings, instead of adding to it.
    `is_own`: its only stamp is its place in the partition that is being read; all entries of a row are, or none.
    """

    entity: str
    stamps: Stamps
    input_offset: int
    kafka_time: int
    records: Sequence[tuple[int, Any]]
    replaces: bool = False
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Forward:
    """A message for an internal topic that the fold of an entry brings about."""

    topic: str
    key: str
    value: bytes


class Folding(Protocol, Generic[S]):
    """State of one view's rows: how it begins, takes an entry, is packed, and what readers get of it."""

    view: View
    #: whether anything goes on from here
    forwards: bool
    #: clean rows beyond so many are let go
    cached_rows: int

    def empty(self) -> S: ...
    def pack(self, state: S) -> bytes: ...
    def unpack(self, data: bytes) -> S: ...
    def fold(self, state: S, entries: Sequence[Entry]) -> bool:
        """Fold the entries in their order; True when something must be forwarded."""
        ...

    def newest(self, state: S) -> int:
        """Newest event time (ms) of the row."""
        ...

    def values(self, state: S, as_of: int) -> Values:
        """What readers get, as it stands in a row."""
        ...

    def next_change(self, state: S, as_of: int) -> int | None: ...
    def forward(self, entity: str, state: S, stamps: Stamps, entries: Sequence[Entry], changed: bool) -> Forward | None:
        """What goes on from here after the entries; `changed` is fold's answer, or True for any that is read again."""
        ...


class CatalogFolding:
    """Patches: last writer wins per field. Content that changed goes on to be encoded."""

    view = PRODUCT_CATALOG
    forwards = True
    cached_rows = 200_000
    _numbers = numbers_of(PRODUCT_CATALOG)

    def empty(self) -> features.CatalogState:
        return features.CatalogState()

    def pack(self, state: features.CatalogState) -> bytes:
        return features.pack_catalog(state)

    def unpack(self, data: bytes) -> features.CatalogState:
        return features.unpack_catalog(data)

    def fold(self, state: features.CatalogState, entries: Sequence[Entry]) -> bool:
        patches: list[tuple[features.Order, Product]] = []
        for entry in entries:
            # an entry of patches has one stamp, its place in the log
            (partition,), offset = entry.stamps, entry.input_offset
            for place, patch in entry.records:
                patches.append(((patch.event_time, offset, partition, place), patch))
        if len(patches) == 1:
            ((order, patch),) = patches
            return features.fold_product(state, patch, order)
        return features.fold_products(state, patches)

    def newest(self, state: features.CatalogState) -> int:
        return state.newest

    def values(self, state: features.CatalogState, as_of: int) -> Values:
        return Values(self._numbers.pack(*features.catalog_ints(state)), features.catalog_texts(state))

    def next_change(self, state: features.CatalogState, as_of: int) -> int | None:
        return None

    def forward(
        self, entity: str, state: features.CatalogState, stamps: Stamps, entries: Sequence[Entry], changed: bool
    ) -> Forward | None:
        # a row of several input partitions may have been forwarded by another owner without what its own row lacked
        may_differ = changed or len(stamps) > 1
        if not may_differ or not any(features.brings_content(patch) for entry in entries for _, patch in entry.records):
            return None
        message = ContentMessage(entity, dict(stamps), state.newest, features.content_of(state))
        return Forward(CONTENT, entity, encode_content(message))


class BehaviorFolding:
    """Counts of a product, in windows of event time."""

    view = PRODUCT_BEHAVIOR
    forwards = False
    cached_rows = 200_000
    _numbers = numbers_of(PRODUCT_BEHAVIOR)

    def empty(self) -> features.BehaviorState:
        return features.BehaviorState()

    def pack(self, state: features.BehaviorState) -> bytes:
        return features.pack_behavior(state)

    def unpack(self, data: bytes) -> features.BehaviorState:
        return features.unpack_behavior(data)

    def fold(self, state: features.BehaviorState, entries: Sequence[Entry]) -> bool:
        if len(entries) == 1 and len(entries[0].records) == 1:
            features.fold_behavior(state, entries[0].records[0][1])
        else:
            features.fold_behaviors(state, [event for entry in entries for _, event in entry.records])
        return False

    def newest(self, state: features.BehaviorState) -> int:
        return state.newest

    def values(self, state: features.BehaviorState, as_of: int) -> Values:
        counts = features.only_counts(state, as_of)
        if counts is not None:
            return _values_of_counts(counts)
        return Values(self._numbers.pack(*features.behavior_values(state, as_of)), NO_STRINGS)

    def next_change(self, state: features.BehaviorState, as_of: int) -> int | None:
        return features.next_change(state, as_of)

    def forward(
        self, entity: str, state: features.BehaviorState, stamps: Stamps, entries: Sequence[Entry], changed: bool
    ) -> Forward | None:
        return None


@lru_cache(maxsize=65_536)
def _values_of_counts(counts: tuple[int, ...]) -> Values:
    return Values(numbers_of(PRODUCT_BEHAVIOR).pack(*features.values_of_counts(counts)), NO_STRINGS)


class UserFolding:
    """The last events of a user, and totals. Nothing changes by time."""

    view = USER_BEHAVIOR
    forwards = False
    #: a user with a full history takes 15 KB
    cached_rows = 50_000

    def empty(self) -> features.UserState:
        return features.UserState()

    def pack(self, state: features.UserState) -> bytes:
        return features.pack_user(state)

    def unpack(self, data: bytes) -> features.UserState:
        return features.unpack_user(data)

    def fold(self, state: features.UserState, entries: Sequence[Entry]) -> bool:
        for entry in entries:
            ((partition, offset),) = entry.stamps.items()
            for place, event in entry.records:
                assert isinstance(event, Behavior)
                features.fold_user(state, event, partition, offset, place)
        return False

    def newest(self, state: features.UserState) -> int:
        return state.newest

    def values(self, state: features.UserState, as_of: int) -> Values:
        return pack_values(self.view, (), features.user_values(state), (features.user_history(state),))

    def next_change(self, state: features.UserState, as_of: int) -> int | None:
        return None

    def forward(
        self, entity: str, state: features.UserState, stamps: Stamps, entries: Sequence[Entry], changed: bool
    ) -> Forward | None:
        return None


@dataclass(frozen=True, slots=True)
class Encoded:
    """Content as the encoder left it: `numbers` are the float32 fields of views.PRODUCT_CONTENT, little-endian."""

    version: int
    event_time: int
    encoder: str
    content_hash: str
    numbers: bytes = field(repr=False)


class ContentFolding:
    """The vectors of the newest content: the whole row is replaced by a newer version of the content."""

    view = PRODUCT_CONTENT
    forwards = False
    cached_rows = 200_000

    def empty(self) -> features.ContentState:
        return features.ContentState(numbers=bytes(4 * PRODUCT_CONTENT.float_width))

    def pack(self, state: features.ContentState) -> bytes:
        return features.pack_content(state)

    def unpack(self, data: bytes) -> features.ContentState:
        return features.unpack_content(data)

    def fold(self, state: features.ContentState, entries: Sequence[Entry]) -> bool:
        for entry in entries:
            for _, content in entry.records:
                assert isinstance(content, Encoded)
                if content.version >= state.version:
                    state.version, state.newest = content.version, content.event_time
                    state.encoder, state.content_hash = content.encoder, content.content_hash
                    state.numbers = content.numbers
        return False

    def newest(self, state: features.ContentState) -> int:
        return state.newest

    def values(self, state: features.ContentState, as_of: int) -> Values:
        return Values(state.numbers, pack_strings((state.encoder, state.content_hash)))

    def next_change(self, state: features.ContentState, as_of: int) -> int | None:
        return None

    def forward(
        self, entity: str, state: features.ContentState, stamps: Stamps, entries: Sequence[Entry], changed: bool
    ) -> Forward | None:
        return None


def admit(stamps: Stamps, entry: Entry) -> bool:
    """Add the entry's stamps to a row's; False if the row holds it already, or something newer in its place."""
    if entry.replaces:
        if stamps == entry.stamps or version_of(stamps) > version_of(entry.stamps):
            return False
        stamps.clear()
    is_new = False
    for partition, offset in entry.stamps.items():
        if offset > stamps.get(partition, -1):
            stamps[partition] = offset
            is_new = True
    return is_new


def admitted(stamps: Stamps, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Add the stamps of the entries to a row's; those entries that it does not hold already, in their order."""
    if entries and entries[0].is_own:
        # offsets of one partition rise: if the first is new, all of them are
        first, last = entries[0], entries[-1]
        (partition,) = first.stamps
        if first.input_offset > stamps.get(partition, -1):
            stamps[partition] = last.input_offset
            return entries
    return [entry for entry in entries if admit(stamps, entry)]


def content_version(message: ContentMessage) -> int:
    """Version of the catalog row that the content was taken from."""
    return version_of(message.stamps)
