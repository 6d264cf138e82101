"""What a shop knows about a product by name -> ids of hashed `name=value` pieces, and its numbers by hashed name.

An unordered set, no vocabulary."""

import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from math import copysign, floor, isfinite, log1p, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Attribute
from serving.requests import ProductContent

#: ids per product; 0 is padding
ATTRIBUTE_LENGTH: Final = 64
#: number of ids, padding included
ATTRIBUTE_BUCKETS: Final = 32_768
#: first of the ids that pieces of numbers have; texts and truth values have those below
NUMBER_PIECES: Final = 24_576
#: places for numbers by hashed name
ATTRIBUTE_NUMBERS: Final = 512

#: between the values of an attribute that has several: "drama|comedy"
_SEPARATOR: Final = "|"
#: longest value that is read; a longer one is cut
_VALUE_LENGTH: Final = 64


def prepare_attributes(products: Sequence[ProductContent]) -> NDArray[np.int32]:
    """Ids [N, ATTRIBUTE_LENGTH] of products."""
    ids = [attribute_ids(product.brand, product.category, product.attributes) for product in products]
    return np.stack(ids) if ids else np.zeros((0, ATTRIBUTE_LENGTH), np.int32)


def prepare_numbers(products: Sequence[ProductContent]) -> NDArray[np.float32]:
    """Numbers [N, ATTRIBUTE_NUMBERS] of products."""
    numbers = [attribute_numbers(product.attributes) for product in products]
    return np.stack(numbers) if numbers else np.zeros((0, ATTRIBUTE_NUMBERS), np.float32)


def attribute_ids(brand: str, category: Sequence[str], attributes: Mapping[str, Attribute]) -> NDArray[np.int32]:
    """Ids [ATTRIBUTE_LENGTH] of a product's brand, levels of category and attributes, padded with 0.

    A text is one piece for each of its values, a number one for each of two resolutions, a truth value one. The order
    of the attributes, upper case and width (NFKC) make no difference. Of more pieces than there is room for, each
    attribute keeps its first ones.
    """
    named = [_texts("brand", [brand]), _texts("category", category)]
    named += [_pieces(name, attributes[name]) for name in sorted(attributes)]
    # one piece of each attribute in turn: a long one does not crowd the others out
    in_turn = (piece for piece in chain.from_iterable(zip_longest(*named)) if piece is not None)
    hashed = [_bucket(*piece) for piece in in_turn]
    ids = np.zeros(ATTRIBUTE_LENGTH, np.int32)
    kept = list(dict.fromkeys(hashed))[:ATTRIBUTE_LENGTH]
    ids[: len(kept)] = kept
    return ids


def attribute_numbers(attributes: Mapping[str, Attribute]) -> NDArray[np.float32]:
    """The attributes that are numbers [ATTRIBUTE_NUMBERS], NaN where there is none: ln(1 + |number|) with its sign, at
    the hash of the name. Where names meet, the first of them stays."""
    numbers = np.full(ATTRIBUTE_NUMBERS, np.nan, np.float32)
    for name in sorted(attributes, reverse=True):
        value = attributes[name]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
            numbers[_hashed(_folded(name)) % ATTRIBUTE_NUMBERS] = copysign(log1p(abs(value)), value)
    return numbers


#: a piece, and whether it is one of a number
_Piece = tuple[str, bool]


def _bucket(piece: str, is_number: bool) -> int:
    if is_number:
        return NUMBER_PIECES + _hashed(piece) % (ATTRIBUTE_BUCKETS - NUMBER_PIECES)
    return 1 + _hashed(piece) % (NUMBER_PIECES - 1)


def _hashed(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))


def _pieces(name: str, value: Attribute) -> Iterator[_Piece]:
    if isinstance(value, bool):
        return iter([(f"{_folded(name)}={value}", False)])
    if isinstance(value, str):
        return _texts(name, value.split(_SEPARATOR))
    if value is None or not isfinite(value):
        return iter(())
    return _numbers(_folded(name), float(value))


def _texts(name: str, values: Sequence[str]) -> Iterator[_Piece]:
    name = _folded(name)
    return ((f"{name}={text}", False) for value in values if (text := _folded(value)))


def _numbers(name: str, value: float) -> Iterator[_Piece]:
    """The value in three digits (a size, a decade) and its place on a logarithmic scale, two steps an octave."""
    octave = floor(2 * log2(abs(value))) / 2 if value else "zero"
    return iter(((f"{name}={value:.3g}", True), (f"{name}~{'-' if value < 0 else ''}{octave}", True)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text[:_VALUE_LENGTH]).strip().lower()
