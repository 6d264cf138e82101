"""Rows of the store as the ranking side reads them: in bulk, patiently, and again when a read took too long."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from feature_repo.row_store import RowStore, Space, StoreUnavailable

log = logging.getLogger(__name__)

#: a read of rows that took longer is repeated: the minute might not cover it
READ_LIMIT_MS = 20_000
READ_ROWS = 500
RETRY_S = 0.2


class StoredRows:
    """The readers' blobs of the views; `spaces` says where they are, content rows once a bundle is in force."""

    def __init__(self, store: RowStore, spaces: Mapping[str, Space], monotonic_ms: Callable[[], int]) -> None:
        self._store = store
        self._spaces = spaces
        self._monotonic_ms = monotonic_ms

    async def read(self, view: str, entities: Iterable[str]) -> list[tuple[str, bytes]]:
        """(entity, blob) of the rows there are. Waits for a store that is away."""
        names = sorted(entities)
        found: list[tuple[str, bytes]] = []
        for start in range(0, len(names), READ_ROWS):
            some = names[start : start + READ_ROWS]
            blobs = await self._read_in_time(view, some)
            found += [(name, blob) for name, blob in zip(some, blobs, strict=True) if blob is not None]
        return found

    async def read_now(self, view: str, entities: Sequence[str]) -> list[bytes | None] | None:
        """The rows as they are; None while the store is away, or while no bundle tells where they are."""
        if view not in self._spaces:
            return None
        try:
            return await self._store.read(self._spaces[view], entities)
        except StoreUnavailable:
            return None

    async def _read_in_time(self, view: str, entities: Sequence[str]) -> list[bytes | None]:
        while True:
            begun = self._monotonic_ms()
            try:
                blobs = await self._store.read(self._spaces[view], entities)
            except StoreUnavailable as error:
                log.warning("waiting for the store: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            if self._monotonic_ms() - begun <= READ_LIMIT_MS:
                return blobs
