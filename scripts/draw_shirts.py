#!/usr/bin/env python3
"""Draw the example's garments as one sheet, to look at them.

python scripts/draw_shirts.py --out shirts.png
"""

import argparse
from io import BytesIO
from pathlib import Path

from PIL import Image

from serving.datasets import shirts
from serving.datasets.drawing import SIDE


def main() -> None:
    """Write a sheet of --count garments, --columns beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--columns", type=int, default=10)
    arguments = parser.parse_args()
    garments = shirts.products(arguments.seed, arguments.count)
    lines = -(-len(garments) // arguments.columns)
    sheet = Image.new("RGB", (arguments.columns * SIDE, lines * SIDE), "white")
    for place, shirt in enumerate(garments):
        line, column = divmod(place, arguments.columns)
        assert isinstance(shirt.product.image, bytes)
        sheet.paste(Image.open(BytesIO(shirt.product.image)), (column * SIDE, line * SIDE))
    sheet.save(arguments.out)


if __name__ == "__main__":
    main()
