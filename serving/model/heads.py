"""Heads: query and user -> the direction in which they like a row's fused vector to point; a score is linear in it.

Q queries, C = numbers of query and user together, R heads, W = width of the fused vector.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.model.config import Head

HIDDEN: Final = 32


class Heads(nn.Module):
    """One direction and one bias for each head, and how the heads make one score.

    click: the logit of a click. relevance: the logit of how relevant the row is, between 0 and 1. The score that ranks
    is scale * (click + weight * relevance) + shift; scale and shift are fitted after training so that its sigmoid is
    the probability of a click (serving.model.calibration).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, heads: tuple[Head, ...], context: int, width: int) -> None:
        super().__init__()
        self.names = heads
        self.linear = nn.Linear(context, len(heads) * (width + 1))
        self.hidden = nn.Linear(context, HIDDEN)
        self.out = nn.Linear(HIDDEN, len(heads) * (width + 1), bias=False)
        #: logarithms of the weights of all heads but the first
        self.weights = nn.Parameter(torch.zeros(len(heads) - 1))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, context: Tensor) -> Tensor:
        """context [Q, C] -> directions and, last, biases of all heads: [Q, R, W + 1]"""
        found: Tensor = self.linear(context) + self.out(F.gelu(self.hidden(context)))
        return found.view(context.shape[0], len(self.names), found.shape[1] // len(self.names))

    def combined(self, directions: Tensor) -> Tensor:
        """directions [Q, R, W + 1] -> direction and bias [Q, W + 1] of the score that ranks."""
        together = torch.einsum("qrw,r->qw", directions, self._shares()) * self.scale
        return torch.cat((together[:, :-1], together[:, -1:] + self.shift), 1)

    def together(self, logits: Tensor) -> Tensor:
        """logits [N, R] of the heads -> score [N] that ranks."""
        return (logits @ self._shares()) * self.scale + self.shift

    def _shares(self) -> Tensor:
        """[R] How much each head counts; the first counts once."""
        return torch.cat((self.weights.new_ones(1), self.weights.exp()))
