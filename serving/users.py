"""The last events of a user -> one vector. Pure NumPy.

The vector is made when it is needed, from the events and from what their products look like by then; nothing is
folded along the way, so whoever has the events and the content rows gets the same vector.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.views import USER_DIM

#: What an event says about taste: for, against, nothing. Signs only: how much taste counts is learned by the ranker,
#: and a return takes back its purchase. An impression is the shop's choice, not the shopper's.
EVENT_WEIGHTS: Final[Mapping[str, float]] = {
    "impression": 0.0,
    "click": 1.0,
    "cart": 1.0,
    "purchase": 1.0,
    "return": -1.0,
}


def user_vector(
    history: Sequence[tuple[str, str, int | None, int]], text_vectors: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Weighted mean [U] of the text vectors of the products of `history`, zeros when there is none.

    `history` is [(type, product_id, position, event_time)], oldest first; it is summed in that order, in float64.
    Products without a vector are skipped.
    """
    total = np.zeros(USER_DIM, np.float64)
    mass = 0.0
    for kind, product_id, _position, _event_time in history:
        weight = EVENT_WEIGHTS[kind]
        vector = text_vectors.get(product_id)
        if weight and vector is not None:
            total += weight * vector
            mass += abs(weight)
    return (total / mass if mass else total).astype(np.float32)
