"""The ranker: cached vectors and live numbers -> a score, whose sigmoid is a click probability. All that a price costs.

N rows, Q queries, D = EMBEDDING_DIM, U = USER_DIM, M modalities, F = len(NUMERIC_FIELDS), K = len(CONTRIBUTIONS).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feature_repo.views import EMBEDDING_DIM
from serving.model.blocks import blocks
from serving.model.config import DEFAULT, ModelConfig
from serving.model.fusion import fusion_of
from serving.model.heads import Heads
from serving.model.list_attention import ListAttention
from serving.model.parts import PART_DIM, USER_FACTS, Parts
from serving.requests import PARTS

CONTEXT = EMBEDDING_DIM + USER_FACTS


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
        """query [Q, D], user [Q, U], content [N, S, D], mask [N, M], numeric [N, F] raw, retrieval [N],
        set_index [N] -> logit [N]"""
        given = (query, user, content, mask, numeric, retrieval, set_index)
        return torch.cat([_score(self.fusion.fuse(*seen), direction) for seen, direction in self._blocks(*given)])

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
        """As `forward` -> logit [N], contributions [N, K] that sum to it; base, the last, is what no part has to
        answer for."""
        scores, shares = [], []
        for seen, direction in self._blocks(query, user, content, mask, numeric, retrieval, set_index):
            scores.append(_score(self.fusion.fuse(*seen), direction))
            shares.append(self.fusion.contributions(*seen, direction[:, :-1]))
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
        context = context_of(query, user)
        parts, there = self.parts(query, user, content, mask, numeric, retrieval, rows)
        fused = self.fusion.fuse(parts, there, context, rows)
        directions = self.heads(context).index_select(0, rows)
        bend = self._bend(parts, rows, context.shape[0])
        logits = [_score(fused, directions[:, n] + (0 if n else bend)) for n in range(len(self.heads.names))]
        return Answers(self.heads.together(torch.stack(logits, 1)), dict(zip(self.heads.names, logits, strict=True)))

    def _blocks(
        self,
        query: Tensor,
        user: Tensor,
        content: Tensor,
        mask: Tensor,
        numeric: Tensor,
        retrieval: Tensor,
        set_index: Tensor,
    ) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]]:
        """Of each block of rows what the fusion sees, and the direction and bias [n, W + 1] of the score that ranks."""
        context = context_of(query, user)
        directions = self.heads.combined(self.heads(context))
        for some in blocks(set_index, self.config.scope == "list"):
            of = set_index[some].long()
            parts, there = self.parts(query, user, content[some], mask[some], numeric[some], retrieval[some], of)
            bend = self.heads.scale * self._bend(parts, of, context.shape[0])
            yield (parts, there, context, of), directions.index_select(0, of) + bend

    def _bend(self, parts: Tensor, set_index: Tensor, sets: int) -> Tensor:
        """What stands beside a row does to the direction of the first head: [N, W + 1]; nil without list attention."""
        if self.list_attention is None:
            return parts.new_zeros(())
        bend: Tensor = self.list_attention(parts.flatten(1), set_index, sets)
        return bend


def context_of(query: Tensor, user: Tensor) -> Tensor:
    """What was asked, and how much is known of who asks: [Q, C]. A taste counts where it meets content (parts.py) and
    nowhere else: heads that read tastes learn users by heart."""
    return torch.cat((query, user[:, -USER_FACTS:]), 1)


def _score(fused: Tensor, direction: Tensor) -> Tensor:
    """<direction, fused> + bias [N]; fused [N, W], direction [N, W + 1] with the bias last."""
    return (fused * direction[:, :-1]).sum(1) + direction[:, -1]
