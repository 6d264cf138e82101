"""The last minute of `feature-changes`, by arrival: what a read of the store cannot see yet. Pure.

The product side emits a row before it writes it, and writes it within twenty seconds or emits it again. So whoever
reads a row and then takes anything newer from this minute has missed nothing.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.records import Change, decode_change

KEEP_MS = 60_000
#: rows that are sorted by hash together
BLOCK_ROWS = 8_192
#: rows up to which a Python set tests hashes faster than a bitmap
_FEW = 50

Hashes = NDArray[np.uint64]


class Watched:
    """Hashes of the entities that somebody depends on, and a bitmap that most others are not in."""

    def __init__(self, bits: int = 16) -> None:
        self._hashes: set[int] = set()
        self._bitmap = np.zeros(1 << bits, bool)
        #: bits of the bitmap that stand for hashes which are watched, or were
        self._marked = 0

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, hashes: set[int]) -> None:
        new = hashes - self._hashes
        self._hashes |= new
        self._marked += len(new)
        if 8 * self._marked > len(self._bitmap):
            # one hash in eight of what is not watched passes, at most
            self._bitmap = np.zeros(max(len(self._bitmap), 1 << (16 * len(self._hashes)).bit_length()), bool)
            self._marked, new = len(self._hashes), self._hashes
        self._bitmap[self._places(np.fromiter(new, np.uint64, len(new)))] = True

    def remove(self, hashes: Iterable[int]) -> None:
        self._hashes.difference_update(hashes)

    def places(self, hashes: Hashes) -> list[int]:
        """Where in `hashes` watched ones stand."""
        if len(hashes) < _FEW:
            return [place for place, number in enumerate(hashes.tolist()) if number in self._hashes]
        likely = np.flatnonzero(self._bitmap[self._places(hashes)])
        found = zip(likely.tolist(), hashes[likely].tolist(), strict=True)
        return [place for place, number in found if number in self._hashes]

    def _places(self, hashes: Hashes) -> NDArray[np.int64]:
        return (hashes & np.uint64(len(self._bitmap) - 1)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows in the order in which they arrived, the last at `newest` (monotonic ms), and the places of sorted hashes."""

    newest: int
    rows: Sequence[bytes]
    hashes: Hashes
    places: NDArray[np.int64]

    def of(self, wanted: Hashes) -> list[int]:
        """Places of the rows that have one of these hashes, in order of arrival."""
        first = np.searchsorted(self.hashes, wanted, "left")
        after = np.searchsorted(self.hashes, wanted, "right")
        found = [
            self.places[begin:end] for begin, end in zip(first.tolist(), after.tolist(), strict=True) if begin < end
        ]
        return sorted(np.concatenate(found).tolist()) if found else []


class Minute:
    """Rows as they arrived, still packed, and the hashes of the entities that somebody depends on."""

    def __init__(self) -> None:
        #: what arrived last, by message or by some of them; then a block, to be searched without looking at every row
        self._latest: deque[tuple[int, Hashes, Sequence[bytes]]] = deque()
        self._latest_rows = 0
        self._blocks: deque[_Block] = deque()
        self.watched = Watched()

    def add(self, now: int, hashes: Hashes, rows: Sequence[bytes]) -> Iterator[Change]:
        """Remember rows that arrived at `now` (monotonic ms); yields those of watched entities, decoded."""
        self._latest.append((now, hashes, rows))
        self._latest_rows += len(rows)
        while self._latest[0][0] < now - KEEP_MS:
            self._latest_rows -= len(self._latest.popleft()[2])
        while self._blocks and self._blocks[0].newest < now - KEEP_MS:
            self._blocks.popleft()
        if self._latest_rows >= BLOCK_ROWS:
            self._seal(now)
        return (decode_change(rows[place]) for place in self.watched.places(hashes))

    def _seal(self, now: int) -> None:
        hashes = np.concatenate([hashes for _, hashes, _ in self._latest])
        places = np.argsort(hashes, kind="stable")
        rows = [row for _, _, some in self._latest for row in some]
        self._blocks.append(_Block(now, rows, hashes[places], places))
        self._latest.clear()
        self._latest_rows = 0

    def watch(self, hashes: Iterable[int]) -> Iterator[Change]:
        """Watch entities from now on; yields what arrived of them in the last minute, oldest first."""
        new = set(hashes)
        self.watched.add(new)
        wanted = np.fromiter(sorted(new), np.uint64, len(new))
        for block in list(self._blocks):
            for place in block.of(wanted):
                yield decode_change(block.rows[place])
        for _, arrived, rows in list(self._latest):
            for place in np.flatnonzero(np.isin(arrived, wanted)).tolist():
                yield decode_change(rows[place])

    def unwatch(self, hashes: Iterable[int]) -> None:
        """Nobody depends on these entities any more."""
        self.watched.remove(hashes)
