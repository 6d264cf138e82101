"""What stands in an owned partition of `result-sets` and `rankings`: the topic is the table. Pure."""

import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import ResultSet
from streams.records import EPOCH_BITS, Headers, decode_ranking
from streams.standings import Standing, standing_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """A record of `rankings` as it was read back."""

    partition: int
    result_set_id: str
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class Tables:
    """What is known of one owned partition: the last record of every key, until both topics were read to the end.

    `end` is that of `result-sets` when it was assigned, `committed` how far an earlier owner had come; from then on
    `epoch` and `counter` number what this owner publishes.
    """

    partition: int
    end: int
    committed: int
    generation: int
    read_to: int = 0
    registrations: dict[str, tuple[ResultSet, bytes] | None] = field(default_factory=dict)
    rankings: dict[str, bytes | None] = field(default_factory=dict)
    highest_epoch: int = 0
    rankings_read: bool = False
    active: bool = False
    epoch: int = 0
    counter: int = 0

    @property
    def are_read(self) -> bool:
        """Whether both topics were read to where they ended at the assignment."""
        return self.rankings_read and self.read_to >= self.end

    def next_version(self) -> int:
        """(epoch, counter) in one integer, above every one before."""
        self.counter += 1
        return self.epoch << EPOCH_BITS | self.counter

    def next_versions(self, count: int) -> NDArray[np.int64]:
        """So many of them, rising."""
        first = self.next_version()
        self.counter += count - 1
        return np.arange(first, first + count)


def standing_in(result_set_id: str, value: bytes) -> Standing:
    """What a record of `rankings` leaves standing. One that nobody can read is replaced by what should."""
    try:
        return standing_of(decode_ranking(value))
    except (ValueError, KeyError, TypeError) as error:
        log.error("rankings: the record of %s cannot be read and is replaced: %r", result_set_id, error)
        return Standing((), np.empty(0, np.float32), "", False, contested=True)
