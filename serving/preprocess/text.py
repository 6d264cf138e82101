"""Text of any language -> ids of hashed pieces of its words: no vocabulary, nothing to download."""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

#: ids per text; 0 is padding
TEXT_LENGTH = 64
#: number of ids, padding included
TEXT_BUCKETS = 8192

_WORD = re.compile(r"\w+")
#: longest word that is read; a longer one is cut, so that no text takes long
_WORD_LENGTH = 32


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
