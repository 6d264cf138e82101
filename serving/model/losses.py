"""Losses: how wrong the answers about some lists are. Several at once, as the configuration weighs them.

N rows of Q lists; `set_index` [N] says which list a row belongs to, in any order.

    click        cross entropy of the click probability of each row
    relevance    squared error of the relevance of each row
    softmax      listwise: cross entropy between the softmax of a list's scores and its shares of the grades, after Cao
                 et al., "Learning to Rank: From Pairwise Approach to Listwise Approach" (2007)
    lambdarank   pairwise, each pair weighed by the NDCG that changing places would cost: Burges, "From RankNet to
                 LambdaRank to LambdaMART" (2010), as a loss after Wang et al., "The LambdaLoss Framework for Ranking
                 Metric Optimization" (2018)

A list in which no row has a grade says nothing about an order.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from serving.model.config import LossWeights
from serving.model.relative import totals

if TYPE_CHECKING:
    from serving.model.ranker import Answers


@dataclass(frozen=True)
class Targets:
    """What happened: `clicked` [N] 0 or 1, `grade` [N] between 0 and 1, how relevant the row turned out to be."""

    clicked: Tensor
    grade: Tensor


def loss(weights: LossWeights, answers: "Answers", targets: Targets, set_index: Tensor) -> Tensor:
    """The weighed sum of the losses that have a weight."""
    return torch.stack(list(losses(weights, answers, targets, set_index).values())).sum()


def losses(weights: LossWeights, answers: "Answers", targets: Targets, set_index: Tensor) -> dict[str, Tensor]:
    """The losses that have a weight, weighed, by name."""
    score, sets = answers.score, int(set_index.max()) + 1
    terms = {
        "click": lambda: F.binary_cross_entropy_with_logits(answers.heads["click"], targets.clicked),
        "relevance": lambda: F.mse_loss(answers.heads["relevance"].sigmoid(), targets.grade),
        "softmax": lambda: softmax_loss(score, targets.grade, set_index, sets),
        "lambdarank": lambda: lambdarank_loss(score, targets.grade, set_index, sets),
    }
    asked = {name: getattr(weights, name) for name in terms}
    return {name: weight * terms[name]() for name, weight in asked.items() if weight}


def softmax_loss(score: Tensor, grade: Tensor, set_index: Tensor, sets: int) -> Tensor:
    """Mean over the lists that have a grade."""
    greatest = score.new_full((sets,), -torch.inf).scatter_reduce(0, set_index, score.detach(), "amax")
    off = score - greatest[set_index]
    log_share = off - totals(off.exp(), set_index, sets).log()[set_index]
    mass = totals(grade, set_index, sets)
    lists = mass > 0
    wanted = grade / mass.clamp(min=1e-9)[set_index]
    return -(wanted * log_share).sum() / lists.sum().clamp(min=1)


def lambdarank_loss(score: Tensor, grade: Tensor, set_index: Tensor, sets: int) -> Tensor:
    """Mean over the lists that have a grade, of sum over pairs of |change of NDCG| log2(1 + exp(-difference)).
    The gain of a row is its grade."""
    scores, there = padded(score, set_index, sets)
    grades, _ = padded(grade, set_index, sets)
    place = (scores.masked_fill(~there, -torch.inf)).argsort(dim=1, descending=True, stable=True).argsort(1)
    discount = 1 / torch.log2(place + 2.0)
    best = (grades.sort(1, descending=True).values / torch.log2(place.sort(1).values + 2.0)).sum(1)
    share = grades / best.clamp(min=1e-9).unsqueeze(1)
    cost = (share.unsqueeze(2) - share.unsqueeze(1)) * (discount.unsqueeze(2) - discount.unsqueeze(1))
    better = (grades.unsqueeze(2) > grades.unsqueeze(1)) & there.unsqueeze(2) & there.unsqueeze(1)
    miss = F.softplus(scores.unsqueeze(1) - scores.unsqueeze(2)) / torch.log(scores.new_tensor(2.0))
    return (cost.abs() * miss * better).sum() / (best > 0).sum().clamp(min=1)


def padded(values: Tensor, set_index: Tensor, sets: int) -> tuple[Tensor, Tensor]:
    """values [N] -> [Q, longest list], 0 where there is no row, and where there is one."""
    order = torch.argsort(set_index, stable=True)
    count = torch.bincount(set_index, minlength=sets)
    column = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[set_index[order]]
    table = values.new_zeros(sets, int(count.max()))
    there = torch.zeros_like(table, dtype=torch.bool)
    there[set_index[order], column] = True
    return table.index_put((set_index[order], column), values[order]), there
