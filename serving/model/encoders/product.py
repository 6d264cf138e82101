"""The product tower: what a product is -> one unit vector per modality, and likeness.

N rows, D = EMBEDDING_DIM, M modalities in the order of MODALITIES, S = len(SLOTS).
"""

import torch
from torch import Tensor, nn

from feature_repo.views import EMBEDDING_DIM, LIKENESS, MODALITIES, SLOTS
from serving.model.config import ModelConfig
from serving.model.encoders.attributes import AttributesEncoder
from serving.model.encoders.audio import AudioEncoder
from serving.model.encoders.image import FEATURES, ImageEncoder
from serving.model.encoders.text import TextEncoder
from serving.model.encoders.video import VideoEncoder


class ProductEncoder(nn.Module):
    """An encoder for each modality; frames of a video go through the image encoder's CNN."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.text = TextEncoder(config.text)
        self.attributes = AttributesEncoder()
        self.image = ImageEncoder(config.image_size)
        self.video = VideoEncoder()
        self.audio = AudioEncoder()

    def forward(
        self,
        text_ids: Tensor,
        attribute_ids: Tensor,
        attribute_numbers: Tensor,
        image: Tensor,
        video: Tensor,
        audio: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """text_ids [N, L], attribute_ids [N, A], attribute_numbers [N, J], mask [N, M]; of the rows that have them, in
        order of row: image [I, P, P, 3], video [V, T, P, P, 3], audio [W, MELS, AUDIO_FRAMES] -> content [N, S, D],
        zeros where the mask is 0. P is `image_size`."""
        attributes, likeness = self.attributes(attribute_ids, attribute_numbers)
        vectors = {
            "text": self.text(text_ids),
            "attributes": attributes,
            "image": _spread(self.image(image), _column(mask, "image")),
            "video": _spread(self._clips(video), _column(mask, "video")),
            "audio": _spread(self.audio(audio), _column(mask, "audio")),
        }
        wide = likeness.view(len(mask), len(LIKENESS), EMBEDDING_DIM)
        content = torch.cat((torch.stack([vectors[name] for name in MODALITIES], 1), wide), 1)
        return content * mask[:, [MODALITIES.index(name) for name in SLOTS]].unsqueeze(-1)

    def _clips(self, video: Tensor) -> Tensor:
        """video [V, T, S, S, 3] -> [V, D]"""
        features = self.image.features(video.flatten(0, 1))
        vectors: Tensor = self.video(features.view(*video.shape[:2], FEATURES))
        return vectors


def _column(mask: Tensor, name: str) -> Tensor:
    return mask[:, MODALITIES.index(name)] > 0


def _spread(vectors: Tensor, there: Tensor) -> Tensor:
    """vectors [K, D] of the K rows that are there [N] -> [N, D], zeros elsewhere."""
    (rows,) = torch.where(there)
    return vectors.new_zeros(len(there), EMBEDDING_DIM).index_copy(0, rows, vectors)
