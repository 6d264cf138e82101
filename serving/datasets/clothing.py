"""Clothing photographs of ten classes, CC0 (Grigorev, clothing-dataset-small): pictures and nothing else.

A folder with labels.csv (path, split, class) and images_128.zip.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.datasets.files import pictures, records

LABELS: Final = "labels.csv"
PICTURES: Final = "images_128.zip"
COLUMNS: Final = ("path", "split", "class")
SPLITS: Final = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph of one garment: an encoded file, and the row of its class in `Clothing.classes`."""

    image: bytes
    label: int


@dataclass(frozen=True, slots=True)
class Clothing:
    """Classes in alphabetical order, and the photographs of each split."""

    classes: tuple[str, ...]
    train: tuple[Photo, ...]
    validation: tuple[Photo, ...]
    test: tuple[Photo, ...]


def load(folder: Path) -> Clothing:
    """All photographs in the order of the file. Raises ServingError that names file, line and field."""
    images = pictures(folder / PICTURES)
    labels = list(records(folder / LABELS, COLUMNS))
    classes = sorted({record.text("class") for record in labels})
    photos: dict[str, list[Photo]] = {split: [] for split in SPLITS}
    for record in labels:
        path = record.text("path")
        if path not in images:
            record.fail("path", f"a picture of {PICTURES}", repr(path))
        photo = Photo(images[path], classes.index(record.text("class")))
        photos[record.one_of("split", SPLITS)].append(photo)
    return Clothing(tuple(classes), *(tuple(photos[split]) for split in SPLITS))
