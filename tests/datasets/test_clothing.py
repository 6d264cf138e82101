"""Clothing photographs by split and class."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.datasets import clothing
from serving.errors import ServingError
from tests.datasets.shelves import write_clothing

LABELS = [("train", "hat"), ("train", "dress"), ("validation", "hat"), ("test", "dress"), ("train", "hat")]


def test_photographs_keep_split_and_class(tmp_path: Path) -> None:
    found = clothing.load(write_clothing(tmp_path, LABELS))
    assert found.classes == ("dress", "hat")
    assert [photo.label for photo in found.train] == [1, 0, 1]
    assert [photo.label for photo in found.validation] == [1]
    assert [photo.label for photo in found.test] == [0]
    red, _, blue = np.asarray(Image.open(BytesIO(found.train[0].image))).mean((0, 1))
    assert red > blue


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            "validation,hat",
            "rest,hat",
            r"labels\.csv: line 4: split: expected one of train, validation, test, got 'rest'",
        ),
        ("test/dress/3.jpg", "test/3.jpg", r"line 5: path: expected a picture of images_128\.zip, got 'test/3\.jpg'"),
        ("validation,hat", "validation,", r"line 4: class: expected a text, got nothing"),
        ("split", "part", r"line 1: expected a column split, there is none"),
    ],
)
def test_a_bad_field_is_told_by_file_and_line(tmp_path: Path, before: str, after: str, told: str) -> None:
    labels = write_clothing(tmp_path, LABELS) / "labels.csv"
    labels.write_text(labels.read_text().replace(before, after))
    with pytest.raises(ServingError, match=told):
        clothing.load(tmp_path)
