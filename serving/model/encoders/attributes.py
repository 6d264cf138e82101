"""Hashed name=value ids -> a unit vector: brand, category and attributes, whatever they are called.

N products, A places, C = CODE, D = EMBEDDING_DIM.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM
from serving.preprocess import ATTRIBUTE_BUCKETS

#: signs in the code of a piece
CODE: Final = 128


class AttributesEncoder(nn.Module):
    """A bag of pieces, each a code of random signs that is the same for ever. Products that share pieces are alike
    before anything is learned (Achlioptas 2003, random projections), and values that training never saw are told apart.

    Learned is how much each piece counts, and one projection for all of them: a vector for each piece would be learned
    by heart.
    """

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.from_numpy(_codes()), persistent=False)
        self.weights = nn.Embedding(ATTRIBUTE_BUCKETS, 1)
        nn.init.zeros_(self.weights.weight)
        self.out = nn.Linear(CODE, EMBEDDING_DIM, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [N, A] int -> [N, D]; zeros for a product without attributes."""
        there = ids > 0
        weights = self.weights(ids.long()).squeeze(2).exp() * there
        bag = torch.einsum("na,nac->nc", weights, self.codes[ids.long()])
        return F.normalize(self.out(bag), dim=-1) * there.any(1, keepdim=True)


def _codes() -> NDArray[np.float32]:
    """[ATTRIBUTE_BUCKETS, C] of 1 and -1: bits of splitmix64 (Steele, Lea, Flood 2014), the same on every machine."""
    bits = np.arange(ATTRIBUTE_BUCKETS * CODE // 64, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    signs = np.unpackbits(bits.astype("<u8").view(np.uint8)).reshape(ATTRIBUTE_BUCKETS, CODE)
    return 2 * signs.astype(np.float32) - 1
