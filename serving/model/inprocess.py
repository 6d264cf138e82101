"""The nets without Triton, as a Scorer: for the offline oracle, for training and for tests."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from serving.errors import ScorerUnavailable
from serving.model.bundle import REPOSITORY, load, weights_file
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.model.ranker import Ranker
from serving.preprocess import MediaLimits, prepare_products, prepare_texts
from serving.requests import MODELS, ContentVectors, Floats, ProductContent, ScoreRequest, Scores

#: products encoded at a time: bounds the memory of the pictures
ENCODED_ROWS = 256


class InProcessScorer:
    """A Scorer over the weights of a model repository. The constructor reads nothing; weights load when needed."""

    def __init__(self, repository: Path = REPOSITORY, limits: MediaLimits | None = None) -> None:
        self._repository = repository
        self._limits = limits
        self._loaded: dict[tuple[str, int | None], torch.nn.Module] = {}

    async def encode_queries(self, texts: Sequence[str], version: int | None = None) -> Floats:
        """Query vectors [Q, D]."""
        net = self._net("query_encoder", QueryEncoder, version)
        with torch.inference_mode():
            vectors: Floats = net(torch.from_numpy(prepare_texts(texts))).numpy()
        return vectors

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        """Content vectors, or BadMedia that names the first product whose medium cannot be decoded."""
        net = self._net("product_encoder", ProductEncoder, version)
        content, masks = [], []
        for first in range(0, max(len(products), 1), ENCODED_ROWS):
            some = prepare_products(products[first : first + ENCODED_ROWS], self._limits)
            with torch.inference_mode():
                tensors = (torch.from_numpy(part) for part in (some.text_ids, some.image, some.mask))
                content.append(net(*tensors).numpy())
            masks.append(some.mask)
        return ContentVectors(np.concatenate(content), np.concatenate(masks))

    async def score(self, request: ScoreRequest, version: int | None = None) -> Scores:
        """Scores by the given version of the ranker, or by the newest."""
        net = self._net("ranker", Ranker, version)
        with torch.inference_mode():
            logit, contributions = net(*(torch.from_numpy(getattr(request, f.name)) for f in fields(ScoreRequest)))
        return Scores(logit.numpy(), contributions.numpy())

    async def ready(self) -> bool:
        """Whether the newest weights of all models are there."""
        return all(weights_file(self._repository, model).is_file() for model in MODELS)

    async def close(self) -> None:
        self._loaded.clear()

    def _net(self, model: str, kind: type[torch.nn.Module], version: int | None) -> torch.nn.Module:
        if (model, version) not in self._loaded:
            file = weights_file(self._repository, model, version)
            if not file.is_file():
                raise ScorerUnavailable(f"{model} {version or 'newest'} is not in {self._repository}")
            net = kind()
            load(net, file)
            self._loaded[model, version] = net
        return self._loaded[model, version]
