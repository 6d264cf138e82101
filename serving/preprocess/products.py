"""Products -> what the product encoder reads: ids, pixels and the mask of what is there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.views import MODALITIES
from serving.errors import BadMedia
from serving.preprocess.image import IMAGE_SIZE, decode_image
from serving.preprocess.limits import MediaLimits
from serving.preprocess.text import prepare_texts
from serving.requests import ProductContent


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


def check_medium(name: str, data: bytes, limits: MediaLimits | None = None) -> None:
    """Raise BadMedia when the medium of that modality (image, video, audio) cannot be decoded within its limits."""
    if name == "image":
        decode_image(data, limits)
