"""What the client does before it calls a model: text -> ids, attributes -> ids, media bytes -> numbers. No torch.

Decoding strangers' bytes happens here, in the worker, under limits; the nets see only numbers. Everything is
deterministic, so a content row can be made again from its content.

    text.py          text of any language -> ids of hashed pieces                            (pure)
    limits.py        how large a medium may be
    image.py         picture bytes -> pixels
    products.py      products -> what the product encoder reads; is a medium good?
"""

from serving.preprocess.image import IMAGE_SIZE, decode_image
from serving.preprocess.limits import MediaLimits
from serving.preprocess.products import PreparedProducts, check_medium, prepare_products
from serving.preprocess.text import TEXT_BUCKETS, TEXT_LENGTH, prepare_texts, text_ids

__all__ = [
    "IMAGE_SIZE",
    "TEXT_BUCKETS",
    "TEXT_LENGTH",
    "MediaLimits",
    "PreparedProducts",
    "check_medium",
    "decode_image",
    "prepare_products",
    "prepare_texts",
    "text_ids",
]
