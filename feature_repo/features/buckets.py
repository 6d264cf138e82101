"""Counts in buckets of event time, and running sums of them over windows that end now."""

from collections.abc import Iterable, Iterator

from msgspec import Raw, Struct, field

from feature_repo.features.counting import COLUMNS
from feature_repo.features.packing import list_header, pack

#: later than any bucket
NEVER = 1 << 62
#: earlier than any bucket
NONE = -1
_NOTHING = [0] * COLUMNS


class Buckets(Struct, gc=False):
    """Counts by bucket (a number of minutes or hours since 1970), kept as far back as the longest window reaches.

    The buckets are a function of the events in any order. The sums are kept up with them: what is added is added to
    them, what leaves a window is taken off; they are integers, so they are what a sum over the buckets would be.
    `lengths` of the windows rise.
    """

    lengths: tuple[int, ...]
    counts: dict[int, list[int]] = field(default_factory=dict)
    _newest: int = NONE
    #: the bucket at which the windows end; NONE while there are no sums
    _now: int = NONE
    _sums: tuple[list[int], ...] = ()
    #: the next bucket that finds less in a window than there is now; looked for anew unless it is later than now
    _leaving: int = 0
    #: all but the newest as they are packed; None when they changed
    _closed: bytes | None = None
    #: a newest bucket that lies in every window, and all lists that an event in it adds to
    _current: int = NONE
    _targets: tuple[list[int], ...] = ()

    @classmethod
    def of(cls, lengths: tuple[int, ...], counts: dict[int, list[int]]) -> "Buckets":
        """Buckets that are known already."""
        return cls(lengths, counts, max(counts, default=NONE))

    def add(self, bucket: int, counts: Iterable[tuple[int, int]]) -> None:
        """Count, unless no window can reach the bucket any more. `counts` are (column, count) pairs."""
        if self._newest == NONE:
            # the first one is its own sum: most rows never have a second
            row = [0] * COLUMNS
            self.counts[bucket] = row
            self._newest = self._current = bucket
            self._now, self._sums, self._targets = NONE, (), (row,)
        if bucket == self._current:
            for column, count in counts:
                for target in self._targets:
                    target[column] += count
            return
        found = self.counts.get(bucket)
        if found is None:
            if bucket <= self._newest - self.lengths[-1]:
                return
            found = self._enter(bucket)
        elif bucket != self._newest:
            self._closed = None
        for column, count in counts:
            found[column] += count
        if not self._sums:
            return
        age = self._now - bucket
        for length, sums in zip(self.lengths, self._sums, strict=True):
            if age < length:
                for column, count in counts:
                    sums[column] += count
        if bucket == self._newest and age < self.lengths[0]:
            self._current, self._targets = bucket, (found, *self._sums)

    def _enter(self, bucket: int) -> list[int]:
        row = [0] * COLUMNS
        if bucket > self._newest:
            if NONE < self._now < bucket:
                self._move(bucket)
            self._close(bucket)
            self._newest, self._current = bucket, NONE
        else:
            self._closed = None
        for length in self.lengths:
            if self._now < bucket + length < self._leaving:
                self._leaving = bucket + length
        self.counts[bucket] = row
        return row

    def _close(self, newest: int) -> None:
        """The newest bucket is one like the others now, and what no window reaches from the new one is gone."""
        if self._closed is not None:
            self._closed += _packed(self._newest, self.counts[self._newest])
        reach = self.lengths[-1]
        for bucket in sorted(self._between(self._newest - reach, newest - reach)):
            if self._closed is not None:
                self._closed = self._closed[len(_packed(bucket, self.counts[bucket])) :]
            del self.counts[bucket]

    def sums(self, now: int) -> tuple[list[int], ...]:
        """Columns summed over the buckets in (now - length, now], one list for each of `lengths`: not to be changed."""
        if now != self._now:
            if NONE < self._now < now:
                self._move(now)
            elif self._is_alone():
                row, age = self.counts[self._newest], now - self._newest
                if 0 <= age < self.lengths[0]:
                    return (row,) * len(self.lengths)
                return tuple([row if 0 <= age < length else _NOTHING for length in self.lengths])
            else:
                self._sums = tuple([self._summed(now - length, now) for length in self.lengths])
                self._now, self._leaving, self._current = now, 0, NONE
        return self._sums

    def next_leaving(self, now: int) -> int:
        """The first bucket after `now` that finds less in a window; NEVER if none does."""
        if self._is_alone():
            for length in self.lengths:
                if self._newest + length > now:
                    return self._newest + length
            return NEVER
        if now != self._now:
            self.sums(now)
        if self._leaving <= now:
            firsts = ((self._first_after(now - length), length) for length in self.lengths)
            self._leaving = min(first + length for first, length in firsts)
        return min(self._leaving, NEVER)

    def only(self, now: int) -> list[int] | None:
        """The counts of the one bucket there is, where every window that ends at `now` holds it; else None."""
        if self._now == NONE and len(self.counts) == 1 and 0 <= now - self._newest < self.lengths[0]:
            return self.counts[self._newest]
        return None

    def _is_alone(self) -> bool:
        """Whether there is one bucket, so far: it is its own sum."""
        return self._now == NONE and len(self.counts) == 1

    def _move(self, now: int) -> None:
        """Windows end later: what they lose is taken off; no bucket is later than they ended."""
        for length, sums in zip(self.lengths, self._sums, strict=True):
            for bucket in self._between(self._now - length, min(now - length, self._now)):
                for column, count in enumerate(self.counts[bucket]):
                    sums[column] -= count
        self._now, self._current = now, NONE

    def _summed(self, low: int, high: int) -> list[int]:
        inside = [counts for bucket, counts in self.counts.items() if low < bucket <= high]
        return [sum(column) for column in zip(*inside, strict=True)] if inside else [0] * COLUMNS

    def _between(self, low: int, high: int) -> list[int]:
        """Buckets in (low, high]."""
        if high - low < len(self.counts):
            return [bucket for bucket in range(low + 1, high + 1) if bucket in self.counts]
        return [bucket for bucket in self.counts if low < bucket <= high]

    def _first_after(self, low: int) -> int:
        if self._newest - low < len(self.counts):
            return next((bucket for bucket in range(low + 1, self._newest + 1) if bucket in self.counts), NEVER)
        return min((bucket for bucket in self.counts if bucket > low), default=NEVER)

    def __iter__(self) -> Iterator[int]:
        return iter(self.counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Buckets) and self.counts == other.counts and self.lengths == other.lengths

    def to_pack(self) -> list[list[int]] | Raw:
        """[[bucket, counts ...], ...], earliest first; what did not change since it was packed is not packed again."""
        if not self.counts:
            return []
        if len(self.counts) == 1:
            return [[self._newest, *self.counts[self._newest]]]
        if self._closed is None:
            earlier = sorted(self.counts.items())[:-1]
            self._closed = b"".join([_packed(bucket, counts) for bucket, counts in earlier])
        newest = _packed(self._newest, self.counts[self._newest])
        return Raw(list_header(len(self.counts)) + self._closed + newest)


def _packed(bucket: int, counts: list[int]) -> bytes:
    return pack([bucket, *counts])
