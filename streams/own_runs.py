"""Which offsets of a partition this writer's own records have, by their acknowledgements. Pure."""

from collections import deque


class OwnRuns:
    """Runs of records that need not be read back; added and passed in the order of their offsets."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, int]] = deque()

    def add(self, offset: int, count: int) -> None:
        """So many records from an offset on; a negative one says that nobody knows where they are."""
        if offset < 0:
            return
        begin = self._runs.pop()[0] if self._runs and self._runs[-1][1] == offset else offset
        self._runs.append((begin, offset + count))

    def passed(self, offset: int) -> int:
        """The first offset from this one on that is not known to be own. What lies below it is forgotten."""
        while self._runs and self._runs[0][0] <= offset:
            offset = max(offset, self._runs.popleft()[1])
        return offset
