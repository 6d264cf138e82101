"""Attention over the rows of a list: what stands beside a row changes which way its parts should point.

Induced set attention after Lee et al., "Set Transformer: A Framework for Attention-based Permutation-Invariant Neural
Networks" (2019): a few learned questions are put to the rows of each list, and every row reads the answers. The cost
grows with the rows, not with their square, and nothing is padded; the order of the rows makes no difference.

N rows of Q lists, T = SUMMARIES, L = LIST_DIM.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.model.relative import totals

LIST_DIM: Final = 32
SUMMARIES: Final = 8


class ListAttention(nn.Module):
    """Rows of lists -> a bend of each row's direction, nothing before training."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.token = nn.Linear(inputs, LIST_DIM)
        self.norm = nn.LayerNorm(LIST_DIM)
        self.questions = nn.Parameter(torch.randn(SUMMARIES, LIST_DIM) / LIST_DIM**0.5)
        self.told = nn.Linear(LIST_DIM, 2 * LIST_DIM)
        self.asks = nn.Linear(LIST_DIM, LIST_DIM)
        self.heard = nn.Linear(LIST_DIM, 2 * LIST_DIM)
        self.hidden = nn.Linear(2 * LIST_DIM, LIST_DIM)
        self.out = nn.Linear(LIST_DIM, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: Tensor, set_index: Tensor, sets: int) -> Tensor:
        """rows [N, inputs], set_index [N] int64 < sets -> [N, outputs]"""
        tokens = self.norm(self.token(rows))
        key, value = self.told(tokens).chunk(2, 1)
        answers = self._answers(key @ self.questions.T / LIST_DIM**0.5, value, set_index, sets)
        key, value = (x.index_select(0, set_index) for x in self.heard(answers).chunk(2, 2))
        weights = (key @ self.asks(tokens).unsqueeze(2) / LIST_DIM**0.5).softmax(1)
        context = (weights.transpose(1, 2) @ value).squeeze(1)
        bend: Tensor = self.out(F.gelu(self.hidden(torch.cat((tokens, context), 1))))
        return bend

    def _answers(self, scores: Tensor, value: Tensor, set_index: Tensor, sets: int) -> Tensor:
        """Means of value [N, L] over the rows of each list, weighted by the softmax of scores [N, T]: [Q, T, L]"""
        place = set_index.unsqueeze(1).expand_as(scores)
        greatest = scores.new_zeros(sets, SUMMARIES).scatter_reduce(0, place, scores, "amax", include_self=False)
        weights = (scores - greatest.detach().index_select(0, set_index)).exp()
        weighed = totals(weights.unsqueeze(2) * value.unsqueeze(1), set_index, sets)
        return weighed / totals(weights, set_index, sets).unsqueeze(2).clamp(min=1e-9)
