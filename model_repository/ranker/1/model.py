"""`ranker` behind Triton's Python backend; the net is serving.model.ranker.Ranker."""

from dataclasses import astuple

import torch
import triton_python_backend_utils as pb_utils

from serving.model.backend import TorchModel
from serving.model.ranker import Ranker
from serving.requests import empty_request

INPUTS = ("query", "user", "content", "mask", "numeric", "retrieval", "set_index")


class TritonPythonModel(TorchModel):
    def __init__(self) -> None:
        super().__init__(pb_utils, Ranker(), INPUTS, ("logit", "contributions"))

    def initialize(self, args: dict[str, str]) -> None:
        unknown_product = astuple(empty_request(queries=1, rows=2))
        self.load(args, tuple(map(torch.from_numpy, unknown_product)))
