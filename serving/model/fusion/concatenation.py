"""Fusion by concatenation: f = [f_text; f_image; ...; f_price; ...], so that a head has a direction for each part."""

from torch import Tensor

from serving.model.fusion.interface import FIRST_WEIGHT, Fusion


class Concatenation(Fusion):
    """Nothing to learn: all the weights are the head's, W f + b."""

    def __init__(self, parts: int, width: int, context: int) -> None:
        super().__init__()
        self.width = parts * width

    def fuse(self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor) -> Tensor:
        return parts.flatten(1) * FIRST_WEIGHT

    def contributions(
        self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor, direction: Tensor
    ) -> Tensor:
        """Exact: the score is linear in each part."""
        return (parts * direction.reshape(parts.shape)).sum(2) * FIRST_WEIGHT
