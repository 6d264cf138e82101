"""The repair walk: live sets compared with the store, slowly and for ever. What it finds must be nothing.

Values in the store may be newer than what a worker knows for as long as their change is on the way; values that still
are after a minute were missed. They are taken then, and counted: the count bounds the damage if a rule was broken.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from streams.candidate_rows import PRODUCT_VIEWS
from streams.minute import KEEP_MS
from streams.records import Change
from streams.reranking import Reranker

log = logging.getLogger(__name__)

#: between two sets
STEP_S = 0.5


class Suspects:
    """Rows whose values in the store are newer, and since when (monotonic ms) that is known. Pure."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], tuple[int, int]] = {}

    def see(self, now: int, view: str, compared: Iterable[tuple[str, int | None]]) -> Iterator[str]:
        """(entity, version known here if the store is ahead of it, else None) of one view.

        Yields the entities of which nothing newer has come for a minute, though the store had it.
        """
        for entity, known in compared:
            name = (view, entity)
            if known is None:
                self._since.pop(name, None)
                continue
            since, version = self._since.setdefault(name, (now, known))
            if version != known:
                self._since[name] = (now, known)  # news did come, and the store is ahead again: a busy row
            elif now - since > KEEP_MS:
                del self._since[name]
                yield entity


class RepairWalk:
    """One set after the other. `read` gives the store's blobs, or None while the store is away."""

    def __init__(
        self,
        reranker: Callable[[], Reranker],
        read: Callable[[str, Sequence[str]], Awaitable[list[bytes | None] | None]],
        take: Callable[[Change], None],
        count: Callable[[str, int], None],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self._reranker = reranker
        self._read = read
        self._take = take
        self._count = count
        self._monotonic_ms = monotonic_ms
        self._suspects = Suspects()

    async def run(self) -> None:
        """Walk for ever."""
        while True:
            for result_set_id in list(self._reranker().sets.by_id):
                await asyncio.sleep(STEP_S)
                await self.look_at(result_set_id)
            await asyncio.sleep(STEP_S)

    async def look_at(self, result_set_id: str) -> None:
        """Compare the rows of one set's candidates, and take what was missed."""
        live = self._reranker().sets.by_id.get(result_set_id)
        if live is None or not self._reranker().sets.loaded[live.number]:
            return
        products = self._reranker().sets.products(live)
        for view in PRODUCT_VIEWS:
            blobs = await self._read(view.name, products)
            rows = self._reranker().rows
            if blobs is None:
                return
            found = {product: blob for product, blob in zip(products, blobs, strict=True) if blob is not None}
            slots = {product: rows.slots[product] for product in found if product in rows.slots}
            compared = [
                (product, rows.version(view.name, slot) if rows.is_behind(view.name, slot, found[product]) else None)
                for product, slot in slots.items()
            ]
            for product in self._suspects.see(self._monotonic_ms(), view.name, compared):
                log.error("repaired: %s of %s was behind the store for a minute", view.name, product)
                self._count(view.name, 1)
                self._take(Change(view.name, product, found[product]))
