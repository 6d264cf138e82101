"""Products -> what the product encoder reads: ids, pixels, sound, and the mask of what is there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.views import MODALITIES
from serving.errors import BadMedia
from serving.preprocess.attributes import prepare_attributes, prepare_numbers
from serving.preprocess.audio import AUDIO_FRAMES, MELS, decode_audio
from serving.preprocess.image import IMAGE_SIZE, decode_image
from serving.preprocess.limits import MediaLimits
from serving.preprocess.text import prepare_texts
from serving.preprocess.video import FRAMES, decode_video
from serving.requests import ProductContent

#: bytes and products of one call of the product encoder: its memory, and the largest message, are bounded
CALL_BYTES: Final = 16 << 20
CALL_ROWS: Final = 256

_TEXT, _IMAGE, _VIDEO, _AUDIO, _ATTRIBUTES = (
    MODALITIES.index(name) for name in ("text", "image", "video", "audio", "attributes")
)


@dataclass(frozen=True, slots=True)
class PreparedProducts:
    """What the product encoder reads, N products, S the side of its pictures. Media arrays hold only the products that
    have the medium, in order of row: a batch without a video ships none."""

    text_ids: NDArray[np.int32]  # [N, TEXT_LENGTH]
    attribute_ids: NDArray[np.int32]  # [N, ATTRIBUTE_LENGTH]
    attribute_numbers: NDArray[np.float32]  # [N, ATTRIBUTE_NUMBERS], NaN where there is none
    image: NDArray[np.uint8]  # [I, S, S, 3], I = sum of mask[:, image]
    video: NDArray[np.uint8]  # [V, FRAMES, S, S, 3]
    audio: NDArray[np.float32]  # [W, MELS, AUDIO_FRAMES]
    mask: NDArray[np.float32]  # [N, M]

    def take(self, rows: NDArray[Any]) -> "PreparedProducts":
        """The products of these rows [n], in this order."""
        mask = self.mask[rows]
        media = {}
        for name, column in (("image", _IMAGE), ("video", _VIDEO), ("audio", _AUDIO)):
            places = np.cumsum(self.mask[:, column], dtype=np.int64) - 1
            media[name] = getattr(self, name)[places[rows][mask[:, column] > 0]]
        return PreparedProducts(
            self.text_ids[rows], self.attribute_ids[rows], self.attribute_numbers[rows], **media, mask=mask
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By the names of the product encoder's inputs, in their order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def prepare_products(
    products: Sequence[ProductContent], limits: MediaLimits | None = None, image_size: int = IMAGE_SIZE
) -> PreparedProducts:
    """Ids, media and the mask of what is there. Raises BadMedia with the product and the modality of a medium that
    cannot be decoded."""
    text_ids = prepare_texts([product.text for product in products])
    attribute_ids = prepare_attributes(products)
    mask = np.zeros((len(products), len(MODALITIES)), np.float32)
    mask[:, _TEXT] = (text_ids > 0).any(1)
    mask[:, _ATTRIBUTES] = (attribute_ids > 0).any(1)
    decoded: dict[str, list[NDArray[Any]]] = {"image": [], "video": [], "audio": []}
    decode = _decoders(limits or MediaLimits(), image_size)
    for row, product in enumerate(products):
        for name, found in decoded.items():
            data: bytes | None = getattr(product, name)
            if data is not None:
                try:
                    found.append(decode[name](data))
                except BadMedia as error:
                    raise BadMedia(error.reason, product_id=product.product_id, modality=name) from error
                mask[row, MODALITIES.index(name)] = 1
    return PreparedProducts(
        text_ids,
        attribute_ids,
        prepare_numbers(products),
        image=_stacked(decoded["image"], (image_size, image_size, 3), np.uint8),
        video=_stacked(decoded["video"], (FRAMES, image_size, image_size, 3), np.uint8),
        audio=_stacked(decoded["audio"], (MELS, AUDIO_FRAMES), np.float32),
        mask=mask,
    )


def portions(products: Sequence[ProductContent], image_size: int) -> Iterator[Sequence[ProductContent]]:
    """The products in order, as many at a time as one call of the product encoder takes."""
    picture, sound = 3 * image_size**2, 4 * MELS * AUDIO_FRAMES
    first, size = 0, 0
    for row, product in enumerate(products):
        own = picture * ((product.image is not None) + FRAMES * (product.video is not None))
        own += sound * (product.audio is not None)
        if row > first and (size + own > CALL_BYTES or row - first == CALL_ROWS):
            yield products[first:row]
            first, size = row, 0
        size += own
    if products:
        yield products[first:]


def check_medium(name: str, data: bytes, limits: MediaLimits | None = None) -> None:
    """Raise BadMedia when the medium of that modality (image, video, audio) cannot be decoded within its limits."""
    _decoders(limits or MediaLimits(), IMAGE_SIZE)[name](data)


def _decoders(limits: MediaLimits, image_size: int) -> Mapping[str, Callable[[bytes], NDArray[Any]]]:
    return {
        "image": partial(decode_image, limits=limits, size=image_size),
        "video": partial(decode_video, limits=limits, size=image_size),
        "audio": partial(decode_audio, limits=limits),
    }


def _stacked(found: list[NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.stack(found) if found else np.zeros((0, *shape), dtype)
