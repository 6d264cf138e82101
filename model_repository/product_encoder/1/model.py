"""`product_encoder` behind Triton's Python backend; the net is serving.model.encoders.ProductEncoder."""

from collections.abc import Collection, Mapping, Sequence

import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor

from feature_repo.views import MODALITIES
from serving.model.backend import TorchModel
from serving.model.encoders import ProductEncoder
from serving.preprocess import AUDIO_FRAMES, FRAMES, MELS, attribute_ids, attribute_numbers, text_ids

INPUTS = ("text_ids", "attribute_ids", "attribute_numbers", "image", "video", "audio", "mask")


class TritonPythonModel(TorchModel):
    net: ProductEncoder

    def __init__(self) -> None:
        super().__init__(pb_utils, INPUTS, ("content", "image_size"))

    def initialize(self, args: dict[str, str]) -> None:
        self.load(args)
        size = self.net.image_size
        self.prove(
            torch.from_numpy(text_ids("白色T恤 white t-shirt")).unsqueeze(0),
            torch.from_numpy(attribute_ids("brand", ["tops"], {"size": 42})).unsqueeze(0),
            torch.from_numpy(attribute_numbers({"size": 42})).unsqueeze(0),
            torch.full((1, size, size, 3), 255, dtype=torch.uint8),
            torch.full((1, FRAMES, size, size, 3), 255, dtype=torch.uint8),
            torch.zeros(1, MELS, AUDIO_FRAMES),
            torch.ones(1, len(MODALITIES)),
        )

    def answer(self, tensors: Sequence[Tensor], asked: Collection[str]) -> Mapping[str, Tensor]:
        answers = {"image_size": torch.tensor([self.net.image_size], dtype=torch.int32)}
        if "content" in asked:
            answers["content"] = self.net(*tensors)
        return answers
