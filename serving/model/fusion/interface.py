"""What every fusion can do.

N rows, Q queries, K parts of H numbers, C = numbers of query and user together, W = width of the fused vector.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

#: where learned weights start: parts are unit vectors, and a list is told apart by logits of this size
FIRST_WEIGHT = 10.0


class Fusion(nn.Module, ABC):
    """Parts -> one vector f; a head scores it by <direction, f>."""

    #: W
    width: int

    @abstractmethod
    def fuse(self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor) -> Tensor:
        """parts [N, K, H], zeros where there [N, K] is 0; context [Q, C]; set_index [N] int64 -> [N, W]"""

    def contributions(
        self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor, direction: Tensor
    ) -> Tensor:
        """What each part adds to <direction [N, W], f>: [N, K], by ablation: what the score loses without the part.
        Differences of float64: the rounding of the whole is in each of them, and would add up in what no part answers
        for.

        So a score that moved because one part changed has moved by the change of that part's contribution, whatever
        the parts say about each other. What they do together belongs to none of them; these do not sum to the score.
        """
        whole = self._score(parts, there, context, set_index, direction)
        lost = []
        for part in range(parts.shape[1]):
            others = torch.ones(parts.shape[1], dtype=parts.dtype, device=parts.device)
            others[part] = 0
            without = self._score(parts * others.unsqueeze(-1), there * others, context, set_index, direction)
            lost.append(whole - without)
        return torch.stack(lost, 1).to(parts.dtype)

    def _score(self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor, direction: Tensor) -> Tensor:
        return (self.fuse(parts, there, context, set_index).double() * direction).sum(1)
