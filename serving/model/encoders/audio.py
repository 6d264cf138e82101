"""Log-mel of a sound -> a unit vector, by a small CNN.

Pitch is a place on the mel axis, so that axis keeps its order; when a sound begins says nothing.
"""

from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM
from serving.model.encoders.pooling import AttentionPool
from serving.preprocess import MELS

CHANNELS: Final = (8, 16, 16)
WIDTH: Final = 48
HEADS: Final = 2


class AudioEncoder(nn.Module):
    """Halvings of both axes; then each moment is a vector of all its bands, and attention chooses the moments."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width, bands = 1, MELS
        for wider in CHANNELS:
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.GELU()]
            width, bands = wider, (bands + 1) // 2
        self.trunk = nn.Sequential(*layers)
        self.moment = nn.Sequential(nn.Linear(width * bands, WIDTH), nn.GELU())
        self.pool = AttentionPool(WIDTH, HEADS)
        self.out = nn.Linear(HEADS * WIDTH, EMBEDDING_DIM)

    def forward(self, audio: Tensor) -> Tensor:
        """audio [W, MELS, AUDIO_FRAMES] f32 -> [W, D]"""
        found = self.trunk(audio.unsqueeze(1)).flatten(1, 2).transpose(1, 2)
        return F.normalize(self.out(self.pool(self.moment(found))), dim=-1)
