"""An event loop whose clock moves only when nobody has anything to do: hours pass in milliseconds, hangs are found."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

#: how long a thread may take before a loop that waits for nothing else calls it a hang
THREAD_S = 10.0


class EverythingWaits(AssertionError):
    """No callback is ready, none is scheduled, and no thread answers: the program under test hangs."""


class _Selector(selectors.DefaultSelector):
    """Asks for what is there already and moves the loop's clock instead of waiting."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(THREAD_S if timeout is None else 0)
        if not found:
            if timeout is None:
                raise EverythingWaits("nothing is ready and nothing is scheduled")
            self.loop.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 1,000 s and jumps from one scheduled callback to the next."""

    def __init__(self) -> None:
        self.now = 1_000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


async def settle(rounds: int = 50) -> None:
    """Let every task go on until it waits for something that only time or the test brings."""
    for _ in range(rounds):
        await asyncio.sleep(0)
