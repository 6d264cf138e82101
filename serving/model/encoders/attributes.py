"""Hashed name=value ids and numbers -> what a product is called by, and which others it is like, whatever that is.

N products, A places, J numbers, B = ATTRIBUTE_BUCKETS, D = EMBEDDING_DIM, W = LIKENESS_DIM.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM, LIKENESS_DIM
from serving.model.encoders.tastes import Met, stretch
from serving.preprocess import ATTRIBUTE_BUCKETS, ATTRIBUTE_NUMBERS, NUMBER_PIECES

#: signs in the code of a piece
CODE: Final = 128
#: a piece of fewer products makes none of them alike
SHARED_BY: Final = 2
#: pieces that make products alike, the most frequent ones
KNOWN: Final = 8_192
#: directions that are looked at before those are chosen that tell people apart
ANALYSED: Final = 128
#: products that a catalogue is judged by: bounds the memory of `fit`
JUDGED: Final = 8_000
#: numbers count for this much of what the pieces of texts do, and none for more than as many standard deviations
NUMBERS: Final = 0.4
FAR: Final = 3.0


class AttributesEncoder(nn.Module):
    """Likeness is taken from a catalogue: products that share rare pieces, or whose numbers are near each other, point
    the same way. What people did with products only tells how much each of its directions counts; a learned vector for
    each piece would be learned by heart.

    The vector that meets a query is learned: one projection of likeness, and one of codes of random signs (Achlioptas
    2003), in which any two pieces can be told apart, seen or not.
    """

    row_of: Tensor
    rarity: Tensor
    directions: Tensor
    centre: Tensor
    spread: Tensor
    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        #: which row of the two tables below a piece has, 0 for one that no catalogue knew
        self.register_buffer("row_of", torch.zeros(ATTRIBUTE_BUCKETS, dtype=torch.int32))
        self.register_buffer("rarity", torch.zeros(KNOWN + 1))
        #: of the pieces, then of the numbers
        self.register_buffer("directions", torch.zeros(KNOWN + 1 + ATTRIBUTE_NUMBERS, LIKENESS_DIM))
        self.register_buffer("centre", torch.zeros(ATTRIBUTE_NUMBERS))
        #: 0 for a number that no catalogue knew to vary
        self.register_buffer("spread", torch.zeros(ATTRIBUTE_NUMBERS))
        self.register_buffer("codes", torch.from_numpy(_codes()), persistent=False)
        self.of_likeness = nn.Linear(LIKENESS_DIM, EMBEDDING_DIM, bias=False)
        self.of_codes = nn.Linear(CODE, EMBEDDING_DIM, bias=False)
        nn.init.eye_(self.of_likeness.weight)

    def forward(self, ids: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """ids [N, A] int, numbers [N, J] -> unit vectors [N, D], likeness [N, W]; zeros for a product without
        attributes."""
        there = ids > 0
        likeness = self._placed(self.directions, ids, numbers)
        vectors = self.of_likeness(F.normalize(likeness, dim=-1)) + self.of_codes(_bag(self.codes, ids, there))
        return F.normalize(vectors, dim=-1) * there.any(1, keepdim=True), likeness

    def _placed(self, directions: Tensor, ids: Tensor, numbers: Tensor) -> Tensor:
        """directions [KNOWN + 1 + J, K] of pieces and numbers -> products [N, K]"""
        rows = self.row_of[ids.long()].long()
        weights = F.normalize(self.rarity[rows], dim=1)
        pieces = F.embedding_bag(rows, directions[: KNOWN + 1], mode="sum", per_sample_weights=weights)
        return pieces + self._standard(numbers) @ directions[KNOWN + 1 :]

    def _standard(self, numbers: Tensor) -> Tensor:
        """numbers [N, J] in standard deviations of the catalogue, 0 for what is missing or was never seen to vary."""
        standard = ((numbers - self.centre) / self.spread.clamp(min=1e-9)).clamp(-FAR, FAR)
        return torch.where((self.spread > 0) & numbers.isfinite(), standard, 0.0)

    @torch.no_grad()
    def fit(self, ids: Tensor, numbers: Tensor, met: Sequence[Met] = ()) -> None:
        """Take likeness from a catalogue, ids [N, A] and numbers [N, J], before anything else is learned: latent
        semantic analysis (Deerwester et al. 1990), the directions in which products differ most, rare pieces counting
        more than frequent ones; its vectors are 1 long in the root of the mean of their squares. Of these directions
        the W in which `met`, what people did with rows of the catalogue, tells people apart best; without it the first
        W."""
        some = slice(None, None, -(-len(ids) // JUDGED) or 1)
        self._know(ids[some].long(), numbers[some])
        analysed = self._analysed(ids[some].long(), numbers[some], ANALYSED if met else LIKENESS_DIM)
        self.directions.zero_()
        if not analysed.shape[1]:
            return
        if met:
            vectors = self._placed(analysed, ids, numbers)
            stretched = stretch(vectors, met)
            _, chosen = torch.linalg.eigh((vectors @ stretched).T @ (vectors @ stretched))
            analysed = (analysed @ stretched @ chosen.flip(1))[:, :LIKENESS_DIM]
        self.directions[:, : analysed.shape[1]] = analysed

    def _analysed(self, ids: Tensor, numbers: Tensor, width: int) -> Tensor:
        """[KNOWN + 1 + J, K] where each piece and each number points, most of the difference first; K <= width."""
        rows = self.row_of[ids].long()
        bags = torch.zeros(len(ids), KNOWN + 1).scatter_(1, rows, F.normalize(self.rarity[rows], dim=1))
        share = NUMBERS / max(1, int((self.spread > 0).sum())) ** 0.5
        seen = torch.cat((bags, share * self._standard(numbers)), 1)
        used = seen.any(0)
        rank = min(width, len(seen), int(used.sum()))
        found = torch.zeros(seen.shape[1], rank)
        if rank:
            left, sizes, right = torch.svd_lowrank(seen[:, used], min(rank + 8, len(seen), int(used.sum())), niter=4)
            length = (left[:, :rank] * sizes[:rank]).square().sum(1).mean().sqrt()
            found[used] = right[:, :rank] / length
            found[KNOWN + 1 :] *= share
        return found

    def _know(self, ids: Tensor, numbers: Tensor) -> None:
        """Which pieces of texts there are and how rare they are, and where numbers lie."""
        products = torch.bincount(ids.flatten(), minlength=ATTRIBUTE_BUCKETS)[:NUMBER_PIECES]
        products[0] = 0
        (shared,) = torch.where(products >= SHARED_BY)
        known = shared[products[shared].argsort(descending=True, stable=True)[:KNOWN]]
        self.row_of.zero_()
        self.row_of[known] = torch.arange(1, len(known) + 1, dtype=torch.int32)
        self.rarity.zero_()
        self.rarity[1 : len(known) + 1] = torch.log((len(ids) + 1) / products[known])
        there = numbers.isfinite()
        count = there.sum(0).clamp(min=1)
        self.centre.copy_(torch.where(there, numbers, 0.0).sum(0) / count)
        self.spread.copy_((torch.where(there, numbers - self.centre, 0.0).square().sum(0) / count).sqrt())


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
