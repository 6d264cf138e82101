"""Hashed name=value ids -> a unit vector: brand, category and attributes, whatever they are called.

N products, A places, B = ATTRIBUTE_BUCKETS, D = EMBEDDING_DIM.
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
#: a piece of fewer products makes none of them alike
SHARED_BY: Final = 2
#: products that a catalogue is judged by: bounds the memory of `fit`
JUDGED: Final = 8_000


class AttributesEncoder(nn.Module):
    """A bag of pieces, read twice: in directions taken from a catalogue, in which products that share rare pieces are
    alike, and in codes of random signs (Achlioptas 2003), in which any two pieces can be told apart, seen or not.

    Neither is moved by clicks; learned is one projection for all pieces. A learned vector for each would be learned by
    heart.
    """

    directions: Tensor
    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(ATTRIBUTE_BUCKETS, EMBEDDING_DIM))
        self.register_buffer("codes", torch.from_numpy(_codes()), persistent=False)
        self.of_directions = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM, bias=False)
        self.of_codes = nn.Linear(CODE, EMBEDDING_DIM, bias=False)
        nn.init.eye_(self.of_directions.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [N, A] int -> [N, D]; zeros for a product without attributes."""
        there = ids > 0
        likeness = self.of_directions(_bag(self.directions, ids, there))
        return F.normalize(likeness + self.of_codes(_bag(self.codes, ids, there)), dim=-1) * there.any(1, keepdim=True)

    @torch.no_grad()
    def fit(self, ids: Tensor) -> None:
        """Take the directions from a catalogue [N, A], before anything is learned: latent semantic analysis (Deerwester
        et al. 1990), the D directions in which products differ most, rare pieces counting more than frequent ones."""
        ids = ids[:: -(-len(ids) // JUDGED) or 1].long()
        bags = torch.zeros(len(ids), ATTRIBUTE_BUCKETS).scatter_(1, ids, 1.0)
        bags[:, 0] = 0
        products = bags.sum(0)
        (known,) = torch.where(products >= SHARED_BY)
        if len(known) == 0:
            return
        rarity = torch.log((len(ids) + 1) / products[known])
        bags = F.normalize(bags[:, known] * rarity, dim=1)
        rank = min(EMBEDDING_DIM, *bags.shape)
        _, _, directions = torch.svd_lowrank(bags, min(rank + 8, *bags.shape), niter=4)
        self.directions.zero_()
        self.directions[known, :rank] = rarity.unsqueeze(1) * directions[:, :rank]


def _bag(table: Tensor, ids: Tensor, there: Tensor) -> Tensor:
    """The sum of the rows of the ids that are there, of length 1."""
    bag = F.embedding_bag(ids.long(), table, mode="sum", per_sample_weights=there.to(table.dtype))
    return F.normalize(bag, dim=-1)


def _codes() -> NDArray[np.float32]:
    """[B, CODE] of 1 and -1: bits of splitmix64 (Steele, Lea, Flood 2014), the same on every machine."""
    bits = np.arange(ATTRIBUTE_BUCKETS * CODE // 64, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    signs = np.unpackbits(bits.astype("<u8").view(np.uint8)).reshape(ATTRIBUTE_BUCKETS, CODE)
    return 2 * signs.astype(np.float32) - 1
