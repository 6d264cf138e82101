"""Pixels -> a unit vector, by a small CNN for pictures of 64 to 224 pixels.

No normalisation over the picture: a shirt's colour is in the absolute values.
"""

from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM

#: channels of the stem and of each halving; the last is repeated for larger pictures
CHANNELS: Final = (32, 64, 64)
#: places along a side that remain: what is left and right, above and below, is told apart
PLACES: Final = 4
#: length of `ImageEncoder.features`
FEATURES: Final = CHANNELS[-1] * PLACES**2


class ImageEncoder(nn.Module):
    """A stem that takes squares of 4 pixels, then halvings until less than twice PLACES are left along a side, each
    with a residual step (He et al. 2015)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = [nn.Conv2d(3, CHANNELS[0], 4, stride=4), nn.GELU()]
        side, width = size // 4, CHANNELS[0]
        for wider in (*CHANNELS[1:], *[CHANNELS[-1]] * 8):
            if side < 2 * PLACES:
                break
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.GELU(), _Residual(wider)]
            side, width = (side + 1) // 2, wider
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(PLACES), nn.Flatten())
        self.out = nn.Linear(FEATURES, EMBEDDING_DIM)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [N, size, size, 3] uint8 -> [N, D]"""
        return F.normalize(self.out(self.features(pixels)), dim=-1)

    def features(self, pixels: Tensor) -> Tensor:
        """pixels [N, size, size, 3] uint8 -> [N, FEATURES]: what is where. Frames of a video come this way, too."""
        planes = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        found: Tensor = self.trunk(planes)
        return found


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.step = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, planes: Tensor) -> Tensor:
        return planes + F.gelu(self.step(planes))
