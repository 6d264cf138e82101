"""The last events of a user -> one vector. Pure NumPy.

The vector is made when it is needed, from the events and from what their products look like by then; nothing is
folded along the way, so whoever has the events and the content rows gets the same vector.
"""

from collections.abc import Mapping, Sequence
from math import log1p
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.views import MODALITIES, TASTES, USER_DIM

#: What an event says about taste: for, against. Signs only: how much taste counts is learned by the ranker, and a
#: return takes back its purchase. An impression says by how much its product was passed over: see `user_vector`.
EVENT_WEIGHTS: Final[Mapping[str, float]] = {"click": 1.0, "cart": 1.0, "purchase": 1.0, "return": -1.0}
#: products of unknown taste that every user begins with: few events say little
PRIOR_PRODUCTS: Final = 10

_TASTES: Final = [MODALITIES.index(modality) for modality in TASTES]


def user_vector(
    history: Sequence[tuple[str, str, int | None, int]],
    contents: Mapping[str, NDArray[np.float32]],
    click_rates: Sequence[float] = (),
) -> NDArray[np.float32]:
    """A user's taste [U] for each modality of TASTES, how much is known of it and which way it leans; zeros for nobody.

    The taste is the residual of each product, done less expected, times its content vectors, summed and shrunk by how
    few products there are. Expected of an impression is the click rate at its position (`click_rates`, the last one
    further down and where no position is known; 0 without any), so what was passed over counts against a taste, less
    so where few people look (Joachims et al. 2005, doi:10.1145/1076034.1076063).

    `history` is [(type, product_id, position, event_time)]; `contents` are the content vectors [M, D] of the products
    that are known, zeros for missing modalities; other products are skipped.
    """
    residuals: dict[str, float] = {}
    for kind, product_id, position, _event_time in history:
        if product_id in contents:
            weight = -_expected(click_rates, position) if kind == "impression" else EVENT_WEIGHTS[kind]
            if weight:
                residuals[product_id] = residuals.get(product_id, 0.0) + weight
    if not residuals:
        return np.zeros(USER_DIM, np.float32)
    vectors = np.stack([contents[product_id][_TASTES] for product_id in residuals]).reshape(len(residuals), -1)
    weights = np.array(list(residuals.values()))
    known = len(residuals) + PRIOR_PRODUCTS
    taste = weights @ vectors.astype(np.float64)
    lean = np.array([log1p(len(residuals)), weights.sum() / known])
    return np.concatenate([taste / known, lean]).astype(np.float32)


def _expected(click_rates: Sequence[float], position: int | None) -> float:
    if not click_rates:
        return 0.0
    return click_rates[position] if position is not None and 0 <= position < len(click_rates) else click_rates[-1]
