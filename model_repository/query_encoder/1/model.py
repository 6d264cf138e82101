"""`query_encoder` behind Triton's Python backend; the net is serving.model.encoders.QueryEncoder."""

import torch
import triton_python_backend_utils as pb_utils

from serving.model.backend import TorchModel
from serving.preprocess import text_ids


class TritonPythonModel(TorchModel):
    def __init__(self) -> None:
        super().__init__(pb_utils, ("text_ids",), ("query",))

    def initialize(self, args: dict[str, str]) -> None:
        self.load(args)
        self.prove(torch.from_numpy(text_ids("白色T恤 white t-shirt")).unsqueeze(0))
