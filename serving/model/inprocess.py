"""The nets without Triton, as a Scorer: for the offline oracle, for training and for tests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_repo.views import EMBEDDING_DIM, MODALITIES, SLOTS
from serving.errors import ScorerUnavailable
from serving.model.bundle import REPOSITORY, load, weights_file
from serving.model.tracing import traced
from serving.preprocess import MediaLimits, portions, prepare_products, prepare_texts
from serving.requests import MODELS, ContentVectors, Floats, ProductContent, ScoreRequest, Scores


class InProcessScorer:
    """A Scorer over the weights of a model repository. The constructor reads nothing; weights load when needed."""

    def __init__(self, repository: Path = REPOSITORY, limits: MediaLimits | None = None) -> None:
        self._repository = repository
        self._limits = limits
        self._loaded: dict[tuple[str, int | None], Any] = {}
        self._scoring: dict[int | None, Callable[..., torch.Tensor]] = {}

    async def encode_queries(self, texts: Sequence[str], version: int | None = None) -> Floats:
        """Query vectors [Q, D]."""
        net = self._net("query_encoder", version)
        with torch.inference_mode():
            vectors: Floats = net(torch.from_numpy(prepare_texts(texts))).numpy()
        return vectors

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        """Content vectors, or BadMedia that names the first product whose medium cannot be decoded."""
        net = self._net("product_encoder", version)
        content = [np.zeros((0, len(SLOTS), EMBEDDING_DIM), np.float32)]
        masks = [np.zeros((0, len(MODALITIES)), np.float32)]
        for portion in portions(products, net.image_size):
            some = prepare_products(portion, self._limits, net.image_size)
            with torch.inference_mode():
                content.append(net(*map(torch.from_numpy, some.arrays().values())).numpy())
            masks.append(some.mask)
        return ContentVectors(np.concatenate(content), np.concatenate(masks))

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        """Scores by the given version of the ranker, or by the newest; with their contributions if `explain`."""
        net, scoring = self._net("ranker", version), self._scoring_of(version)
        tensors = [torch.from_numpy(getattr(request, name)) for name in ScoreRequest.__slots__]
        with torch.inference_mode():
            if not explain:
                return Scores(scoring(*tensors).numpy())
            logit, contributions = net.explain(*tensors)
        return Scores(logit.numpy(), contributions.numpy())

    async def ready(self) -> bool:
        """Whether the newest weights of all models are there."""
        return all(weights_file(self._repository, model).is_file() for model in MODELS)

    async def close(self) -> None:
        self._loaded.clear()
        self._scoring.clear()

    def _scoring_of(self, version: int | None) -> Callable[..., torch.Tensor]:
        """As Triton scores with it."""
        if version not in self._scoring:
            self._scoring[version] = traced(self._net("ranker", version))
        return self._scoring[version]

    def _net(self, model: str, version: int | None) -> Any:
        if (model, version) not in self._loaded:
            file = weights_file(self._repository, model, version)
            if not file.is_file():
                raise ScorerUnavailable(f"{model} {version or 'newest'} is not in {self._repository}")
            self._loaded[model, version] = load(model, file)
        return self._loaded[model, version]
