"""The ranker: cached vectors and live numbers -> a score, whose sigmoid is a click probability. All that a price costs.

N rows, Q queries, D = EMBEDDING_DIM, U = USER_DIM, M modalities, F = len(NUMERIC_FIELDS), K = len(CONTRIBUTIONS).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feature_repo.views import EMBEDDING_DIM, USER_DIM
from serving.model.blocks import blocks
from serving.model.config import DEFAULT, ModelConfig
from serving.model.fusion import fusion_of
from serving.model.heads import Heads
from serving.model.list_attention import ListAttention
from serving.model.parts import PART_DIM, Parts
from serving.requests import PARTS

CONTEXT = EMBEDDING_DIM + USER_DIM


@dataclass(frozen=True)
class Answers:
    """What is learned from: the score that ranks [N], and each head's own logit [N] by its name."""

    score: Tensor
    heads: dict[str, Tensor]


class Ranker(nn.Module):
    """Parts -> fusion -> heads. The heads are linear in the fused vector; with list attention, what stands beside a
    row bends the direction in which its vector should point."""

    def __init__(self, config: ModelConfig = DEFAULT) -> None:
        super().__init__()
        self.config = config
        self.parts = Parts(config)
        self.fusion = fusion_of(config.fusion, len(PARTS), PART_DIM, CONTEXT)
        self.heads = Heads(config.heads, CONTEXT, self.fusion.width)
        self.list_attention: ListAttention | None = None
        if config.list_attention:
            self.list_attention = ListAttention(len(PARTS) * PART_DIM, self.fusion.width + 1)

    def forward(
        self,
        query: Tensor,
        user: Tensor,
        content: Tensor,
        mask: Tensor,
        numeric: Tensor,
        retrieval: Tensor,
        set_index: Tensor,
    ) -> Tensor:
        """query [Q, D], user [Q, U], content [N, M, D], mask [N, M], numeric [N, F] raw, retrieval [N],
        set_index [N] -> logit [N]"""
        context = torch.cat((query, user), 1)
        directions = self.heads.combined(self.heads(context))
        scores = []
        for some in blocks(set_index, self.config.scope == "list"):
            of = set_index[some].long()
            parts, there = self.parts(query, user, content[some], mask[some], numeric[some], retrieval[some], of)
            fused = self.fusion.fuse(parts, there, context, of)
            scores.append(_score(fused, self._bent(directions, parts, of)))
        return torch.cat(scores)

    def explain(
        self,
        query: Tensor,
        user: Tensor,
        content: Tensor,
        mask: Tensor,
        numeric: Tensor,
        retrieval: Tensor,
        set_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `forward` -> logit [N], contributions [N, K] that sum to it; base, the last, is what no
        part has to answer for."""
        context = torch.cat((query, user), 1)
        directions = self.heads.combined(self.heads(context))
        scores, shares = [], []
        for some in blocks(set_index, self.config.scope == "list"):
            of = set_index[some].long()
            parts, there = self.parts(query, user, content[some], mask[some], numeric[some], retrieval[some], of)
            direction = self._bent(directions, parts, of)
            scores.append(_score(self.fusion.fuse(parts, there, context, of), direction))
            shares.append(self.fusion.contributions(parts, there, context, of, direction[:, :-1]))
        logit, known = torch.cat(scores), torch.cat(shares)
        return logit, torch.cat((known, (logit - known.sum(1)).unsqueeze(1)), 1)

    def answers(
        self,
        query: Tensor,
        user: Tensor,
        content: Tensor,
        mask: Tensor,
        numeric: Tensor,
        retrieval: Tensor,
        set_index: Tensor,
    ) -> Answers:
        """As `forward`, for training."""
        rows = set_index.long()
        context = torch.cat((query, user), 1)
        parts, there = self.parts(query, user, content, mask, numeric, retrieval, rows)
        fused = self.fusion.fuse(parts, there, context, rows)
        heads = self.heads(context)
        own = heads.index_select(0, rows)
        score = _score(fused, self._bent(self.heads.combined(heads), parts, rows))
        return Answers(score, {name: _score(fused, own[:, n]) for n, name in enumerate(self.heads.names)})

    def _bent(self, directions: Tensor, parts: Tensor, set_index: Tensor) -> Tensor:
        """directions [Q, W + 1] of the sets -> of their rows, bent by what stands beside them: [N, W + 1]"""
        own = directions.index_select(0, set_index)
        if self.list_attention is not None:
            own = own + self.heads.scale * self.list_attention(parts.flatten(1), set_index, len(directions))
        return own


def _score(fused: Tensor, direction: Tensor) -> Tensor:
    """<direction, fused> + bias [N]; fused [N, W], direction [N, W + 1] with the bias last."""
    return (fused * direction[:, :-1]).sum(1) + direction[:, -1]
