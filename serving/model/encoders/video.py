"""Frames of a video, as the image CNN sees them -> a unit vector that knows what is shown, and how it moves.

V videos, T frames in order of time, D = EMBEDDING_DIM.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM
from serving.model.encoders.image import CHANNELS, FEATURES, PLACES
from serving.model.encoders.pooling import AttentionPool

WIDTH: Final = 32
HEADS: Final = 2


class VideoEncoder(nn.Module):
    """Each moment is what its frame shows, and what moves there; attention chooses the moments.

    Motion is looked for in what differs from the clip's mean: what stands still is far more, and would hide it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.GELU())
        self.near = nn.Conv3d(CHANNELS[-1], WIDTH, 3, padding=1)
        self.far = nn.Conv3d(WIDTH, WIDTH, 3, padding=1)
        self.pool = AttentionPool(2 * WIDTH, HEADS)
        self.out = nn.Linear(2 * HEADS * WIDTH, EMBEDDING_DIM)

    def forward(self, features: Tensor) -> Tensor:
        """features [V, T, FEATURES] of the frames -> [V, D]"""
        moments = torch.cat((self.frame(features), self._motion(features)), -1)
        return F.normalize(self.out(self.pool(moments)), dim=-1)

    def _motion(self, features: Tensor) -> Tensor:
        """[V, T, WIDTH]: what moves about each frame, wherever in the picture."""
        change = features - features.mean(1, keepdim=True)
        places = change.view(*features.shape[:2], CHANNELS[-1], PLACES, PLACES).transpose(1, 2)
        near = F.gelu(self.near(places))
        return (near + F.gelu(self.far(near))).mean((3, 4)).transpose(1, 2)
