"""What a suite finds: a row a thing, with ours, the floor and a peer; as a table, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, Protocol

from rich.box import SIMPLE_HEAD
from rich.table import Table

Of = Literal["value", "floor", "peer"]
#: what a spread or a ratio is called in JSON
JSON_NAMES: Mapping[Of, str] = {"value": "value", "floor": "ratio_to_floor", "peer": "ratio_to_peer"}
#: (least, greatest) over the runs
Range = tuple[float, float]

COLUMNS = ("measured", "ours", "floor", "peer", "× floor", "× peer", "spread", "target", "met")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, in the row's unit. Floor and peer belong to the same run; None where there is none."""

    value: float
    floor: float | None = None
    peer: float | None = None

    def against(self, of: Of) -> float | None:
        """The value itself, or its ratio to the floor or the peer."""
        if of == "value":
            return self.value
        other = self.floor if of == "floor" else self.peer
        return self.value / other if other else None


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on our value, or on its ratio to the floor or the peer."""

    limit: float
    of: Of = "value"
    at_most: bool = True

    def __str__(self) -> str:
        against = "" if self.of == "value" else f" × {self.of}"
        return f"{'≤' if self.at_most else '≥'} {short(self.limit)}{against}"

    def is_met(self, found: float) -> bool:
        """Whether the bound holds."""
        return found <= self.limit if self.at_most else found >= self.limit


class Figures(Protocol):
    """What is shown of a row."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def floor(self) -> float | None: ...
    @property
    def peer(self) -> float | None: ...
    @property
    def target(self) -> str | None: ...
    @property
    def met(self) -> bool | None: ...

    def ratio(self, of: Of) -> float | None: ...
    def spread(self, of: Of) -> Range | None: ...
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured in one or more runs (≥ 1). All figures are medians over the runs.

    A ratio is the median of the runs' own ratios: what disturbs the machine disturbs both sides of a run.
    """

    name: str
    unit: str
    samples: tuple[Sample, ...]
    targets: tuple[Target, ...] = ()

    @property
    def value(self) -> float:
        return median(sample.value for sample in self.samples)

    @property
    def floor(self) -> float | None:
        return _median(sample.floor for sample in self.samples)

    @property
    def peer(self) -> float | None:
        return _median(sample.peer for sample in self.samples)

    def ratio(self, of: Of) -> float | None:
        """Median of the runs' ratios of our value to the floor or the peer."""
        return _median(sample.against(of) for sample in self.samples)

    def spread(self, of: Of) -> Range | None:
        """Least and greatest of the value or of a ratio over the runs."""
        found = [number for sample in self.samples if (number := sample.against(of)) is not None]
        return (min(found), max(found)) if found else None

    @property
    def target(self) -> str | None:
        return ", ".join(map(str, self.targets)) or None

    @property
    def met(self) -> bool | None:
        """Whether every target holds; None without one, and where what it is measured against was not there."""
        found = [(target, self.ratio(target.of)) for target in self.targets]
        if not found or any(number is None for _, number in found):
            return None
        return all(target.is_met(number) for target, number in found if number is not None)

    def to_json(self) -> dict[str, Any]:
        """The row as `freshrank bench --json` writes it."""
        spreads = {name: found for of, name in JSON_NAMES.items() if (found := self.spread(of)) is not None}
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "peer": self.peer,
            "ratio_to_floor": self.ratio("floor"),
            "ratio_to_peer": self.ratio("peer"),
            "spread": spreads,
            "target": self.target,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Told:
    """A row of an earlier run, as its JSON told it."""

    name: str
    told: Mapping[str, Any]

    @property
    def unit(self) -> str:
        return str(self.told["unit"])

    @property
    def value(self) -> float:
        return float(self.told["value"])

    @property
    def floor(self) -> float | None:
        return self._number("floor")

    @property
    def peer(self) -> float | None:
        return self._number("peer")

    @property
    def target(self) -> str | None:
        target: str | None = self.told["target"]
        return target

    @property
    def met(self) -> bool | None:
        met: bool | None = self.told["met"]
        return met

    def ratio(self, of: Of) -> float | None:
        """As it was told."""
        return self._number(JSON_NAMES[of])

    def spread(self, of: Of) -> Range | None:
        """As it was told."""
        found = self.told["spread"].get(JSON_NAMES[of])
        return None if found is None else (float(found[0]), float(found[1]))

    def to_json(self) -> dict[str, Any]:
        """As it was told."""
        return {**self.told, "name": self.name}

    def _number(self, name: str) -> float | None:
        number = self.told[name]
        return None if number is None else float(number)


@dataclass(frozen=True, slots=True)
class Finding:
    """A suite's rows, and what its floor and its peers were."""

    suite: str
    rows: tuple[Figures, ...]
    about: tuple[str, ...]


def findings_of(told: Mapping[str, Any]) -> dict[str, Finding]:
    """What an earlier run found, by suite, from its JSON. KeyError for what is not such a JSON."""
    rows: dict[str, list[Figures]] = {suite: [] for suite in told["about"]}
    for row in told["rows"]:
        suite, _, name = row["name"].partition(": ")
        rows[suite].append(Told(name, row))
    return {suite: Finding(suite, tuple(some), tuple(told["about"][suite])) for suite, some in rows.items()}


def cells(row: Figures) -> tuple[str, ...]:
    """In the order of COLUMNS."""
    return (
        row.name,
        f"{short(row.value)} {row.unit}".rstrip(),
        _short_or_dash(row.floor),
        _short_or_dash(row.peer),
        _ratio_cell(row, "floor"),
        _ratio_cell(row, "peer"),
        _range(row.spread("value")) or "-",
        row.target or "-",
        {True: "yes", False: "no", None: "-"}[row.met],
    )


def _ratio_cell(row: Figures, of: Of) -> str:
    spread = _range(row.spread(of))
    return _short_or_dash(row.ratio(of)) + (f" ({spread})" if spread else "")


def table(finding: Finding) -> Table:
    """A finding for a terminal."""
    shown = Table(
        title=finding.suite,
        title_justify="left",
        title_style="bold",
        caption="\n".join(finding.about),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name in ("measured", "target", "met") else "right")
    colours = {"yes": "[green]yes[/]", "no": "[red]no[/]"}
    for row in finding.rows:
        *others, met = cells(row)
        shown.add_row(*others, colours.get(met, met))
    return shown


def markdown(finding: Finding) -> str:
    """A finding for a page."""
    lines = [_line(COLUMNS), "|---|" + "---:|" * (len(COLUMNS) - 3) + "---|---|"]
    lines += [_line(cells(row)) for row in finding.rows]
    return "\n".join(("\n".join(f"* {about}" for about in finding.about), "", *lines))


def short(number: float) -> str:
    """Three significant digits, with separators of thousands."""
    if number == 0:
        return "0"
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(found: Range | None) -> str:
    """Empty where there is none."""
    return "" if found is None or found[0] == found[1] else f"{short(found[0])} – {short(found[1])}"


def _short_or_dash(number: float | None) -> str:
    return "-" if number is None else short(number)


def _median(numbers: Iterable[float | None]) -> float | None:
    found = [number for number in numbers if number is not None]
    return median(found) if found else None
