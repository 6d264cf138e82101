"""A history sent through Kafka again, in its own order and time, at a chosen speed, with the log's clock.

Each partition of `behavior` gets a heartbeat whenever the replayed clock enters a minute in which something is sent,
one at each full hour in between, and at the end all get the same. Workers must run with `heartbeats=external`.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Protocol

from feature_repo.events import Behavior, Product
from feature_repo.views import HOUR_MS, MINUTE_MS

#: records that are prepared together while priming
PRIME_BATCH: Final = 10_000

#: called with (events sent, events in all, event time in ms)
Progress = Callable[[int, int, int], None]


class Sink(Protocol):
    """What a replay needs of `streams.client.Publisher`."""

    def publish(self, record: Product | Behavior) -> None: ...

    def publish_many(self, records: Iterable[Product | Behavior]) -> int: ...

    def heartbeat(self, event_time: int) -> None: ...

    def flush(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Speed:
    """Events a second, or `factor` times as fast as it happened; with neither, as fast as the broker takes it."""

    events_per_s: float | None = None
    factor: float | None = None

    @property
    def is_paced(self) -> bool:
        return self.events_per_s is not None or self.factor is not None

    def due_s(self, sent: int, event_ms: int) -> float:
        """Seconds from the start to the next event, after `sent` events and `event_ms` of event time."""
        by_count = sent / self.events_per_s if self.events_per_s else 0.0
        by_time = event_ms / 1000 / self.factor if self.factor else 0.0
        return max(by_count, by_time)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was sent: events, and the time (ms) of the closing heartbeat. Not `complete`: it was stopped."""

    events: int
    closing_ms: int
    complete: bool


class Replayer:
    """Sends histories. `pause`, `resume` and `stop` may be called from another thread or a signal handler."""

    def __init__(
        self,
        sink: Sink,
        speed: Speed,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._sink = sink
        self._speed = speed
        self._clock = clock
        self._wait = wait
        self._stopped = threading.Event()
        self._running = threading.Event()
        self._running.set()

    def prime(
        self,
        catalog: Iterable[Product],
        behavior: Sequence[Behavior],
        until_ms: int,
        progress: Progress = lambda sent, total, event_ms: None,
    ) -> int:
        """What was before the replay, in bulk messages, then the clock set to `until_ms`; how many events."""
        products = tuple(catalog)
        total = len(products) + len(behavior)
        self._sink.publish_many(products)
        sent = len(products)
        for start in range(0, len(behavior), PRIME_BATCH):
            batch = behavior[start : start + PRIME_BATCH]
            self._sink.publish_many(batch)
            sent += len(batch)
            progress(sent, total, batch[-1].event_time)
        self._sink.heartbeat(until_ms)
        self._sink.flush()
        progress(total, total, until_ms)
        return total

    def replay(
        self,
        events: Sequence[Product | Behavior],
        start_ms: int,
        end_ms: int,
        progress: Progress = lambda sent, total, event_ms: None,
    ) -> Replayed:
        """Events of [start_ms, end_ms) in order of event time, and a closing heartbeat at `end_ms`.

        When stopped, the closing heartbeat comes after the last minute that was begun.
        """
        began = self._clock()
        clock_ms, sent = start_ms, 0
        for minute_ms, group in groupby(events, key=_minute):
            if self._stopped.is_set():
                break
            for beat in beats(clock_ms, minute_ms):
                self._sink.heartbeat(beat)
            clock_ms = minute_ms
            for parcel in self._parcels(group):
                began += self._await_turn(began, sent, parcel[0].event_time - start_ms)
                if self._stopped.is_set():
                    break
                self._send(parcel)
                sent += len(parcel)
                progress(sent, len(events), parcel[-1].event_time)
        complete = sent == len(events)
        closing_ms = end_ms if complete else min(clock_ms + MINUTE_MS, end_ms)
        for beat in beats(clock_ms, closing_ms):
            self._sink.heartbeat(beat)
        self._sink.flush()
        return Replayed(sent, closing_ms, complete)

    def pause(self) -> None:
        """Hold before the next event until `resume` or `stop`."""
        self._running.clear()

    def resume(self) -> None:
        """Go on; the time of the pause is not caught up."""
        self._running.set()

    def stop(self) -> None:
        """End after the event in hand, with a closing heartbeat."""
        self._stopped.set()
        self._running.set()

    def _parcels(self, minute: Iterable[Product | Behavior]) -> Iterator[tuple[Product | Behavior, ...]]:
        """Single events when paced; without a pace a minute goes as one."""
        if self._speed.is_paced:
            return ((event,) for event in minute)
        return iter((tuple(minute),))

    def _await_turn(self, began: float, sent: int, event_ms: int) -> float:
        """Wait until the next event is due; how many seconds of it were a pause."""
        before = self._clock()
        self._running.wait()
        paused = self._clock() - before
        early = began + paused + self._speed.due_s(sent, event_ms) - self._clock()
        if early > 0:
            self._wait(self._stopped, early)
        return paused

    def _send(self, parcel: Sequence[Product | Behavior]) -> None:
        if len(parcel) == 1:
            self._sink.publish(parcel[0])
        else:
            self._sink.publish_many(parcel)


def beats(clock_ms: int, later_ms: int) -> Iterator[int]:
    """The heartbeats that lead the log's clock from `clock_ms` to a later time: full hours, then it."""
    yield from range((clock_ms // HOUR_MS + 1) * HOUR_MS, later_ms, HOUR_MS)
    if later_ms > clock_ms:
        yield later_ms


def _minute(event: Product | Behavior) -> int:
    return event.event_time // MINUTE_MS * MINUTE_MS
