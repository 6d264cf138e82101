"""The last minute of `feature-changes`, by arrival: what a read of the store cannot see yet. Pure.

The product side emits a row before it writes it, and writes it within twenty seconds or emits it again. So whoever
reads a row and then takes anything newer from this minute has missed nothing.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from streams.records import Change, decode_change

KEEP_MS = 60_000


class Minute:
    """Rows as they arrived, still packed, and the hashes of the entities that somebody depends on."""

    def __init__(self) -> None:
        self._arrived: deque[tuple[int, Sequence[int], Sequence[bytes]]] = deque()
        self._watched: set[int] = set()

    def add(self, now: int, hashes: Sequence[int], rows: Sequence[bytes]) -> Iterator[Change]:
        """Remember rows that arrived at `now` (monotonic ms); yields those of watched entities, decoded."""
        self._arrived.append((now, hashes, rows))
        while self._arrived[0][0] < now - KEEP_MS:
            self._arrived.popleft()
        return self._hits(hashes, rows, self._watched)

    def watch(self, hashes: Iterable[int]) -> Iterator[Change]:
        """Watch entities from now on; yields what arrived of them in the last minute, oldest first."""
        new = set(hashes)
        self._watched |= new
        for _, arrived, rows in list(self._arrived):
            yield from self._hits(arrived, rows, new)

    def unwatch(self, hashes: Iterable[int]) -> None:
        self._watched -= set(hashes)

    @staticmethod
    def _hits(hashes: Sequence[int], rows: Sequence[bytes], wanted: set[int]) -> Iterator[Change]:
        for number, row in zip(hashes, rows, strict=True):
            if number in wanted:
                yield decode_change(row)
