"""The last events of a user -> one vector. Pure NumPy.

The vector is made when it is needed, from the events and from what their products look like by then; nothing is
folded along the way, so whoever has the events and the content rows gets the same vector.
"""

from collections.abc import Mapping, Sequence
from math import log1p
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.views import LIKENESS, TASTE_SLOTS, USER_DIM

#: What an event says about taste: for, against. Signs only: how much taste counts is learned by the ranker, and a
#: return takes back its purchase. An impression says by how much its product was passed over: see `user_vector`.
EVENT_WEIGHTS: Final[Mapping[str, float]] = {"click": 1.0, "cart": 1.0, "purchase": 1.0, "return": -1.0}
#: products of unknown taste that every user begins with: few events say little
PRIOR_PRODUCTS: Final = 10
#: of the ridge: after as many products that are all alike, half of what they say is believed
RIDGE: Final = 1.0

_SUMMED: Final = [slot for slot in TASTE_SLOTS if slot not in LIKENESS]


def user_vector(
    history: Sequence[tuple[str, str, int | None, int]],
    contents: Mapping[str, NDArray[np.float32]],
    click_rates: Sequence[float] = (),
) -> NDArray[np.float32]:
    """A user's taste [U] for each of TASTE_SLOTS, how much is known of it and which way it leans; zeros for nobody.

    The taste is the residual of each product, done less expected, times its content vectors, summed and shrunk by how
    few products there are; in likeness, whose vectors nobody has learned, it is a regression (see `_ridge`). Expected
    of an impression is the click rate at its position (`click_rates`, the last one further down and where no position
    is known; 0 without any), so what was passed over counts against a taste, less so where few people look (Joachims
    et al. 2005, doi:10.1145/1076034.1076063).

    `history` is [(type, product_id, position, event_time)]; `contents` are the content vectors [S, D] of the products
    that are known, zeros for missing modalities; other products are skipped.
    """
    met = {name: residual for name, residual in residuals(history, click_rates).items() if name in contents}
    if not met:
        return np.zeros(USER_DIM, np.float32)
    vectors = np.stack([contents[product_id] for product_id in met]).astype(np.float64)
    weights = np.array(list(met.values()))
    known = len(met) + PRIOR_PRODUCTS
    summed = weights @ vectors[:, _SUMMED].reshape(len(weights), -1) / known
    likeness = _ridge(vectors[:, LIKENESS].reshape(len(weights), -1), weights)
    lean = np.array([log1p(len(weights)), weights.sum() / known])
    return np.concatenate([summed, likeness, lean]).astype(np.float32)


def residuals(
    history: Sequence[tuple[str, str, int | None, int]], click_rates: Sequence[float] = ()
) -> dict[str, float]:
    """By product of a history, what the user did with it less what was expected: see `user_vector`. A product of which
    nothing was expected and with which nothing was done is not in it."""
    found: dict[str, float] = {}
    for kind, product_id, position, _event_time in history:
        weight = -_expected(click_rates, position) if kind == "impression" else EVENT_WEIGHTS[kind]
        if weight:
            found[product_id] = found.get(product_id, 0.0) + weight
    return found


def _ridge(vectors: NDArray[np.float64], residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """vectors [n, W], residuals [n] -> the taste [W] whose products with the vectors come nearest to the residuals
    while it stays small (ridge regression: Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634): what many of
    the products have in common is not counted as often as that."""
    together = vectors.T @ vectors + RIDGE * np.eye(vectors.shape[1])
    taste: NDArray[np.float64] = np.linalg.solve(together, vectors.T) @ residuals
    return taste


def _expected(click_rates: Sequence[float], position: int | None) -> float:
    if not click_rates:
        return 0.0
    return click_rates[position] if position is not None and 0 <= position < len(click_rates) else click_rates[-1]
