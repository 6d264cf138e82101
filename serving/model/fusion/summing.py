"""Fusion by a weighted sum: f = a_text f_text + a_image f_image + ... + a_price f_price + ..."""

import torch
from torch import Tensor, nn

from serving.model.fusion.interface import FIRST_WEIGHT, Fusion


class WeightedSum(Fusion):
    """Learned weights, the same for every row."""

    def __init__(self, parts: int, width: int, context: int) -> None:
        super().__init__()
        self.width = width
        self.weights = nn.Parameter(torch.full((parts,), FIRST_WEIGHT))

    def fuse(self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor) -> Tensor:
        fused: Tensor = torch.tensordot(self.weights, parts, ([0], [1]))
        return fused

    def contributions(
        self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor, direction: Tensor
    ) -> Tensor:
        """Exact: the score is linear in each part."""
        return (parts @ direction.unsqueeze(-1)).squeeze(-1) * self.weights
