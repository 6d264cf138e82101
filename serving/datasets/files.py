"""Tables and pictures as data sets bring them. What is wrong with them is told by file, line and field."""

import csv
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NoReturn

from serving.errors import ServingError


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a CSV file; `line` counts from 1, the header included."""

    path: Path
    line: int
    fields: dict[str, str]

    def text(self, name: str) -> str:
        """A field that must not be empty."""
        value = self.fields[name].strip()
        if not value:
            self.fail(name, "a text", "nothing")
        return value

    def minor_units(self, name: str) -> int:
        """A price such as `52.0`, in hundredths, at least 0."""
        value = self.fields[name]
        try:
            price = round(Decimal(value) * 100)
        except (InvalidOperation, ValueError, OverflowError):
            self.fail(name, "a price", repr(value))
        if price < 0:
            self.fail(name, "a price", repr(value))
        return price

    def one_of(self, name: str, known: Sequence[str]) -> str:
        """A field that is one of some words."""
        value = self.fields[name]
        if value not in known:
            self.fail(name, f"one of {', '.join(known)}", repr(value))
        return value

    def fail(self, name: str, expected: str, got: str) -> NoReturn:
        raise ServingError(f"{self.path}: line {self.line}: {name}: expected {expected}, got {got}")


def records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """The lines of a CSV file that has at least these columns. Raises ServingError for one that is none."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise ServingError(f"{path}: line 1: expected a column {', '.join(missing)}, there is none")
            for fields in reader:
                yield Record(path, reader.line_num, fields)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ServingError(f"{path}: cannot be read: {error}") from error


def pictures(path: Path) -> dict[str, bytes]:
    """All files of a ZIP archive by their names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise ServingError(f"{path}: cannot be read: {error}") from error
