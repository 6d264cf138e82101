"""Many lists put in order at once: one matrix, one sort. Pure NumPy.

A candidate's key is an integer: whether it is left out, whether it is sold out, its falling score, its position. Keys
are all different, so any sort gives the one order that `serving.ranking.order` gives for a single list.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.ranking import SCORE_DECIMALS, Doubles, order
from streams.places import Numbers

Flags = NDArray[np.bool_]

_POSITION_BITS = 16
_POSITIONS = (1 << _POSITION_BITS) - 1
UNIT = 10.0**SCORE_DECIMALS
#: scores (in units of their last decimal) that leave room for the flags above and the position below
_GREATEST = 1 << 43
_SOLD_OUT = 1 << 61
_LEFT_OUT = 1 << 62


def in_units(scores: NDArray[np.floating[Any]]) -> Doubles:
    """Scores in units of the last decimal that is published, whole numbers: divided by UNIT they are `rounded`."""
    units = scores.astype(np.float64)
    units *= UNIT
    return np.rint(units, units)


def orders(units: Doubles, sold_out: Flags | None, left_out: Flags | None) -> Numbers:
    """Positions in order of rank [G, W] for G lists of W candidates, those left out last. `units` are the scores as of
    `in_units`; flags are None where there are none."""
    if not np.abs(units).max(initial=0) < _GREATEST:  # nor if one is NaN
        return _orders_of_any(units, sold_out, left_out)
    keys = (_GREATEST - units).astype(np.int64)
    keys <<= _POSITION_BITS
    keys |= np.arange(units.shape[1])
    if sold_out is not None:
        keys[sold_out] += _SOLD_OUT
    if left_out is not None:
        # a key that has both flags, too, is less than 2 ** 63, and behind those that have one
        keys[left_out] += _LEFT_OUT
    keys.sort(axis=1)
    keys &= _POSITIONS
    return keys


def _orders_of_any(units: Doubles, sold_out: Flags | None, left_out: Flags | None) -> Numbers:
    ranked = np.empty(units.shape, np.int64)
    nothing = np.zeros(units.shape, bool)
    sold_out, left_out = (nothing if flags is None else flags for flags in (sold_out, left_out))
    for row in range(len(units)):
        found = order(units[row], np.where(sold_out[row], 0, 1))
        ranked[row] = np.concatenate([found[~left_out[row, found]], found[left_out[row, found]]])
    return ranked


def previous_ranks(before: NDArray[np.int16], cells: Numbers) -> NDArray[np.int16]:
    """Rank in the order before of what stands at each rank now [G, W]; -1 for what had none.

    `before` holds positions by rank, -1 for none; `cells` the place in the matrix of what stands at each rank now.
    """
    lists, width = before.shape
    rank, first = np.arange(width, dtype=np.int16), np.arange(0, lists * width, width)[:, None]
    if before.min(initial=0) < 0:
        there = before >= 0
        ranks = np.full(before.shape, -1, np.int16)
        ranks.reshape(-1)[(before + first)[there]] = np.broadcast_to(rank, before.shape)[there]
    else:
        ranks = np.empty(before.shape, np.int16)
        np.put(ranks, before + first, rank)
    return np.take(ranks, cells)
