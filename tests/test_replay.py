"""A replay keeps order and pace, sets the log's clock, and can be held and stopped."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from feature_repo.events import Behavior, Product
from feature_repo.views import DAY_MS, HOUR_MS, MINUTE_MS
from serving.datasets import online_retail
from streams.replay import Replayed, Replayer, Speed, beats

START = 1_322_265_600_000
END = START + 3 * HOUR_MS


@dataclass
class Log:
    """What was sent, in order: heartbeats as times, single records, bulks as lists."""

    sent: list[int | Product | Behavior | list[Product | Behavior]] = field(default_factory=list)
    flushes: int = 0

    def publish(self, record: Product | Behavior) -> None:
        self.sent.append(record)

    def publish_many(self, records: Iterable[Product | Behavior]) -> int:
        self.sent.append(list(records))
        return 1

    def heartbeat(self, event_time: int) -> None:
        self.sent.append(event_time)

    def flush(self) -> None:
        self.flushes += 1


@dataclass
class Clock:
    """Time that passes only by waiting."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def wait(self, stopped: threading.Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def purchase(number: int, minute: float) -> Behavior:
    return Behavior(
        type="purchase", event_id=f"e{number}", product_id="A", event_time=START + round(minute * MINUTE_MS)
    )


def events() -> list[Product | Behavior]:
    return [
        purchase(0, 0.5),
        purchase(1, 0.9),
        Product(product_id="A", event_time=START + 2 * MINUTE_MS),
        purchase(2, 130),
    ]


def replayer(log: Log, speed: Speed, clock: Clock) -> Replayer:
    return Replayer(log, speed, clock, clock.wait)


@pytest.mark.parametrize(
    ("clock_ms", "minute_ms", "expected"),
    [
        (START, START, []),
        (START, START + MINUTE_MS, [START + MINUTE_MS]),
        (START, START + HOUR_MS, [START + HOUR_MS]),
        (
            START + 5,
            START + 2 * HOUR_MS + MINUTE_MS,
            [START + HOUR_MS, START + 2 * HOUR_MS, START + 2 * HOUR_MS + MINUTE_MS],
        ),
    ],
)
def test_beats(clock_ms: int, minute_ms: int, expected: list[int]) -> None:
    assert list(beats(clock_ms, minute_ms)) == expected


def test_events_and_heartbeats_go_in_order_and_the_end_has_one() -> None:
    log = Log()
    told = events()
    done = replayer(log, Speed(events_per_s=100), Clock()).replay(told, START, END)
    hours = [START + HOUR_MS, START + 2 * HOUR_MS]
    assert log.sent == [
        told[0],
        told[1],
        START + 2 * MINUTE_MS,
        told[2],
        *hours,
        START + 130 * MINUTE_MS,
        told[3],
        END,
    ]
    assert (done, log.flushes) == (Replayed(4, END, True), 1)


def test_without_a_pace_a_minute_is_one_message() -> None:
    log, clock = Log(), Clock()
    told = events()
    replayer(log, Speed(), clock).replay(told, START, END)
    assert log.sent[:3] == [told[:2], START + 2 * MINUTE_MS, told[2]]
    assert clock.waits == []


def test_pace_by_count() -> None:
    clock = Clock()
    replayer(Log(), Speed(events_per_s=10), clock).replay(events(), START, END)
    assert clock.waits == pytest.approx([0.1, 0.1, 0.1])


def test_pace_by_event_time() -> None:
    clock = Clock()
    replayer(Log(), Speed(factor=60), clock).replay(events(), START, END)
    assert clock.now == pytest.approx(130)
    assert clock.waits[0] == pytest.approx(0.5)


def test_progress_tells_count_total_and_event_time() -> None:
    told: list[tuple[int, int, int]] = []
    replayer(Log(), Speed(events_per_s=10), Clock()).replay(events(), START, END, lambda *at: told.append(at))
    assert told[-1] == (4, 4, START + 130 * MINUTE_MS)
    assert [count for count, _, _ in told] == [1, 2, 3, 4]


def test_a_stopped_replay_closes_the_minute_it_began() -> None:
    log, clock = Log(), Clock()
    running = replayer(log, Speed(events_per_s=10), clock)

    def stop_after(count: int, total: int, event_ms: int) -> None:
        if count == 3:
            running.stop()

    done = running.replay(events(), START, END, stop_after)
    assert done == Replayed(3, START + 3 * MINUTE_MS, False)
    assert log.sent[-1] == START + 3 * MINUTE_MS


def test_a_pause_holds_and_is_not_caught_up() -> None:
    log, clock = Log(), Clock()
    running = replayer(log, Speed(events_per_s=10), clock)
    held, sent = threading.Event(), []

    def pause_after(count: int, total: int, event_ms: int) -> None:
        sent.append(count)
        if count == 2:
            running.pause()
            held.set()

    worker = threading.Thread(target=lambda: running.replay(events(), START, END, pause_after))
    worker.start()
    assert held.wait(5)
    worker.join(0.05)
    assert worker.is_alive()
    assert sent == [1, 2]
    clock.now += 100
    running.resume()
    worker.join(5)
    assert not worker.is_alive()
    assert sent == [1, 2, 3, 4]
    assert clock.waits == pytest.approx([0.1, 0.1, 0.1])


def test_prime_sends_the_catalog_then_the_past_then_the_clock() -> None:
    log = Log()
    past: Sequence[Behavior] = [purchase(number, number) for number in range(3)]
    catalog = [Product(product_id="A", event_time=START)]
    told: list[tuple[int, int, int]] = []
    count = replayer(log, Speed(), Clock()).prime(catalog, past, START + DAY_MS, lambda *at: told.append(at))
    assert (count, log.sent) == (4, [catalog, past, START + DAY_MS])
    assert log.flushes == 1
    assert told[-1] == (4, 4, START + DAY_MS)


def test_the_last_week_of_the_slice() -> None:
    history, log = online_retail.load(), Log()
    week = list(history.events(history.split_ms, history.end_ms))
    done = replayer(log, Speed(), Clock()).replay(week, history.split_ms, history.end_ms)
    assert done == Replayed(len(week), history.end_ms, True)
    beaten = [item for item in log.sent if isinstance(item, int)]
    assert beaten == sorted(set(beaten))
    assert max(b - a for a, b in pairwise(beaten)) <= HOUR_MS
