"""Hashed name=value ids -> a unit vector: brand, category and attributes, whatever they are called.

N products, A places, D = EMBEDDING_DIM.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM
from serving.model.encoders.pooling import AttentionPool
from serving.preprocess import ATTRIBUTE_BUCKETS

PIECE_WIDTH: Final = 24
POOL_HEADS: Final = 4


class AttributesEncoder(nn.Module):
    """A bag of pieces: their order makes no difference, how much each counts is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Embedding(ATTRIBUTE_BUCKETS, PIECE_WIDTH, padding_idx=0)
        self.pool = AttentionPool(PIECE_WIDTH, POOL_HEADS)
        self.mix = nn.Sequential(
            nn.Linear((POOL_HEADS + 1) * PIECE_WIDTH, 2 * EMBEDDING_DIM),
            nn.GELU(),
            nn.Linear(2 * EMBEDDING_DIM, EMBEDDING_DIM),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """ids [N, A] int -> [N, D]; zeros for a product without attributes."""
        there = ids > 0
        pieces = self.pieces(ids.long())
        count = there.sum(1, keepdim=True).clamp(min=1)
        # a sum over the root of the count: of many pieces each says less, all together say more
        bag = torch.cat((pieces.sum(1) / count.sqrt(), self.pool(pieces, there)), 1)
        return F.normalize(self.mix(bag), dim=-1) * there.any(1, keepdim=True)
