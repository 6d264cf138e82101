"""Calibration: after training, the sigmoid of a score is the probability of a click.

Platt, "Probabilistic Outputs for Support Vector Machines" (1999): a scale and a shift, fitted on lists that nothing was
learned from. They become part of the weights; an order stays as it is, for the scale is above 0.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from serving.model.heads import Heads

STEPS: Final = 100


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(scale * score + shift)"""

    scale: float
    shift: float


def fit(score: Tensor, clicked: Tensor) -> Calibration:
    """The scale and shift of least cross entropy for scores [N] and clicks [N] 0 or 1.

    Clicks are taken for a little less than certain, as Platt does, so that a perfect order does not ask for an endless
    scale. Raises ValueError where all rows or none were clicked: there is no probability to learn.
    """
    clicks = float(clicked.sum())
    if not 0 < clicks < len(clicked):
        raise ValueError(f"{clicks:.0f} of {len(clicked)} rows were clicked, expected some and not all")
    sure, unsure = (clicks + 1) / (clicks + 2), 1 / (len(clicked) - clicks + 2)
    target = torch.where(clicked > 0, sure, unsure).double()
    score = score.detach().double()
    fitted = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log scale, shift
    optimizer = torch.optim.LBFGS([fitted], max_iter=STEPS, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        wrong = F.binary_cross_entropy_with_logits(score * fitted[0].exp() + fitted[1], target)
        wrong.backward()  # type: ignore[no-untyped-call]
        return wrong

    optimizer.step(step)  # type: ignore[no-untyped-call]
    return Calibration(*(float(value) for value in (fitted[0].detach().exp(), fitted[1].detach())))


def fold(heads: Heads, calibration: Calibration) -> None:
    """Make the calibration part of the weights, after those that are part of it already."""
    with torch.no_grad():
        heads.scale.mul_(calibration.scale)
        heads.shift.mul_(calibration.scale).add_(calibration.shift)
