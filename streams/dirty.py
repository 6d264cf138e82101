"""Which live sets must be looked at, since when, and why. Pure."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.places import Numbers, grow
from streams.records import Cause
from streams.result_sets import LiveSets


class Since(NamedTuple):
    """When a change came about: Kafka timestamp of the event behind it (ms UTC), and when this worker heard of it
    (monotonic ms); 0 where there is none."""

    kafka: int = 0
    heard: int = 0


class Dirty:
    """Numbers of dirty sets in the order in which they became dirty; arrays are by number of the set.

    Rows to score are flags of their places; `whole` says all of them. A set keeps its first cause until it is taken.
    """

    def __init__(self, sets: LiveSets, capacity: int = 64) -> None:
        self._sets = sets
        self._queue: list[Numbers] = []
        #: whether numbers in the queue may stand there twice: a dirty set went, and its number was given again
        self._doubled = False
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self._dirty = np.zeros(capacity, bool)
        self.whole = np.zeros(capacity, bool)
        #: the row that made it dirty, None for a registration or a model; and since when, i64[n, 2], as `Since`
        self.causes = np.full(capacity, None, object)
        self.cause_times = np.zeros((capacity, len(Since._fields)), np.int64)

    def __bool__(self) -> bool:
        return any(self._dirty[numbers].any() for numbers in self._queue)

    def touch(self, numbers: Numbers, cause: Cause | None, since: Since) -> None:
        """Look at these sets, each named once."""
        if len(self._sets.serials) > len(self._dirty):
            grow(self, self._allocate, len(self._sets.serials))
        fresh = numbers[~self._dirty[numbers]]
        if len(fresh):
            self._dirty[fresh] = True
            self.causes[fresh], self.cause_times[fresh] = cause, since
            self._queue.append(fresh)

    def touch_rows(self, places: Numbers, cause: Cause, since: Since) -> None:
        """Score these candidates, of one set each."""
        self._sets.places.touched[places] = True
        self.touch(self._sets.places.sets[places].astype(np.int64), cause, since)

    def touch_whole(self, numbers: Numbers, cause: Cause | None, since: Since) -> None:
        """Score every candidate of these sets."""
        self.touch(numbers, cause, since)
        self.whole[numbers] = True

    def forget(self, number: int) -> None:
        """The set is gone."""
        if number < len(self._dirty) and self._dirty[number]:
            self._clean(np.array([number]))
            self._doubled = True

    def waiting(self) -> Numbers:
        """Numbers of the dirty sets, the first that became dirty first."""
        if not self._queue:
            return np.empty(0, np.int64)
        numbers = self._queue[0] if len(self._queue) == 1 else np.concatenate(self._queue)
        numbers = numbers[self._dirty[numbers]]
        if self._doubled:
            _, first = np.unique(numbers, return_index=True)
            numbers = numbers[np.sort(first)]
            self._doubled = False
        self._queue = [numbers] if len(numbers) else []
        return numbers

    def take(self, numbers: Numbers) -> tuple[NDArray[np.object_], Numbers]:
        """These sets are looked at now: their causes and the causes' times."""
        causes, times = self.causes[numbers], self.cause_times[numbers]
        self._clean(numbers)
        left = [some[self._dirty[some]] for some in self._queue]
        self._queue = [some for some in left if len(some)]
        return causes, times

    def _clean(self, numbers: Numbers) -> None:
        self._dirty[numbers] = self.whole[numbers] = False
        self.causes[numbers] = None
