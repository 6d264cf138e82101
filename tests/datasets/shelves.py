"""Data sets in small, in the form of the large ones: written to a folder, to be read or broken."""

import csv
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_pictures(path: Path, colours: Mapping[str, tuple[int, int, int]]) -> None:
    """One JPEG of one colour for each name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in colours.items():
            data = BytesIO()
            Image.new("RGB", (16, 16), colour).save(data, "JPEG")
            archive.writestr(name, data.getvalue())


def luma_row(
    item: str, parent: str, colour: str, garment: str = "Men/Tops/Jackets", price: str = "52.0"
) -> dict[str, str]:
    """A line of items.csv; its picture is named after the item."""
    return {
        "item_id": item,
        "parent_sku": parent,
        "title": f"{parent} &amp; co",
        "color": colour,
        "price": price,
        "categories": f"Collections/Eco Friendly|{garment}",
        "material": "Wool|Fleece",
        "pattern": "Solid",
        "climate": "",
        "style": "Hooded",
        "description": "Two-tone gray heather. • Warm.",
        "base_image": f"/m/{item}.jpg",
    }


def write_luma(folder: Path, rows: Sequence[dict[str, str]]) -> Path:
    write_csv(folder / "items.csv", rows)
    write_pictures(folder / "images_224.zip", {row["base_image"].removeprefix("/"): (200, 30, 30) for row in rows})
    return folder


def write_clothing(folder: Path, labels: Sequence[tuple[str, str]]) -> Path:
    """`labels` are (split, class); hats are red, all else is blue."""
    rows = [
        {"path": f"{split}/{kind}/{n}.jpg", "split": split, "class": kind} for n, (split, kind) in enumerate(labels)
    ]
    write_csv(folder / "labels.csv", rows)
    colours = {row["path"]: (220, 20, 20) if row["class"] == "hat" else (20, 20, 220) for row in rows}
    write_pictures(folder / "images_128.zip", colours)
    return folder
