"""From scores to an order, with a model and without one. Pure NumPy.

Candidates are kept sorted by product_id, so a stable sort settles equal scores by id.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]
Longs: TypeAlias = NDArray[np.int64]

#: decimals of a published score; differences below are the arithmetic's, not the model's
SCORE_DECIMALS = 5


def rounded(logits: NDArray[np.floating[Any]]) -> Doubles:
    """Logits as published: float64, 5 decimals, half-even."""
    return logits.astype(np.float64).round(SCORE_DECIMALS)


def order(scores: Doubles, stock: Longs) -> Longs:
    """Positions [n] in order of rank: what is in stock first (unknown, -1, counts as in stock), then by falling
    score, then by position. `scores` [n] as `rounded` gives them."""
    return np.lexsort((-scores, stock == 0)).astype(np.int64, copy=False)


def degraded_scores(last_scores: Doubles, price_now: Longs, price_scored: Longs, price_weight: float) -> Doubles:
    """Scores [n] while the model is away: the last ones less price_weight * ln(price now / price when scored).

    A price that is unknown (-1) or nil on either side corrects nothing.
    """
    known = (price_now > 0) & (price_scored > 0)
    ratio = np.where(known, price_now, 1) / np.where(known, price_scored, 1)
    return rounded(last_scores - price_weight * np.log(ratio))
