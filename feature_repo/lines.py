"""Connections to Redis on which several commands travel at once, and the next is packed while Redis is at the last.

redis-py makes them; its client would pack all commands first, and spends more on one than Redis does.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError


class Lines:
    """As many connections as are asked by at once. One that failed is not used again, nor are those beside it."""

    def __init__(self, make: Callable[[], AbstractConnection], timeout_s: float) -> None:
        self._make = make
        self._timeout_s = timeout_s
        self._free: list[AbstractConnection] = []

    async def ask(self, commands: Iterable[bytes], many: int) -> list[Any]:
        """The answers to so many packed commands, in their order; an error that Redis answers is an answer.

        Raises TimeoutError, and what redis-py raises.
        """
        line = self._free.pop() if self._free else self._make()
        try:
            async with asyncio.timeout(self._timeout_s):
                for command in commands:
                    await line.send_packed_command(command)
                answers = [await _answer(line) for _ in range(many)]
        except BaseException:
            # what was not read yet is nobody's, and those beside it have probably lost their Redis, too
            await self.close()
            await line.disconnect(nowait=True)
            raise
        self._free.append(line)
        return answers

    async def close(self) -> None:
        """Let go of the connections that nobody asks by."""
        free, self._free = self._free, []
        for line in free:
            await line.disconnect(nowait=True)


async def _answer(line: AbstractConnection) -> Any:
    try:
        return await line.read_response()
    except ResponseError as error:
        return error
