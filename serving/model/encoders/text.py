"""Hashed pieces of words of any language -> a unit vector. How the pieces are read is chosen by the config.

N texts, L places (at most TEXT_LENGTH; padding behind changes nothing), W = PIECE_WIDTH, D = EMBEDDING_DIM.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from feature_repo.views import EMBEDDING_DIM
from serving.model.encoders.pooling import AttentionPool
from serving.preprocess import TEXT_BUCKETS, TEXT_LENGTH

PIECE_WIDTH: Final = 24
POOL_HEADS: Final = 4
#: of the Transformer
LAYERS: Final = 2
HEADS: Final = 4


class TextEncoder(nn.Module):
    """Pieces -> read in their order, or as they are -> pooled by attention -> mixed."""

    def __init__(self, reader: str = "pieces") -> None:
        """`reader`: "pieces" knows no order; "transformer" and "bilstm" do."""
        super().__init__()
        self.pieces = nn.Embedding(TEXT_BUCKETS, PIECE_WIDTH, padding_idx=0)
        self.reader = READERS[reader]()
        self.pool = AttentionPool(PIECE_WIDTH, POOL_HEADS)
        self.mix = nn.Sequential(
            nn.Linear(POOL_HEADS * PIECE_WIDTH, 2 * EMBEDDING_DIM),
            nn.GELU(),
            nn.Linear(2 * EMBEDDING_DIM, EMBEDDING_DIM),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """ids [N, L] int -> [N, D]; zeros for a text without pieces."""
        there = ids > 0
        read = self.reader(self.pieces(ids.long()), there)
        return F.normalize(self.mix(self.pool(read, there)), dim=-1) * there.any(1, keepdim=True)


class Pieces(nn.Module):
    """Takes each piece as it is: a bag of words."""

    def forward(self, pieces: Tensor, there: Tensor) -> Tensor:
        """pieces [N, L, W], there [N, L] bool -> [N, L, W]"""
        return pieces


class Transformer(nn.Module):
    """Pieces and their places through LAYERS of self-attention. What a layer adds begins at nothing: an untrained
    Transformer is a bag of words, and learns what order adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(TEXT_LENGTH, PIECE_WIDTH))
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))

    def forward(self, pieces: Tensor, there: Tensor) -> Tensor:
        """pieces [N, L, W], there [N, L] bool -> [N, L, W]"""
        read = pieces
        for layer in self.layers:
            read = read + layer(read + self.places[: pieces.shape[1]], there)
        return read


class _Layer(nn.Module):
    """What one layer adds: self-attention over the places that are there, then a step for each place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LayerNorm(PIECE_WIDTH)
        self.attention = nn.Linear(PIECE_WIDTH, 3 * PIECE_WIDTH)
        self.second = nn.LayerNorm(2 * PIECE_WIDTH)
        self.step = nn.Sequential(nn.Linear(2 * PIECE_WIDTH, 2 * PIECE_WIDTH), nn.GELU())
        self.out = nn.Linear(2 * PIECE_WIDTH, PIECE_WIDTH)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, placed: Tensor, there: Tensor) -> Tensor:
        own = self.first(placed)
        parts = self.attention(own).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        # a text without pieces has nothing to attend to: a finite score keeps it from becoming nan
        hidden = torch.zeros(there.shape, dtype=own.dtype, device=own.device).masked_fill(~there, -1e9)
        seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=hidden[:, None, None])
        both = torch.cat((own, seen.transpose(1, 2).flatten(-2)), -1)
        added: Tensor = self.out(self.step(self.second(both)))
        return added


class BiLstm(nn.Module):
    """Pieces read from both ends; each place gets what was read up to it and what comes after."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(PIECE_WIDTH, PIECE_WIDTH, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * PIECE_WIDTH, PIECE_WIDTH)

    def forward(self, pieces: Tensor, there: Tensor) -> Tensor:
        """pieces [N, L, W], there [N, L] bool -> [N, L, W]"""
        if len(pieces) == 0:  # cannot be packed
            return pieces
        lengths = there.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(pieces, lengths, batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=pieces.shape[1])
        added: Tensor = self.out(read)
        return pieces + added


READERS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "pieces": Pieces,
    "transformer": Transformer,
    "bilstm": BiLstm,
}
