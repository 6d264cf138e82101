"""How far a peer of ingest is: told from the first record to the last, without the time that its start takes."""

import time
from dataclasses import dataclass

from benchmarks.telling import tell


@dataclass(slots=True)
class Counting:
    """Counts records until `total`; the first chunk of records starts the clock and is not counted into the rate."""

    total: int
    count: int = 0
    _begun_at: float = 0.0
    _begun_with: int = 0

    def add(self, records: int) -> bool:
        """So many more; True when this was the last."""
        self.count += records
        if not self._begun_at:
            self._begun_at, self._begun_with = time.perf_counter(), self.count
        if self.count < self.total:
            return False
        seconds = time.perf_counter() - self._begun_at
        tell(rate=(self.count - self._begun_with) / seconds)
        return True
