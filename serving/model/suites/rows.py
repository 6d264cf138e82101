"""What a suite finds: a row a thing, with floor and peer beside it; as a table's cells, as JSON and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from serving.model.metrics import Interval

COLUMNS: Final = ("measured", "value", "floor", "peer", "spread", "target", "met")


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a row: on its value, or on the lower end of its interval."""

    limit: float
    of: Literal["value", "low"] = "value"
    strict: bool = False

    def __str__(self) -> str:
        return f"{'interval ' if self.of == 'low' else ''}{'>' if self.strict else '≥'} {short(self.limit)}"

    def is_met(self, value: float, low: float) -> bool:
        """Whether a value, or the lower end of its interval, is large enough."""
        found = value if self.of == "value" else low
        return found > self.limit if self.strict else found >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured. `floor` and `peer` are in the same unit, None where there is none; `spread` is (low,
    high) of the value: of the bootstrap for a quality, of the runs for a speed."""

    name: str
    value: float
    unit: str = ""
    floor: float | None = None
    peer: float | None = None
    spread: tuple[float, float] | None = None
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is; None without one."""
        if self.target is None:
            return None
        return self.target.is_met(self.value, self.spread[0] if self.spread else self.value)

    def to_json(self) -> dict[str, Any]:
        """The row as `freshrank evaluate --json` writes it."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "peer": self.peer,
            "spread": None if self.spread is None else list(self.spread),
            "target": None if self.target is None else str(self.target),
            "met": self.met,
        }

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of COLUMNS."""
        return (
            self.name,
            f"{short(self.value)} {self.unit}".rstrip(),
            _short(self.floor),
            _short(self.peer),
            "" if self.spread is None else f"{short(self.spread[0])} – {short(self.spread[1])}",
            "" if self.target is None else str(self.target),
            {True: "yes", False: "no", None: ""}[self.met],
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: `values` and their intervals at each place of the figure's axis."""

    name: str
    values: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """Curves over named places; `name` is its file's, `told` says in words what it shows, for those who cannot see."""

    name: str
    title: str
    across: str
    up: str
    places: tuple[str, ...]
    lines: tuple[Line, ...]
    told: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Rows of one unit with their spreads; `name` is the file's, `told` says in words what it shows."""

    name: str
    title: str
    across: str
    rows: tuple[Row, ...]
    told: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A suite's rows, and what there is to know about them: what was measured on, what floor and peer are."""

    suite: str
    title: str
    rows: tuple[Row, ...]
    about: tuple[str, ...]
    figures: tuple[Figure | Bars, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"suite": self.suite, "about": list(self.about), "rows": [row.to_json() for row in self.rows]}

    @property
    def columns(self) -> tuple[int, ...]:
        """Columns in which any row has something."""
        return tuple(n for n in range(len(COLUMNS)) if any(row.cells[n] for row in self.rows))

    def markdown(self) -> str:
        """The rows as a table for a page, and what there is to know about them."""
        columns = self.columns
        lines = [_line(COLUMNS, columns), _line(["---"] + ["---:"] * (len(COLUMNS) - 1), columns)]
        lines += [_line(row.cells, columns) for row in self.rows]
        return "\n".join((*lines, "", *(f"* {about}" for about in self.about)))


def quality(
    name: str, found: Interval, *, floor: float | None = None, peer: float | None = None, target: Target | None = None
) -> Row:
    """A row of a mean over lists and its interval."""
    return Row(name, found.mean, floor=floor, peer=peer, spread=(found.low, found.high), target=target)


def short(number: float) -> str:
    """Four decimals of a quality; of what is larger three digits, with separators of thousands."""
    if abs(number) < 10:
        return f"{number:.4f}"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.1f}"


def named(values: Mapping[str, float]) -> str:
    """`random 0.3300, shown order 0.3780`."""
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())


def _short(number: float | None) -> str:
    return "" if number is None else short(number)


def _line(cells: Sequence[str], columns: Sequence[int]) -> str:
    return f"| {' | '.join(cells[n] for n in columns)} |"
