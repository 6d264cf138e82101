"""Many vectors -> one, by attention: each head has its own eye for what matters."""

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """Weighted means of a row's vectors, one a head; the weights are a softmax over the places that are there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, heads)

    def forward(self, vectors: Tensor, there: Tensor | None = None) -> Tensor:
        """vectors [N, L, W], there [N, L] bool (None = all) -> [N, heads * W]"""
        scores = self.attention(vectors)
        if there is not None:
            scores = scores.masked_fill(~there.unsqueeze(-1), -1e9)
        return torch.einsum("nlh,nlw->nhw", scores.softmax(1), vectors).flatten(1)
