"""Plain text retrieval over a catalogue: BM25 on words, and on pairs of characters where a script has no spaces.

It stands in for the shop's own search: what it finds are the candidates of a live result set, and its scores the
ranker's `retrieval[N]`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.datasets.online_retail import History

K1: Final = 1.2
B: Final = 0.75
SCORE_DIGITS: Final = 5
#: a query's words stand together in at least so many titles
LEAST_TITLES: Final = 3

#: a run of Chinese, Japanese or Korean characters, or else a word
RUN = re.compile(
    r"(?P<cjk>[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+)|(?P<word>[a-z0-9]+(?:['-][a-z0-9]+)*|[^\W_])"
)
STOP_WORDS = frozenset(
    ("and", "assorted", "asstd", "by", "colour", "for", "from", "in", "of", "on", "or", "the", "to", "with")
)


@dataclass(frozen=True, slots=True)
class Postings:
    """The titles that hold a term: `items[n]` int32 positions and what the term adds to each, `weights[n]` float64."""

    items: NDArray[np.int32]
    weights: NDArray[np.float64]


def tokens(text: str) -> list[str]:
    """Words in lower case without a plural s, `"Red Mugs"` -> `["red", "mug"]`; of `"白色衬衫"` pairs of neighbours."""
    found: list[str] = []
    for run in RUN.finditer(text.lower()):
        if word := run["word"]:
            found.append(_singular(word))
        elif len(run["cjk"]) == 1:
            found.append(run["cjk"])
        else:
            found.extend(first + second for first, second in pairwise(run["cjk"]))
    return found


class TextIndex:
    """Titles by term. Equal scores go by product id, so the same titles and query always give the same list."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        ordered = sorted(items)
        self._ids = [product_id for product_id, _ in ordered]
        self._postings = _postings([tokens(title) for _, title in ordered])

    def search(self, query: str, k: int = 100) -> list[tuple[str, float]]:
        """The best k products that hold a term of the query, best first, each with its score (> 0)."""
        scores = self._scores(query)
        best = np.argsort(-scores, kind="stable")[:k]
        return [(self._ids[item], float(scores[item])) for item in best if scores[item] > 0]

    def candidates(self, query: str, k: int = 100) -> list[tuple[str, float]]:
        """`search`, filled up to k with products that do not match, scored 0, in order of id."""
        found = self.search(query, k)
        taken = {product_id for product_id, _ in found}
        rest = [(product_id, 0.0) for product_id in self._ids if product_id not in taken]
        return found + rest[: k - len(found)]

    def matches(self, query: str) -> int:
        """How many products hold a term of the query."""
        return int(np.count_nonzero(self._scores(query)))

    def _scores(self, query: str) -> NDArray[np.float64]:
        scores = np.zeros(len(self._ids))
        for term in sorted(set(tokens(query))):
            if posting := self._postings.get(term):
                scores[posting.items] += posting.weights
        return np.round(scores, SCORE_DIGITS)


def queries(history: History, least: int = 100) -> list[str]:
    """One or two words of a title that find `least` products or more, commonest first."""
    index = TextIndex([(product.product_id, str(product.title)) for product in history.products])
    asked: Counter[str] = Counter()
    for product in history.products:
        asked.update(_phrases(str(product.title)))
    common = [phrase for phrase, titles in asked.items() if titles >= LEAST_TITLES and index.matches(phrase) >= least]
    return sorted(common, key=lambda phrase: (-asked[phrase], phrase))


def _phrases(title: str) -> set[str]:
    """The telling words of a title, and each two of them in the order of the title."""
    words = [word for word in title.lower().split() if word.isalpha() and len(word) > 1 and word not in STOP_WORDS]
    return {*words, *(f"{first} {second}" for first, second in combinations(words, 2) if first != second)}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "'s")) else word


def _postings(documents: Sequence[Sequence[str]]) -> dict[str, Postings]:
    """BM25 weights of each term in each document, worked out once."""
    places: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for item, document in enumerate(documents):
        for term, count in Counter(document).items():
            places[term].append((item, count))
    lengths = np.array([len(document) for document in documents], dtype=np.float64)
    norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1.0)) if len(documents) else lengths
    return {term: _weighted(np.array(place), norm) for term, place in places.items()}


def _weighted(place: NDArray[np.int64], norm: NDArray[np.float64]) -> Postings:
    items, counts = place[:, 0].astype(np.int32), place[:, 1]
    rarity = np.log(1 + (len(norm) - len(items) + 0.5) / (len(items) + 0.5))
    return Postings(items=items, weights=rarity * counts * (K1 + 1) / (counts + norm[items]))
