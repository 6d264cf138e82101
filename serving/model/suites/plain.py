"""The features that anybody would give a gradient-boosted ranker: counters, the product's own numbers, and how much it
has in common with what the user clicked and with what the user passed by."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Product
from feature_repo.views import NUMERIC_FIELDS
from serving.model.dataset import RankedList

COUNTERS: Final = ("views_24h", "clicks_1h", "clicks_24h", "ctr_24h")
COLUMNS: Final = tuple(NUMERIC_FIELDS.index(name) for name in COUNTERS)
RATE: Final = COUNTERS.index("ctr_24h")
JOINT: Final = "|"


class Plain:
    """Feature tables of lists over one catalogue. Attributes that are numbers are features; those that are words say
    what two products share; the two with the most words also count them."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._attributes = [product.attributes if isinstance(product.attributes, dict) else {} for product in products]
        self._rows = {product.product_id: row for row, product in enumerate(products)}
        kinds = {name: type(value) for attributes in self._attributes for name, value in attributes.items()}
        self._numbers = sorted(name for name, kind in kinds.items() if kind in (int, float))
        self._words = sorted(name for name, kind in kinds.items() if kind is str)
        self._known = [{name: self._split(row, name) for name in self._words} for row in range(len(products))]
        lengths = {name: sum(len(known[name]) for known in self._known) for name in self._words}
        self._counted = sorted(self._words, key=lambda name: -lengths[name])[:2]
        self._own = np.array([self._own_numbers(row) for row in range(len(products))], np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        """One for each column of `table`."""
        return (
            "position",
            *COUNTERS,
            "place by ctr_24h",
            *self._numbers,
            *(f"number of {name}" for name in self._counted),
            *("user_views", "user_clicks", "user_ctr"),
            *(f"{name} clicked" for name in self._words),
            *(f"{name} passed by" for name in self._words),
        )

    def table(self, one: RankedList) -> NDArray[np.float32]:
        """[n, P] of one list, from what it knows and nothing else."""
        counters = one.numeric[:, COLUMNS]
        place = np.argsort(np.argsort(-counters[:, RATE], kind="stable"), kind="stable")
        clicked, passed, user = self._user(one)
        shared = [
            [sum(words[word] for word in self._known[row][name]) for words, name in zip(side, self._words, strict=True)]
            for side in (clicked, passed)
            for row in one.items
        ]
        matches = np.array(shared, np.float32).reshape(2, len(one.items), len(self._words))
        return np.column_stack(
            (one.retrieval, counters, place, self._own[one.items], np.tile(user, (len(one.items), 1)), *matches)
        ).astype(np.float32)

    def _user(self, one: RankedList) -> tuple[list[Counter[str]], list[Counter[str]], list[float]]:
        """The words of what the user clicked and of what the user passed by, and how much that was."""
        clicks = {product for kind, product, _, _ in one.history if kind == "click"}
        views = [product for kind, product, _, _ in one.history if kind == "impression"]
        passed = [product for product in views if product not in clicks]
        user = [len(views), len(clicks), (len(clicks) + 1) / (len(views) + 20)]
        return self._words_of(sorted(clicks)), self._words_of(passed), user

    def _words_of(self, products: Sequence[str]) -> list[Counter[str]]:
        rows = [self._rows[product] for product in products if product in self._rows]
        return [Counter(word for row in rows for word in self._known[row][name]) for name in self._words]

    def _split(self, row: int, name: str) -> tuple[str, ...]:
        value = self._attributes[row].get(name)
        return tuple(value.split(JOINT)) if isinstance(value, str) else ()

    def _own_numbers(self, row: int) -> list[float]:
        values = [self._attributes[row].get(name) for name in self._numbers]
        numbers = [float(value) if isinstance(value, int | float) else np.nan for value in values]
        return [*numbers, *(float(len(self._known[row][name])) for name in self._counted)]
