"""Log messages that say the same again and again, once in a while: librdkafka tells of every connection refused."""

import logging
import time

#: a message is not logged again within this
SILENCE_S = 10.0
#: how many different messages are remembered
REMEMBERED = 100
#: what follows differs between messages that are alike: how long a connection was tried, how many were left out
_DETAILS = " (after "


class Seldom(logging.Filter):
    """Passes a message on if it was not passed on lately."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text, now = record.getMessage().partition(_DETAILS)[0], time.monotonic()
        if now - self._passed.get(text, -SILENCE_S) < SILENCE_S:
            return False
        self._passed.pop(text, None)
        if len(self._passed) >= REMEMBERED:
            del self._passed[next(iter(self._passed))]
        self._passed[text] = now
        return True
