"""A shop from a seed: products, live sets that hold them, and price events that fall on products by Zipf."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Product, ResultSet

COLOURS = ("white", "black", "red", "blue", "green", "grey", "yellow", "pink")
THINGS = ("shirt", "hoodie", "skirt", "jacket", "mug", "lamp", "clock", "bag", "tin", "candle")
LOWEST, HIGHEST = 500, 9_000
ZIPF_EXPONENT = 1.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class World:
    """`skewed` draws candidates by Zipf as well: the products that change most then lie in most sets."""

    products: int
    sets: int
    candidates: int
    skewed: bool = False
    seed: int = 1

    @property
    def name(self) -> str:
        return "zipf" if self.skewed else "uniform"

    def product_id(self, number: int) -> str:
        return f"p{number:07d}"

    def set_id(self, number: int) -> str:
        return f"{self.name}-{number:06d}"

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Share of the events that falls on each product."""
        ranks = np.random.default_rng(self.seed).permutation(self.products) + 1.0
        shares = ranks.astype(np.float64) ** -ZIPF_EXPONENT
        return np.asarray(shares / shares.sum(), np.float64)

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """Products of each set: [sets, candidates], without doubles in a set."""
        rng = np.random.default_rng(self.seed + 1)
        shares = self.weights if self.skewed else None
        chosen = [rng.choice(self.products, self.candidates, replace=False, p=shares) for _ in range(self.sets)]
        return np.stack(chosen)

    @cached_property
    def holders(self) -> NDArray[np.int64]:
        """How many sets hold each product."""
        return np.bincount(self.members.ravel(), minlength=self.products)

    def catalog(self, event_time: int) -> Iterator[Product]:
        """Every product, in stock and with a price."""
        rng = np.random.default_rng(self.seed + 2)
        for number in range(self.products):
            colour, thing = COLOURS[number % len(COLOURS)], THINGS[number // len(COLOURS) % len(THINGS)]
            yield Product(
                product_id=self.product_id(number),
                event_time=event_time,
                title=f"{colour} {thing} {number}",
                price=int(rng.integers(LOWEST, HIGHEST)),
                stock=int(rng.integers(1, 100)),
                currency="GBP",
            )

    def result_sets(self, event_time: int) -> Iterator[ResultSet]:
        """Every set as its registration."""
        rng = np.random.default_rng(self.seed + 3)
        for number, products in enumerate(self.members.tolist()):
            scores = rng.random(self.candidates).round(4).tolist()
            yield ResultSet(
                result_set_id=self.set_id(number),
                event_time=event_time,
                kind="search",
                query=f"{COLOURS[number % len(COLOURS)]} {THINGS[number % len(THINGS)]}",
                candidates=[(self.product_id(p), score) for p, score in zip(products, scores, strict=True)],
            )

    def changed(self, events: int, seed: int) -> list[int]:
        """The product of each event."""
        numbers: list[int] = np.random.default_rng(seed).choice(self.products, events, p=self.weights).tolist()
        return numbers

    def price_events(self, events: int, seed: int) -> Iterator[Product]:
        """Price patches; a price is never the one before. Event times are of the moment they are asked for."""
        prices = np.random.default_rng(seed + 1).permutation(HIGHEST - LOWEST) + LOWEST
        for place, number in enumerate(self.changed(events, seed)):
            price = int(prices[place % len(prices)])
            yield Product(product_id=self.product_id(number), event_time=now_ms(), price=price)
