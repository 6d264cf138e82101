"""Numbers relative to the other rows of their list. Vectorised over the rows of all lists at once, in any order.

N rows of Q lists; `group` [N] says which list a row belongs to. What these functions give for a row depends on the rows
of its own list only, and not on their order.
"""

import torch
from torch import Tensor

#: added to the spread: a list of equal numbers has none, and nobody stands out in it
SPREAD_FLOOR = 1e-3
#: least variance: a root has no slope at nil, and what is learned through it would be no number
LEAST_VARIANCE = 1e-12


def totals(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums [G, ...] of values [N, ...] by group."""
    return values.new_zeros(groups, *values.shape[1:]).index_add_(0, group, values)


def z_scores(values: Tensor, known: Tensor, group: Tensor, groups: int) -> Tensor:
    """values [N, C] less the mean of their list, in units of its standard deviation; known [N, C] is 1 or 0.

    Unknown values count nowhere and get 0.
    """
    count = totals(known, group, groups).clamp(min=1)
    mean = totals(values * known, group, groups) / count
    off = (values - mean.index_select(0, group)) * known
    spread = (totals(off.square(), group, groups) / count).clamp(min=LEAST_VARIANCE).sqrt() + SPREAD_FLOOR
    return off / spread.index_select(0, group)


def ranks(values: Tensor, known: Tensor, group: Tensor, groups: int) -> Tensor:
    """Place [N] of values [N] among the known ones of their list, the least -1, the greatest 1; equal values share a
    place. 0 for what is unknown, and for what is alone."""
    own = group * 2 + known.long()  # the unknown ones are a list of their own
    order = torch.argsort(values, stable=True)
    order = order[torch.argsort(own[order], stable=True)]
    in_list, worth = own[order], values[order]
    begins = torch.ones_like(in_list, dtype=torch.bool)  # a run of equal values in one list
    begins[1:] = (in_list[1:] != in_list[:-1]) | (worth[1:] != worth[:-1])
    (first,) = torch.where(begins)
    last = torch.cat((first[1:], first.new_tensor([len(own)]))) - 1
    place = ((first + last) / 2)[begins.cumsum(0) - 1]
    count = totals(torch.ones_like(own), own, 2 * groups)
    others = count[in_list] - 1
    centred = 2 * (place - (count.cumsum(0) - count)[in_list]) / others.clamp(min=1) - 1
    found = torch.empty_like(values)
    found[order] = centred.masked_fill(others < 1, 0).to(values.dtype)
    return found * known
