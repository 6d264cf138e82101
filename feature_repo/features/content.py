"""Content of a product: the vectors that an encoder made of it."""

import numpy as np
from msgspec import Struct, structs

from feature_repo.features.packing import pack, unpack


class ContentState(Struct):
    """The vectors of the newest content: `numbers` are the float32 fields of views.PRODUCT_CONTENT, packed."""

    version: int = 0
    newest: int = 0
    encoder: str = ""
    content_hash: str = ""
    numbers: bytes = b""


def content_values(state: ContentState) -> list[float]:
    """float32 fields of views.PRODUCT_CONTENT, flattened."""
    values: list[float] = np.frombuffer(state.numbers, dtype="<f4").tolist()
    return values


def pack_content(state: ContentState) -> bytes:
    return pack(structs.astuple(state))


def unpack_content(data: bytes) -> ContentState:
    return ContentState(*unpack(data))
