"""The verdict of the oracle."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from streams.oracle.expecting import Expectation, Nothing
from streams.records import Ranking

#: ranks that `explain` shows
TOP = 20
#: differences of one kind that `lines` shows; `to_json` has all
SHOWN = 20
_COUNTED = (
    "result_sets",
    "live",
    "equal",
    "events_counted",
    "events_doubled",
    "events_rejected",
    "rows_compared",
    "rows_equal",
    "dead_letters_expected",
    "dead_letters_found",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was compared and what differs. `explain` shows one set."""

    #: sets that were ever registered or ranked, and how many of them live
    result_sets: int
    live: int
    equal: int
    #: (result set id, difference)
    differences: tuple[tuple[str, str], ...]
    #: records of `behavior` other than heartbeats; each is in exactly one of the three
    events_counted: int
    events_doubled: int
    events_rejected: int
    #: rows of product_catalog, product_behavior and user_behavior in the store
    rows_compared: int
    rows_equal: int
    #: (view/entity, difference)
    row_differences: tuple[tuple[str, str], ...]
    #: rejected records of `catalog`, `behavior` and `result-sets`, and how many of them have a dead letter
    dead_letters_expected: int
    dead_letters_found: int
    dead_letter_differences: tuple[str, ...]
    #: what the engine had not finished when waiting ended; rows and dead letters were not compared then
    behind: tuple[str, ...]
    #: inputs whose begin is gone: differences may come from that
    cut: tuple[str, ...]
    seconds: float
    expected: Mapping[str, Expectation] = field(repr=False)
    got: Mapping[str, Ranking] = field(repr=False)

    @property
    def total(self) -> int:
        """The same as `result_sets`."""
        return self.result_sets

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be: sets, rows, dead letters."""
        return not (self.behind or self.differences or self.row_differences or self.dead_letter_differences)

    @property
    def line(self) -> str:
        return f"verify: {self.equal} of {self.result_sets} result sets equal to the oracle"

    @property
    def lines(self) -> list[str]:
        """The verdict for a human, the first differences last."""
        events = self.events_counted + self.events_doubled + self.events_rejected
        return [
            self.line,
            f"events: {events} = {self.events_counted} counted + {self.events_doubled} doubled"
            f" + {self.events_rejected} rejected",
            f"stored rows: {self.rows_equal} of {self.rows_compared} equal",
            f"dead letters: {self.dead_letters_found} of {self.dead_letters_expected} there",
            *(f"behind: {line}" for line in self.behind),
            *(f"note: {line}" for line in self.cut),
            *_some([f"{name}: {difference}" for name, difference in self.differences]),
            *_some([f"row {name}: {difference}" for name, difference in self.row_differences]),
            *_some([f"dead letter of {difference}" for difference in self.dead_letter_differences]),
        ]

    def to_json(self) -> dict[str, Any]:
        """For programs: figures and differences."""
        return {
            "ok": self.ok,
            **{name: getattr(self, name) for name in _COUNTED},
            "differences": [list(pair) for pair in self.differences],
            "row_differences": [list(pair) for pair in self.row_differences],
            "dead_letter_differences": list(self.dead_letter_differences),
            "behind": list(self.behind),
            "cut": list(self.cut),
            "seconds": self.seconds,
        }

    def explain(self, result_set_id: str) -> str:
        """One set, expected beside got, the best first. KeyError for a set that is not known."""
        expected, got = self.expected.get(result_set_id), self.got.get(result_set_id)
        if expected is None and got is None:
            raise KeyError(result_set_id)
        found = [difference for name, difference in self.differences if name == result_set_id]
        about = [f"{result_set_id}: {'equal' if not found else '; '.join(found)}"]
        if isinstance(expected, Nothing):
            about.append(f"expected nothing: {expected.why}")
        if got is not None:
            about.append(f"got version {got.version} of {got.model_version}{', degraded' if got.degraded else ''}")
        return "\n".join([*about, *_ranks(expected, got)])


def _some(lines: list[str]) -> list[str]:
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more like this"]


def _ranks(expected: Expectation | None, got: Ranking | None) -> Iterator[str]:
    want: list[tuple[str, float]] = []
    if expected is not None and not isinstance(expected, Nothing):
        want = list(zip(expected.product_ids, expected.scores.tolist(), strict=True))
    have = [] if got is None else list(zip(got.product_ids, got.scores.tolist(), strict=True))
    pairs = list(zip_longest(want, have))[:TOP]
    for rank, (left, right) in enumerate(pairs, 1):
        yield f"{rank:4}  {_cell(left)}  {_cell(right)}".rstrip()


def _cell(ranked: tuple[str, float] | None) -> str:
    return f"{'-':<36}" if ranked is None else f"{ranked[0]:<24.24}{ranked[1]:12.5f}"
