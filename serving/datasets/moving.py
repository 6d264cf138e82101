"""Short films of garments, drawn: what they are can be seen in any frame, how they move only in the order of frames."""

from io import BytesIO
from math import cos, pi
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.datasets.clips import video_bytes
from serving.datasets.drawing import SIDE, draw

#: what somebody may ask for, in English and in Chinese
MOTION_NAMES: Final = {
    "falling": "下落",
    "rising": "上升",
    "left": "左移",
    "right": "右移",
    "turning": "旋转",
}
#: down, and to the right: parts of the picture's side that a film moves through
_WAYS: Final = {"falling": (1, 0), "rising": (-1, 0), "left": (0, -1), "right": (0, 1)}

FILM_FRAMES: Final = 12
FRAMES_A_SECOND: Final = 8


def film(garment: str, colour: str, motion: str, random: Random) -> bytes:
    """An MP4 of FILM_FRAMES frames of SIDE x SIDE pixels. `random` chooses the looks, where it begins and how fast."""
    with Image.open(BytesIO(draw(garment, colour, random))) as picture:
        still = picture.convert("RGB")
    begins, pace = random.random(), random.uniform(0.5, 1.0)
    moments = [begins + pace * frame / FILM_FRAMES for frame in range(FILM_FRAMES)]
    frames = [_turned(still, moment) if motion == "turning" else _moved(still, motion, moment) for moment in moments]
    return video_bytes(np.stack(frames), FRAMES_A_SECOND)


def _moved(still: Image.Image, motion: str, moment: float) -> NDArray[np.uint8]:
    """What leaves the picture on one side comes in on the other."""
    shift = [round(part * moment * SIDE) for part in _WAYS[motion]]
    return np.roll(np.asarray(still), shift, (0, 1))


def _turned(still: Image.Image, moment: float) -> NDArray[np.uint8]:
    """Seen from the side, a garment is narrow."""
    width = max(2, round(SIDE * abs(cos(2 * pi * moment))))
    turned = Image.new("RGB", still.size, still.getpixel((0, 0)))
    turned.paste(still.resize((width, SIDE)), ((SIDE - width) // 2, 0))
    return np.asarray(turned)
