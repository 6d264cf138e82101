"""Fusion by cross-modal attention: the parts of a row attend to one another, and query and user attend to the parts.

A layer of the Transformer of Vaswani et al., "Attention Is All You Need" (2017), over the parts as tokens, as in Tsai
et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences" (2019).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.model.fusion.interface import FIRST_WEIGHT, Fusion

HEADS = 4


class Attention(Fusion):
    """One layer over the parts and a token of query and user, which is the pool: its answer is the fused vector.

    Parts that are missing are attended to by nobody.
    """

    def __init__(self, parts: int, width: int, context: int) -> None:
        super().__init__()
        self.width = width
        self.which = nn.Parameter(torch.randn(parts + 1, width) / width**0.5)
        self.context = nn.Linear(context, width)
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.pool_query = nn.Linear(width, width)
        self.pool_read = nn.Linear(width, 2 * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def fuse(self, parts: Tensor, there: Tensor, context: Tensor, set_index: Tensor) -> Tensor:
        asked = self.context(context).index_select(0, set_index).unsqueeze(1)
        tokens = torch.cat((asked, parts), 1) + self.which
        mask = torch.cat((torch.ones_like(there[:, :1]), there), 1).bool()[:, None, None, :]
        query, key, value = (_heads(x) for x in self.read(self.norms[0](tokens)).chunk(3, 2))
        tokens = tokens + self.write(_merged(F.scaled_dot_product_attention(query, key, value, mask)))
        tokens = tokens + self.mix(self.norms[1](tokens))
        seen = self.norms[2](tokens)
        key, value = (_heads(x) for x in self.pool_read(seen).chunk(2, 2))
        pooled = F.scaled_dot_product_attention(_heads(self.pool_query(seen[:, :1])), key, value, mask)
        return F.normalize(_merged(pooled).squeeze(1), dim=-1) * FIRST_WEIGHT


def _heads(tokens: Tensor) -> Tensor:
    """[N, T, W] -> [N, HEADS, T, W / HEADS]"""
    return tokens.reshape(*tokens.shape[:2], HEADS, tokens.shape[2] // HEADS).transpose(1, 2)


def _merged(heads: Tensor) -> Tensor:
    """[N, HEADS, T, W / HEADS] -> [N, T, W]"""
    return heads.transpose(1, 2).flatten(2)
