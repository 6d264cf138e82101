"""What the client does before it calls a model: text -> ids, attributes -> ids, media bytes -> numbers. No torch.

Decoding strangers' bytes happens here, in the worker, under limits; the nets see only numbers. Everything is
deterministic, so a content row can be made again from its content.

    text.py            text of any language -> ids of hashed pieces                          (pure)
    attributes.py      brand, category and attributes -> ids of hashed name=value pieces, numbers (pure)
    limits.py          how large a medium may be
    image.py           picture bytes -> pixels
    video.py           video bytes -> frames, by a child process
    audio.py           sound bytes -> log-mel, by a child process
    sandbox.py         the child process: it may crash, it may not take long
    sandbox_child.py   what runs in it
    container.py       a file of video or sound, opened under limits
    frames.py          video bytes -> frames, in the child
    sound.py           sound bytes -> log-mel, in the child
    products.py        products -> what the product encoder reads; is a medium good?
"""

from serving.preprocess.attributes import (
    ATTRIBUTE_BUCKETS,
    ATTRIBUTE_LENGTH,
    ATTRIBUTE_NUMBERS,
    NUMBER_PIECES,
    attribute_ids,
    attribute_numbers,
)
from serving.preprocess.audio import AUDIO_FRAMES, MELS, decode_audio
from serving.preprocess.image import IMAGE_SIZE, decode_image
from serving.preprocess.limits import MediaLimits
from serving.preprocess.products import PreparedProducts, check_medium, portions, prepare_products
from serving.preprocess.text import TEXT_BUCKETS, TEXT_LENGTH, prepare_texts, text_ids
from serving.preprocess.video import FRAMES, decode_video

__all__ = [
    "ATTRIBUTE_BUCKETS",
    "ATTRIBUTE_LENGTH",
    "ATTRIBUTE_NUMBERS",
    "AUDIO_FRAMES",
    "FRAMES",
    "IMAGE_SIZE",
    "MELS",
    "NUMBER_PIECES",
    "TEXT_BUCKETS",
    "TEXT_LENGTH",
    "MediaLimits",
    "PreparedProducts",
    "attribute_ids",
    "attribute_numbers",
    "check_medium",
    "decode_audio",
    "decode_image",
    "decode_video",
    "portions",
    "prepare_products",
    "prepare_texts",
    "text_ids",
]
