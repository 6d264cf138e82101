"""What the client does before it calls a model: text -> ids, picture bytes -> pixels.

Decoding strangers' bytes happens here, in the worker, under limits; the nets see only numbers. Both functions are
deterministic, so a content row can be made again from its content.
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from feature_repo.views import MODALITIES
from serving.errors import BadMedia
from serving.requests import ProductContent

#: ids per text; 0 is padding
TEXT_LENGTH = 64
#: number of ids, padding included
TEXT_BUCKETS = 8192
#: width and height of a picture as the image encoder sees it
IMAGE_SIZE = 64

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_WORD = re.compile(r"\w+")
#: longest word that is read; a longer one is cut, so that no text takes long
_WORD_LENGTH = 32


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """How large a picture may be, encoded and decoded."""

    max_bytes: int = 5 << 20
    max_pixels: int = 16_000_000


@dataclass(frozen=True, slots=True)
class PreparedProducts:
    """What the product encoder reads, N products: `text_ids` [N, TEXT_LENGTH] int32, `image` [N, IMAGE_SIZE,
    IMAGE_SIZE, 3] uint8, `mask` [N, M] float32."""

    text_ids: NDArray[np.int32]
    image: NDArray[np.uint8]
    mask: NDArray[np.float32]


def prepare_products(products: Sequence[ProductContent], limits: MediaLimits | None = None) -> PreparedProducts:
    """Ids, pixels and the mask of what is there. Raises BadMedia with the product whose picture cannot be decoded.

    Video and audio have no encoder yet, so they are masked whatever the product brings.
    """
    ids = prepare_texts([product.text for product in products])
    image = np.zeros((len(products), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    mask = np.zeros((len(products), len(MODALITIES)), np.float32)
    mask[:, MODALITIES.index("text")] = (ids > 0).any(1)
    for row, product in enumerate(products):
        if product.image is not None:
            try:
                image[row] = decode_image(product.image, limits)
            except BadMedia as error:
                raise BadMedia(error.reason, product_id=product.product_id, modality="image") from error
            mask[row, MODALITIES.index("image")] = 1
    return PreparedProducts(ids, image, mask)


def prepare_texts(texts: Sequence[str]) -> NDArray[np.int32]:
    """Ids [N, TEXT_LENGTH] of texts."""
    return np.stack([text_ids(text) for text in texts]) if texts else np.zeros((0, TEXT_LENGTH), np.int32)


def text_ids(text: str) -> NDArray[np.int32]:
    """Ids [TEXT_LENGTH] of a text in any language: hashed pieces in order of appearance, padded with 0.

    Scripts with spaces give each word and its character trigrams; wide scripts (Chinese, Japanese, Korean) give each
    character and each pair of neighbours. Upper case and width (NFKC) make no difference.
    """
    ids = np.zeros(TEXT_LENGTH, np.int32)
    place = 0
    # a piece is at least half a character of text, so what lies beyond can never be reached
    for word in _WORD.finditer(unicodedata.normalize("NFKC", text[: TEXT_LENGTH * _WORD_LENGTH]).lower()):
        for piece in _pieces(word.group()[:_WORD_LENGTH]):
            if place == TEXT_LENGTH:
                return ids
            ids[place] = zlib.crc32(piece.encode("utf-8", "replace")) % (TEXT_BUCKETS - 1) + 1
            place += 1
    return ids


def decode_image(data: bytes, limits: MediaLimits | None = None) -> NDArray[np.uint8]:
    """Pixels [IMAGE_SIZE, IMAGE_SIZE, 3] of a PNG, JPEG, WebP or GIF (its first frame), whole picture on white.

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
            picture.draft("RGB", (2 * IMAGE_SIZE, 2 * IMAGE_SIZE))
            pixels = picture.convert("RGBA")
    except BadMedia:
        raise
    except UnidentifiedImageError as error:
        raise BadMedia("not a picture in PNG, JPEG, WebP or GIF") from error
    except Exception as error:  # the decoders raise whatever comes to hand on broken bytes
        raise BadMedia(f"picture cannot be decoded: {type(error).__name__}: {error}") from error
    white = Image.new("RGBA", pixels.size, "white")
    flat = Image.alpha_composite(white, pixels).convert("RGB")
    return np.asarray(ImageOps.pad(flat, (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, color="white"))


def _pieces(word: str) -> list[str]:
    """The pieces of one word: of its wide parts characters and pairs, of its narrow parts the word and trigrams."""
    pieces: list[str] = []
    for wide, run in groupby(word, _is_wide):
        part = "".join(run)
        if wide:
            pieces += part
            pieces += (part[i : i + 2] for i in range(len(part) - 1))
        else:
            pieces.append(f"<{part}>")
            if len(part) > 2:
                fenced = f"<{part}>"
                pieces += (fenced[i : i + 3] for i in range(len(fenced) - 2))
    return pieces


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"
