"""The query tower: what somebody types -> a unit vector in the space of the products' texts."""

from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM
from serving.model.config import ModelConfig
from serving.model.encoders.text import TextEncoder


class QueryEncoder(nn.Module):
    """The product's text encoder, and a step of its own from words asked to words written."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.text = TextEncoder(config.text)
        self.step = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)

    def forward(self, text_ids: Tensor) -> Tensor:
        """text_ids [Q, L] -> [Q, D]; zeros for a query without pieces."""
        text = self.text(text_ids)
        return F.normalize(text + self.step(text), dim=-1) * (text_ids > 0).any(1, keepdim=True)
