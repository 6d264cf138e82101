"""Fusion by gates: f = g_text f_text + g_image f_image + ..., each gate a function of all parts and of the query.

After the gated multimodal unit of Arevalo, Solorio, Montes-y-Gomez and Gonzalez, "Gated Multimodal Units for
Information Fusion" (2017), with a gate for each of many modalities.
"""

import torch
from torch import Tensor, nn

from serving.model.fusion.interface import FIRST_WEIGHT, Fusion


class Gated(Fusion):
    """A part may be worth more where another is missing, or where the query asks for what it shows.

    Contributions are by ablation, not with the gates taken as given: a change of price that opens the gate of the
    picture is a contribution of the price.
    """

    def __init__(self, parts: int, width: int, context: int) -> None:
        super().__init__()
        self.width = width
        self.weights = nn.Parameter(torch.full((parts,), FIRST_WEIGHT))
        self.seen = nn.Linear(parts * width + parts, parts)
        self.asked = nn.Linear(context, parts, bias=False)

    def fuse(self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor) -> Tensor:
        seen = self.seen(torch.cat((parts.flatten(1), there), 1))
        gates = (seen + self.asked(context).index_select(0, set_index)).sigmoid()
        fused: Tensor = ((gates * self.weights).unsqueeze(1) @ parts).squeeze(1)
        return fused
