"""Rows in blocks that fit into the processor's cache: what is in between is nine vectors a row, and memory is slow."""

from itertools import pairwise

import torch
from torch import Tensor

#: rows of a block: their nine vectors are 0.9 MB
BLOCK_ROWS = 512


def blocks(set_index: Tensor, whole_sets: bool) -> list[slice]:
    """Where to cut rows [N]: anywhere, or only between the sets. Sets whose rows lie scattered are not cut."""
    rows = len(set_index)
    if rows <= BLOCK_ROWS or set_index.is_cuda:
        return [slice(None)]
    if not whole_sets:
        return [slice(first, first + BLOCK_ROWS) for first in range(0, rows, BLOCK_ROWS)]
    (last,) = torch.where(set_index[1:] != set_index[:-1])
    ends = [*(last + 1).tolist(), rows]
    if len(ends) > len(torch.unique(set_index)):
        return [slice(0, rows)]
    cuts = [0]
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is None or following - cuts[-1] > BLOCK_ROWS:
            cuts.append(end)
    return [slice(first, end) for first, end in pairwise(cuts)]
