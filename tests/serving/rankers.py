"""Untrained rankers of every form, and requests for them."""

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feature_repo.views import EMBEDDING_DIM, MODALITIES, NUMERIC_FIELDS, SLOTS, USER_DIM
from serving.model.config import FusionForm, ModelConfig
from serving.model.ranker import Ranker
from serving.requests import ScoreRequest

FUSIONS: tuple[FusionForm, ...] = ("sum", "concatenation", "attention", "gated")
#: every fusion with and without each kind of list feature
CONFIGS = [
    ModelConfig(fusion=fusion, relative=relative, list_attention=attention, heads=("click", "relevance"))
    for fusion, relative, attention in product(FUSIONS, (False, True), (False, True))
]
ROW_CONFIGS = [config for config in CONFIGS if config.scope == "row"]
#: content by its matches only, and the taste beside the counters
JOINT = ModelConfig(own_content=False, joint_taste=True)
LIST_CONFIGS = [config for config in CONFIGS if config.scope == "list"]


def name_of(config: ModelConfig) -> str:
    """The form of a ranker as a test's name."""
    extras = ("relative" * config.relative, "list_attention" * config.list_attention)
    return "-".join(filter(None, (config.fusion, *extras)))


def an_untrained(config: ModelConfig, seed: int = 1) -> Ranker:
    """A ranker with random weights, in which nothing is nil as it may be before training."""
    torch.manual_seed(seed)
    net = Ranker(config)
    if net.list_attention is not None:
        nn.init.normal_(net.list_attention.out.weight, std=0.1)
    net.heads.scale.fill_(0.7)
    net.heads.shift.fill_(-0.3)
    return net.eval()


def a_request(rows: int, sets: int = 3, seed: int = 0) -> ScoreRequest:
    """Random rows of random sets, some without a price, most without some modality."""
    random = np.random.default_rng(seed)

    def units(*shape: int) -> NDArray[np.float32]:
        noise = random.normal(size=shape)
        vectors: NDArray[np.float32] = (noise / np.linalg.norm(noise, axis=-1, keepdims=True)).astype(np.float32)
        return vectors

    numeric = random.integers(0, 5000, (rows, len(NUMERIC_FIELDS))).astype(np.float32)
    numeric[::5, NUMERIC_FIELDS.index("price")] = -1
    return ScoreRequest(
        query=units(sets, EMBEDDING_DIM),
        user=units(sets, USER_DIM),
        content=units(rows, len(SLOTS), EMBEDDING_DIM),
        mask=random.integers(0, 2, (rows, len(MODALITIES))).astype(np.float32),
        numeric=numeric,
        retrieval=random.random(rows).astype(np.float32) * 5,
        set_index=random.integers(0, sets, rows).astype(np.int32),
    )


def with_rubbish(request: ScoreRequest) -> ScoreRequest:
    """The same, with numbers in the slots of modalities that are masked."""
    there = request.mask[:, [MODALITIES.index(name) for name in SLOTS], None] > 0
    return replace(request, content=np.where(there, request.content, np.float32(9)))


def tensors_of(request: ScoreRequest) -> list[Tensor]:
    """The inputs of a ranker, in order."""
    return [torch.from_numpy(getattr(request, name)) for name in ScoreRequest.__slots__]


def score(net: Ranker, request: ScoreRequest) -> NDArray[np.float32]:
    """Logits [N]."""
    with torch.inference_mode():
        logit: NDArray[np.float32] = net(*tensors_of(request)).numpy()
    return logit


def explain(net: Ranker, request: ScoreRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits [N] and contributions [N, K]."""
    with torch.inference_mode():
        logit, contributions = net.explain(*tensors_of(request))
    return logit.numpy(), contributions.numpy()


def some_rows(request: ScoreRequest, rows: NDArray[np.int64]) -> ScoreRequest:
    """Some rows of a request, in the order asked for."""
    per_row = {name: getattr(request, name)[rows] for name in ScoreRequest.__slots__ if name not in ("query", "user")}
    return ScoreRequest(query=request.query, user=request.user, **per_row)
