"""Picture bytes -> pixels."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from serving.errors import BadMedia
from serving.preprocess.limits import MediaLimits

#: width and height of a picture as an image encoder sees it, unless its config says otherwise
IMAGE_SIZE = 64

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def decode_image(data: bytes, limits: MediaLimits | None = None, size: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    """Pixels [size, size, 3] of a PNG, JPEG, WebP or GIF (its first frame), whole picture on white.

    Raises BadMedia when it is too large, of another format, or broken.
    """
    limits = limits or MediaLimits()
    if len(data) > limits.max_bytes:
        raise BadMedia(f"picture of {len(data)} bytes, at most {limits.max_bytes} are read")
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > limits.max_pixels:
                raise BadMedia(f"picture of {width} x {height} pixels, at most {limits.max_pixels} are decoded")
            picture.draft("RGB", (2 * size, 2 * size))
            pixels = picture.convert("RGBA")
    except BadMedia:
        raise
    except UnidentifiedImageError as error:
        raise BadMedia("not a picture in PNG, JPEG, WebP or GIF") from error
    except Exception as error:  # the decoders raise whatever comes to hand on broken bytes
        raise BadMedia(f"picture cannot be decoded: {type(error).__name__}: {error}") from error
    white = Image.new("RGBA", pixels.size, "white")
    flat = Image.alpha_composite(white, pixels).convert("RGB")
    return np.asarray(ImageOps.pad(flat, (size, size), Image.Resampling.BILINEAR, color="white"))
