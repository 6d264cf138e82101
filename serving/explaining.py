"""Why did it move: two rankings of one set -> what changed about each product, in the terms of a shop. Pure NumPy.

A ranking holds scores and what they are made of, not the numbers behind them; stock it holds in its order: whatever is
sold out stands below everything that is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from serving.requests import CONTRIBUTIONS

Stock = Literal["sold out", "back in stock"]

#: a part that changed by less is as it was; scores are rounded to 5 decimals
SMALLEST: Final = 5e-4
#: what a score changed by that none of its parts tells: a stopgap's price while the model was away
REST: Final = "rest"


@dataclass(frozen=True, eq=False)
class Listing:
    """A ranking of n products: `scores` [n] and `contributions` [n, len(CONTRIBUTIONS)] in order of rank."""

    product_ids: Sequence[str]
    scores: NDArray[np.float32]
    contributions: NDArray[np.float32] | None = None

    @property
    def sold_out_from(self) -> int:
        """The first position that only stock explains: a score that is better than the one above it. n without one.

        A product that is sold out and worst anyway stands where it would stand with stock, and is not told apart.
        """
        above, below = self.scores[:-1], self.scores[1:]
        tied = [one > next_one for one, next_one in zip(self.product_ids, self.product_ids[1:], strict=False)]
        (breaks,) = np.nonzero((below > above) | ((below == above) & np.array(tied, bool)))
        return int(breaks[0]) + 1 if len(breaks) else len(self.product_ids)


@dataclass(frozen=True)
class Movement:
    """What happened to one product. Ranks count from 1, None where it was not in the list; `parts` has what its score
    changed by, part by part, as far as both rankings tell."""

    product_id: str
    rank_before: int | None
    rank_after: int | None
    score_before: float | None
    score_after: float | None
    stock: Stock | None
    parts: Mapping[str, float]

    @property
    def change(self) -> float:
        """By how much the score changed; 0 for what is new or gone."""
        if self.score_before is None or self.score_after is None:
            return 0.0
        return self.score_after - self.score_before

    @property
    def is_still(self) -> bool:
        """Whether it stands where it stood, with the score that it had."""
        return self.rank_before == self.rank_after and abs(self.change) < SMALLEST and self.stock is None


@dataclass(frozen=True)
class Passing:
    """Two products that changed places: `winner` is now above `loser`. `parts`: by what it gained on it, `stock`: of
    which of the two the stock changed, where that decided it."""

    winner: str
    loser: str
    parts: Mapping[str, float]
    stock: Mapping[str, Stock]


@dataclass(frozen=True)
class Explanation:
    """One product's movement, and whom it passed or was passed by, the nearest ranks first."""

    movement: Movement
    passings: tuple[Passing, ...]


def movements(before: Listing, after: Listing) -> tuple[Movement, ...]:
    """Every product of the two rankings in order of rank, what is gone last."""
    ranks = {product_id: rank for rank, product_id in enumerate(after.product_ids)}
    gone = [product_id for product_id in before.product_ids if product_id not in ranks]
    places = {product_id: rank for rank, product_id in enumerate(before.product_ids)}
    return tuple(
        _movement(product_id, before, after, places.get(product_id), ranks.get(product_id))
        for product_id in (*after.product_ids, *gone)
    )


def explanation(before: Listing, after: Listing, product_id: str) -> Explanation:
    """Why one product stands where it stands now. Raises ValueError for one that is in neither ranking."""
    all_of_them = {movement.product_id: movement for movement in movements(before, after)}
    if product_id not in all_of_them:
        raise ValueError(f"product {product_id} is in neither ranking")
    own = all_of_them[product_id]
    others = [other for other in all_of_them.values() if _changed_places(own, other)]
    nearest = sorted(others, key=lambda other: abs((other.rank_after or 0) - (own.rank_after or 0)))
    return Explanation(own, tuple(_passing(own, other) for other in nearest))


def most(parts: Mapping[str, float], count: int = 2) -> list[tuple[str, float]]:
    """The parts that changed, the greatest change first."""
    changed = [(name, value) for name, value in parts.items() if abs(value) >= SMALLEST]
    return sorted(changed, key=lambda part: -abs(part[1]))[:count]


def _movement(product_id: str, before: Listing, after: Listing, was: int | None, now: int | None) -> Movement:
    stock: Stock | None = None
    parts: Mapping[str, float] = {}
    if was is not None and now is not None:
        out_before, out_after = was >= before.sold_out_from, now >= after.sold_out_from
        if out_before != out_after:
            stock = "sold out" if out_after else "back in stock"
        parts = _changes(before, after, was, now)
    return Movement(
        product_id=product_id,
        rank_before=None if was is None else was + 1,
        rank_after=None if now is None else now + 1,
        score_before=None if was is None else float(before.scores[was]),
        score_after=None if now is None else float(after.scores[now]),
        stock=stock,
        parts=parts,
    )


def _changes(before: Listing, after: Listing, was: int, now: int) -> dict[str, float]:
    """What a score changed by, part by part; the parts sum to the change."""
    if before.contributions is None or after.contributions is None:
        return {}
    changes = after.contributions[now].astype(np.float64) - before.contributions[was]
    rest = float(after.scores[now]) - float(before.scores[was]) - float(changes.sum())
    found = dict(zip(CONTRIBUTIONS, changes.tolist(), strict=True))
    return {**found, REST: rest} if abs(rest) >= SMALLEST else found


def _changed_places(one: Movement, other: Movement) -> bool:
    if None in (one.rank_before, one.rank_after, other.rank_before, other.rank_after):
        return False
    return (_before(one) - _before(other)) * (_after(one) - _after(other)) < 0


def _passing(one: Movement, other: Movement) -> Passing:
    winner, loser = (one, other) if _after(one) < _after(other) else (other, one)
    parts = {name: value - loser.parts.get(name, 0.0) for name, value in winner.parts.items()}
    stock = {each.product_id: each.stock for each in (winner, loser) if each.stock is not None}
    return Passing(winner.product_id, loser.product_id, parts, stock)


def _before(movement: Movement) -> int:
    return movement.rank_before or 0


def _after(movement: Movement) -> int:
    return movement.rank_after or 0
