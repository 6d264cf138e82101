"""Lines to Redis: how long they wait. What travels on them is tested with the store."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from feature_repo.lines import Lines
from tests.streams.loops import VirtualLoop

TIMEOUT_S = 5.0


class SlowLine:
    """A connection that takes so long for each answer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sent: list[bytes] = []
        self.is_open = True

    async def send_packed_command(self, command: bytes) -> None:
        self.sent.append(command)

    async def read_response(self) -> str:
        await asyncio.sleep(self.seconds)
        return "OK"

    async def disconnect(self, nowait: bool) -> None:
        self.is_open = False


def ask(line: SlowLine, many: int) -> list[Any]:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(Lines(lambda: cast(Any, line), TIMEOUT_S).ask([b"command"] * many, many))
    finally:
        loop.close()


def test_many_answers_may_take_longer_than_one() -> None:
    """A bound for all of them would end a large flush, which is then sent again, for ever."""
    line = SlowLine(TIMEOUT_S - 1)
    assert ask(line, 10) == ["OK"] * 10
    assert (len(line.sent), line.is_open) == (10, True)


def test_an_answer_that_does_not_come_ends_the_line() -> None:
    line = SlowLine(TIMEOUT_S + 1)
    with pytest.raises(TimeoutError):
        ask(line, 1)
    assert not line.is_open
