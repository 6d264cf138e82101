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

        Raises TimeoutError when the next one is not taken or not answered in time, and what redis-py raises.
        """
        line = self._free.pop() if self._free else self._make()
        clock = asyncio.get_running_loop().time
        answers: list[Any] = []
        try:
            # a bound for each: many of them take as long as they take, and would be sent again for ever
            async with asyncio.timeout(self._timeout_s) as limit:
                for command in commands:
                    await line.send_packed_command(command)
                    limit.reschedule(clock() + self._timeout_s)
                while len(answers) < many:
                    answers.append(await _answer(line))
                    limit.reschedule(clock() + self._timeout_s)
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
