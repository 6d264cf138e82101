"""Wait until the engine is quiet, then compare everything that it published and stored with the replay."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from feature_repo.row_store import Marker, RowStore, Space, StoreUnavailable
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, PRODUCT_CONTENT, USER_BEHAVIOR, View
from serving.preprocess import MediaLimits
from serving.requests import Scorer
from serving.settings import ServingSettings
from streams import topics
from streams.client import Connection
from streams.dead_letters import decode_dead_letter
from streams.media import MediaError, MediaStore
from streams.oracle.comparing import compare, compare_letters, compare_row, entities, place_of
from streams.oracle.expecting import Expectation, Expectations, Fetch, Nothing
from streams.oracle.log import Fetched, LogReader, Part, drain
from streams.oracle.replaying import INPUTS, Place, Replay
from streams.oracle.report import VerifyReport
from streams.records import (
    BEHAVIOR,
    CATALOG,
    CONTENT,
    DEAD_LETTER,
    MODELS,
    RANKINGS,
    Ranking,
    decode_headers,
    decode_ranking,
)
from streams.records import (
    USER_BEHAVIOR as USER_TOPIC,
)
from streams.settings import Settings

#: how often the engine is looked at
LOOK_S = 0.1
#: with an engine that never rests, waiting ends after this many times the time without progress
PATIENCE = 10
READ_ROWS = 500

#: what is being done, how much of it is done, how much there is
Progress = Callable[[str, int, int], None]

#: the view that each topic's markers belong to
_VIEWS = {CATALOG: PRODUCT_CATALOG, BEHAVIOR: PRODUCT_BEHAVIOR, USER_TOPIC: USER_BEHAVIOR, CONTENT: PRODUCT_CONTENT}


def verify(
    settings: Settings,
    *,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
    repository: Path | None = None,
) -> VerifyReport:
    """Compare until all is equal, or until nothing has moved for `timeout_s`. `repository` holds the models.

    Raises Unreachable and TopicsDiffer about the broker, BundleMismatch and ScorerUnavailable about the models. Runs an
    event loop of its own: from async code, call it in a thread.
    """
    # torch takes seconds to import
    from serving.model.bundle import REPOSITORY
    from serving.model.inprocess import InProcessScorer

    ids = topics.check(settings)
    limits = ServingSettings().media_limits
    scorer = InProcessScorer(repository or REPOSITORY, limits)
    media = MediaStore(settings.media, settings.media_hosts)
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        connection = Connection.from_settings(settings)
        read = {name: ids.partitions[name] for name in (*INPUTS, RANKINGS, DEAD_LETTER)}
        log = stack.enter_context(LogReader(connection, read))
        internal = {name: ids.partitions[name] for name in (USER_TOPIC, CONTENT)}
        tails = stack.enter_context(LogReader(connection, internal, tail=True))
        store = RowStore(settings.redis.get_secret_value())
        stack.callback(lambda: runner.run(store.close()))
        verification = Verification(settings, ids, scorer, _fetching(media), limits)
        return _Waiting(runner, _Doors(log, tails, store), verification, timeout_s, progress or _silent).run()


class Verification:
    """What was read of the log so far, and how it compares."""

    def __init__(
        self, settings: Settings, ids: topics.TopicIds, scorer: Scorer, fetch: Fetch, media_limits: MediaLimits
    ) -> None:
        self._ids = ids
        self._expectations = Expectations(scorer, fetch, media_limits)
        self._expected: dict[str, Expectation] | None = None
        self.replay = Replay(ids.partitions, settings.limits, settings.media_hosts)
        #: newest record by result set id, None for a null
        self.rankings: dict[str, Ranking | None] = {}
        self.letters: dict[Place, set[str]] = {}
        self._versions: dict[str, int] = {}
        #: sets whose last record is older than one before it
        self._overtaken: dict[str, str] = {}

    def take(self, fetched: Fetched) -> None:
        """A record of an input, of `rankings` or of `dead-letter`."""
        message = fetched.message
        if message.topic == RANKINGS:
            self._rank(fetched)
        elif message.topic == DEAD_LETTER:
            self._bury(fetched)
        else:
            self._expected = None
            self.replay.take(message)

    def _rank(self, fetched: Fetched) -> None:
        message = fetched.message
        key = (message.key or b"").decode(errors="replace")
        self.rankings[key] = None if message.value is None else decode_ranking(message.value)
        _, version = decode_headers(fetched.headers)
        newest = self._versions.get(key, 0)
        if version < newest:
            self._overtaken[key] = f"version {version} came after {newest}: readers pass it over"
        else:
            self._versions[key] = version
            self._overtaken.pop(key, None)

    def _bury(self, fetched: Fetched) -> None:
        message = fetched.message
        try:
            letter = decode_dead_letter(message.key, message.value, fetched.headers, message.kafka_time)
        except (KeyError, ValueError):
            return  # anybody may write to the topic; what no worker wrote is not the engine's
        self.letters.setdefault(place_of(letter), set()).add(letter.reason)

    def space(self, topic: str) -> Space | None:
        """Where the rows made of a topic live; None for those of `content` while no bundle is in force."""
        view = _VIEWS[topic]
        if topic != CONTENT:
            return self._space(view)
        return None if self.replay.bundle is None else self._space(view, self.replay.bundle.models["product_encoder"])

    def _space(self, view: View, variant: int | str = "") -> Space:
        return Space(self._ids.cluster, self._ids.topics[view.topic], view.name, str(variant))

    async def compare_sets(self) -> tuple[dict[str, Expectation], list[tuple[str, str]]]:
        """What should stand by result set id, and (id, difference) of what stands instead."""
        if self._expected is None:
            self._expected = await self._expectations.of(self.replay)
        expected = dict(self._expected)
        for result_set_id, ranking in self.rankings.items():
            if ranking is not None:
                expected.setdefault(result_set_id, Nothing("never registered"))
        differences: list[tuple[str, str]] = []
        for result_set_id, wanted in sorted(expected.items()):
            found = compare(wanted, self.rankings.get(result_set_id))
            if result_set_id in self._overtaken:
                found.append(self._overtaken[result_set_id])
            differences += [(result_set_id, difference) for difference in found]
        return expected, differences

    async def compare_rows(self, store: RowStore) -> tuple[int, list[tuple[str, str]]]:
        """How many rows there must be, and (view/entity, difference) of those that differ. Raises StoreUnavailable."""
        count, differences = 0, []
        for view, names in entities(self.replay).items():
            count += len(names)
            for first in range(0, len(names), READ_ROWS):
                some = names[first : first + READ_ROWS]
                for entity, blob in zip(some, await store.read(self._space(view), some), strict=True):
                    found = compare_row(self.replay, view, entity, blob)
                    differences += [(f"{view.name}/{entity}", difference) for difference in found]
        return count, differences


@dataclass(frozen=True, slots=True)
class _Doors:
    """The log of inputs and outputs, the ends of the internal topics, the store."""

    log: LogReader
    tails: LogReader
    store: RowStore


class _Waiting:
    """The rounds of one verification."""

    def __init__(
        self,
        runner: asyncio.Runner,
        doors: _Doors,
        verification: Verification,
        timeout_s: float,
        progress: Progress,
    ) -> None:
        self._runner = runner
        self._doors = doors
        self._verification = verification
        self._timeout_s = timeout_s
        self._progress = progress
        self._markers: dict[str, list[Marker | None]] = {}
        self._moved = False
        self._began = time.monotonic()

    def run(self) -> VerifyReport:
        """Rounds until all is equal, nothing moves any more, or patience ends. The last round tells the verdict."""
        heard = self._began
        compared = False
        while True:
            self._moved = False
            behind = self._behind()
            compared = compared and not self._moved
            now = time.monotonic()
            heard = now if self._moved else heard
            late = now - heard > self._timeout_s or now - self._began > PATIENCE * self._timeout_s
            if behind and late:
                return self._report(behind)
            if not behind and (late or not compared):
                report = self._report([])
                compared = True
                self._progress("result sets equal", report.equal, report.result_sets)
                if report.ok or late:
                    return report
            time.sleep(LOOK_S)

    def _behind(self) -> list[str]:
        """What the engine has still to do.

        1. read the inputs  2. their markers  3. only then the ends of what was made of them  4. their markers
        5. what was published and buried meanwhile
        """
        # 1.
        self._read()
        # 2.
        behind = self._unpassed((CATALOG, BEHAVIOR), self._doors.log)
        if behind:
            return behind
        # 3.
        self._moved |= drain(self._doors.tails.news()) > 0
        # 4.
        behind = self._unpassed((USER_TOPIC, CONTENT), self._doors.tails)
        # 5.
        return behind if behind or not self._read() else ["inputs: more has come"]

    def _read(self) -> bool:
        """Read the log to its end; whether there was news of the inputs."""
        inputs, count = False, 0
        for count, fetched in enumerate(self._doors.log.news(), 1):
            self._verification.take(fetched)
            inputs |= fetched.message.topic in INPUTS
            if count % 1000 == 0:
                self._progress("messages read", count, 0)
        self._moved |= count > 0
        return inputs

    def _unpassed(self, names: Sequence[str], reader: LogReader) -> list[str]:
        """A line for each partition whose marker has not passed its end."""
        positions, found = reader.positions, []
        for topic in names:
            space = self._verification.space(topic)
            ends = {part: end for part, end in positions.items() if part[0] == topic and end > reader.begins[part]}
            if space is None or not ends:
                continue
            try:
                markers = self._runner.run(self._doors.store.markers(space, [partition for _, partition in ends]))
            except StoreUnavailable as error:
                return [f"the store does not answer: {error}"]
            self._moved |= markers != self._markers.get(topic)
            self._markers[topic] = markers
            found += list(_lines(ends.items(), markers))
            self._progress(f"{topic} in the store", sum(m.offset for m in markers if m), sum(ends.values()))
        return found

    def _report(self, behind: list[str]) -> VerifyReport:
        verification, replay = self._verification, self._verification.replay
        expected, differences = self._runner.run(verification.compare_sets())
        rows = 0
        row_differences: list[tuple[str, str]] = []
        letter_differences: list[str] = []
        if not behind:
            try:
                rows, row_differences = self._runner.run(verification.compare_rows(self._doors.store))
            except StoreUnavailable as error:
                behind = [f"the store does not answer: {error}"]
            letter_differences = compare_letters(replay, verification.letters)
        wanted = [place for place in replay.rejected if place.topic != MODELS]
        return VerifyReport(
            result_sets=len(expected),
            live=sum(not isinstance(one, Nothing) for one in expected.values()),
            equal=len(expected) - len({name for name, _ in differences}),
            differences=tuple(differences),
            events_counted=replay.tally.counted,
            events_doubled=replay.tally.doubled,
            events_rejected=replay.tally.rejected,
            rows_compared=rows,
            rows_equal=rows - len({name for name, _ in row_differences}),
            row_differences=tuple(row_differences),
            dead_letters_expected=len(wanted),
            dead_letters_found=sum(place in verification.letters for place in wanted),
            dead_letter_differences=tuple(letter_differences),
            behind=tuple(behind),
            cut=tuple(_cut(self._doors.log)),
            seconds=round(time.monotonic() - self._began, 3),
            expected=expected,
            got={name: ranking for name, ranking in verification.rankings.items() if ranking is not None},
        )


def _lines(ends: Iterable[tuple[Part, int]], markers: Iterable[Marker | None]) -> Iterator[str]:
    for ((topic, partition), end), marker in zip(ends, markers, strict=True):
        if marker is None or marker.offset < end:
            yield f"{topic}[{partition}]: the store holds {0 if marker is None else marker.offset} of {end}"


def _cut(log: LogReader) -> Iterator[str]:
    for (topic, partition), begin in log.begins.items():
        if topic in (CATALOG, BEHAVIOR) and begin > 0:
            yield f"{topic}[{partition}] begins at {begin}: what was before is in the store, but not in the replay"


def _fetching(media: MediaStore) -> Fetch:
    """Media as the content side gets them; None for what cannot be had."""

    def fetch(reference: str) -> bytes | None:
        try:
            return media.open(reference)
        except MediaError:
            return None

    return fetch


def _silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""
