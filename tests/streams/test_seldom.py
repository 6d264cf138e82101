"""What is logged again and again is read once in a while."""

import logging
import time

import pytest

from streams import seldom
from streams.seldom import REMEMBERED, SILENCE_S, Seldom


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(seldom, "time", made)
    return made


def passes(few: Seldom, message: str, *args: object) -> bool:
    return few.filter(logging.LogRecord("n", logging.ERROR, __file__, 1, message, args, None))


def test_the_same_message_passes_once_in_a_while(clock: Clock) -> None:
    few = Seldom()
    assert passes(few, "%s refused (after %dms in state CONNECT)", "kafka:9092", 0)
    clock.now += SILENCE_S - 1
    assert not passes(few, "%s refused (after %dms in state CONNECT, 3 suppressed)", "kafka:9092", 2)
    assert passes(few, "%s refused (after %dms in state CONNECT)", "kafka:9093", 0)
    clock.now += 1
    assert passes(few, "%s refused (after %dms in state CONNECT)", "kafka:9092", 0)


def test_what_is_remembered_is_bounded_and_the_oldest_goes(clock: Clock) -> None:
    few = Seldom()
    for number in range(REMEMBERED + 1):
        assert passes(few, "message %d", number)
    assert passes(few, "message 0")
    assert not passes(few, f"message {REMEMBERED}")


def test_by_the_clock_that_never_goes_back() -> None:
    few, before = Seldom(), time.monotonic()
    assert passes(few, "once")
    assert not passes(few, "once") or time.monotonic() - before >= SILENCE_S
