"""Pictures of garments, drawn: the colour and the cut can be told from them, everything else varies."""

from collections.abc import Sequence
from io import BytesIO
from random import Random
from typing import Final, TypeAlias

from PIL import Image, ImageDraw

Rgb: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

#: width and height of a picture in pixels
SIDE: Final = 64
#: drawn so many times larger and scaled down, for smooth edges
SCALE: Final = 2

COLOURS: Final[dict[str, Rgb]] = {
    "white": (244, 244, 242),
    "black": (30, 30, 34),
    "grey": (136, 138, 142),
    "red": (200, 36, 44),
    "blue": (40, 84, 182),
    "green": (46, 134, 74),
    "yellow": (240, 204, 56),
    "pink": (240, 152, 182),
}

#: left half of each outline from the neck down, in a square of side 1; the right half mirrors it
OUTLINES: Final[dict[str, Sequence[Point]]] = {
    "t-shirt": ((0.42, 0.17), (0.30, 0.20), (0.10, 0.36), (0.19, 0.48), (0.29, 0.41), (0.29, 0.86)),
    "shirt": ((0.44, 0.12), (0.31, 0.16), (0.17, 0.30), (0.09, 0.80), (0.19, 0.82), (0.29, 0.42), (0.28, 0.88)),
    "hoodie": ((0.40, 0.10), (0.34, 0.22), (0.16, 0.32), (0.06, 0.82), (0.20, 0.85), (0.27, 0.46), (0.26, 0.86)),
    "trousers": ((0.34, 0.10), (0.31, 0.30), (0.27, 0.94), (0.42, 0.94), (0.49, 0.38)),
    "shorts": ((0.31, 0.26), (0.28, 0.40), (0.22, 0.72), (0.45, 0.74), (0.49, 0.46)),
    "dress": ((0.41, 0.10), (0.33, 0.13), (0.31, 0.30), (0.37, 0.44), (0.20, 0.92)),
}

BACKGROUNDS: Final[Sequence[Rgb]] = (
    (212, 214, 218),
    (232, 226, 214),
    (190, 204, 216),
    (222, 208, 208),
    (200, 212, 196),
    (168, 160, 152),
)


def draw(garment: str, colour: str, random: Random) -> bytes:
    """A PNG of SIDE x SIDE pixels. `random` chooses shade, background, size, place and print."""
    side = SIDE * SCALE
    picture = Image.new("RGB", (side, side), _varied(random.choice(BACKGROUNDS), 10, random))
    pen = ImageDraw.Draw(picture)
    cloth = _varied(COLOURS[colour], 10, random)
    outline = _placed(OUTLINES[garment], side, random)
    pen.polygon(outline, fill=cloth, outline=_shade(cloth, 0.62), width=SCALE)
    _details(pen, garment, outline, _shade(cloth, 0.72 if sum(cloth) > 200 else 2.6))
    if garment in ("t-shirt", "hoodie") and random.random() < 0.35:
        _print(pen, outline, _varied(random.choice(list(COLOURS.values())), 20, random), random)
    out = BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.BOX).save(out, "PNG")
    return out.getvalue()


def _placed(half: Sequence[Point], side: int, random: Random) -> list[Point]:
    """The whole outline in pixels, a little smaller or larger, off the middle and uneven."""
    size = random.uniform(0.86, 1.04)
    right, down = random.uniform(-0.05, 0.05), random.uniform(-0.05, 0.05)
    whole = [*half, *((1 - x, y) for x, y in reversed(half))]
    return [
        (
            side * (0.5 + (x - 0.5) * size + right + random.uniform(-0.008, 0.008)),
            side * (0.5 + (y - 0.5) * size + down + random.uniform(-0.008, 0.008)),
        )
        for x, y in whole
    ]


def _details(pen: ImageDraw.ImageDraw, garment: str, outline: Sequence[Point], ink: Rgb) -> None:
    """Collar, buttons, hood, pocket or waist: what tells the cuts apart."""
    (left, top), (right, _) = outline[0], outline[-1]
    middle, bottom = (left + right) / 2, max(y for _, y in outline)
    drop = (right - left) * 0.5
    if garment in ("t-shirt", "dress"):
        pen.arc((left, top - drop, right, top + drop), 0, 180, fill=ink, width=SCALE)
    elif garment == "shirt":
        pen.line([(left, top), (middle, top + 1.6 * drop), (right, top)], fill=ink, width=SCALE)
        pen.line([(middle, top + 1.6 * drop), (middle, bottom)], fill=ink, width=SCALE)
    elif garment == "hoodie":
        pen.ellipse((left, top - 0.2 * drop, right, top + 1.8 * drop), outline=ink, width=2 * SCALE)
        pen.rectangle((left - drop, bottom - 2.4 * drop, right + drop, bottom - 0.8 * drop), outline=ink, width=SCALE)
    else:
        pen.line([(left, top + 3 * SCALE), (right, top + 3 * SCALE)], fill=ink, width=SCALE)


def _print(pen: ImageDraw.ImageDraw, outline: Sequence[Point], ink: Rgb, random: Random) -> None:
    """A disc or a few bars on the chest."""
    middle = sum(x for x, _ in outline) / len(outline)
    chest, radius = SIDE * SCALE * 0.52, SIDE * SCALE * random.uniform(0.05, 0.09)
    if random.random() < 0.5:
        pen.ellipse((middle - radius, chest - radius, middle + radius, chest + radius), fill=ink)
        return
    for bar in range(3):
        level = chest + (bar - 1) * radius
        pen.line([(middle - 1.6 * radius, level), (middle + 1.6 * radius, level)], fill=ink, width=2 * SCALE)


def _varied(colour: Rgb, spread: int, random: Random) -> Rgb:
    """A shade of the colour: lighter or darker as a whole, and each channel a little by itself."""
    light = random.randint(-spread, spread)
    red, green, blue = (min(255, max(0, part + light + random.randint(-4, 4))) for part in colour)
    return red, green, blue


def _shade(colour: Rgb, factor: float) -> Rgb:
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue
