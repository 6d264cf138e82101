"""`ranker` behind Triton's Python backend; the net is serving.model.ranker.Ranker."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple

import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor

from serving.model.backend import TorchModel
from serving.model.ranker import Ranker
from serving.model.tracing import traced
from serving.requests import empty_request

INPUTS = ("query", "user", "content", "mask", "numeric", "retrieval", "set_index")


class TritonPythonModel(TorchModel):
    net: Ranker
    score: Callable[..., Tensor]

    def __init__(self) -> None:
        super().__init__(pb_utils, INPUTS, ("logit", "contributions"))

    def initialize(self, args: dict[str, str]) -> None:
        self.load(args)
        self.prove(*map(torch.from_numpy, astuple(empty_request(queries=1, rows=2))))
        self.score = traced(self.net)

    def answer(self, tensors: Sequence[Tensor], asked: Collection[str]) -> Mapping[str, Tensor]:
        if "contributions" not in asked:
            return {"logit": self.score(*tensors)}
        logit, contributions = self.net.explain(*tensors)
        return {"logit": logit, "contributions": contributions}
