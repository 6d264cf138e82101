"""Encoders: what a product or a query is -> unit vectors. They run when content changes, not when a price does.

N rows, D = EMBEDDING_DIM, M modalities in the order of MODALITIES.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM, MODALITIES
from serving.preprocess import TEXT_BUCKETS

PIECE_WIDTH = 24
ATTENTION_HEADS = 4
TEXT, IMAGE = MODALITIES.index("text"), MODALITIES.index("image")


class TextEncoder(nn.Module):
    """Hashed pieces of words of any language -> one vector: each head attends to the pieces that matter to it."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Embedding(TEXT_BUCKETS, PIECE_WIDTH, padding_idx=0)
        self.attention = nn.Linear(PIECE_WIDTH, ATTENTION_HEADS)
        self.mix = nn.Sequential(
            nn.Linear(ATTENTION_HEADS * PIECE_WIDTH, 2 * EMBEDDING_DIM),
            nn.GELU(),
            nn.Linear(2 * EMBEDDING_DIM, EMBEDDING_DIM),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """ids [N, L] int -> [N, D]; zeros for a text without pieces."""
        pieces = self.pieces(ids.long())
        there = (ids > 0).unsqueeze(-1)
        weights = self.attention(pieces).masked_fill(~there, -1e9).softmax(1)
        heads = torch.einsum("nlh,nlw->nhw", weights, pieces).flatten(1)
        return F.normalize(self.mix(heads), dim=-1) * there.any(1)


class ImageEncoder(nn.Module):
    """A small CNN. No normalisation over the picture: a shirt's colour is in the absolute values."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=4),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(48 * 16, EMBEDDING_DIM),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [N, 64, 64, 3] uint8 -> [N, D]"""
        planes = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        vectors: Tensor = F.normalize(self.features(planes), dim=-1)
        return vectors


class ProductEncoder(nn.Module):
    """The product tower: one vector per modality. Video and audio have their place and no encoder yet: zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TextEncoder()
        self.image = ImageEncoder()

    def forward(self, text_ids: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """text_ids [N, L], image [N, 64, 64, 3], mask [N, M] -> content [N, M, D], zeros where the mask is 0."""
        missing = mask.new_zeros(len(mask), EMBEDDING_DIM)
        vectors = [missing] * len(MODALITIES)
        vectors[TEXT] = self.text(text_ids)
        (pictured,) = torch.where(mask[:, IMAGE] > 0)
        vectors[IMAGE] = missing.index_copy(0, pictured, self.image(image[pictured]))
        return torch.stack(vectors, 1) * mask.unsqueeze(-1)


class QueryEncoder(nn.Module):
    """The query tower: the product's text encoder, and a step of its own from words asked to words written."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TextEncoder()
        self.step = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)

    def forward(self, text_ids: Tensor) -> Tensor:
        """text_ids [Q, L] -> [Q, D]; zeros for a query without pieces."""
        text = self.text(text_ids)
        return F.normalize(text + self.step(text), dim=-1) * (text_ids > 0).any(1, keepdim=True)
