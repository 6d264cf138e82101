"""`product_encoder` behind Triton's Python backend; the net is serving.model.encoders.ProductEncoder."""

import torch
import triton_python_backend_utils as pb_utils

from serving.model.backend import TorchModel
from serving.model.encoders import ProductEncoder
from serving.preprocess import IMAGE_SIZE, text_ids


class TritonPythonModel(TorchModel):
    def __init__(self) -> None:
        super().__init__(pb_utils, ProductEncoder(), ("text_ids", "image", "mask"), ("content",))

    def initialize(self, args: dict[str, str]) -> None:
        ids = torch.from_numpy(text_ids("白色T恤 white t-shirt")).unsqueeze(0)
        image = torch.full((1, IMAGE_SIZE, IMAGE_SIZE, 3), 255, dtype=torch.uint8)
        self.load(args, (ids, image, torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])))
