"""Triton's side of the models.

Tensors cross by DLPack both ways: the server's own bridge to NumPy drops the data without a word.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from serving.model.bundle import WEIGHTS, load

#: one call is small; threads would only fight over the cores of the workers
THREADS = 1


class TorchModel:
    """A torch module behind Triton's Python backend: named tensors in, those of the named tensors out that are asked.

    `pb_utils` is Triton's module, which exists only inside its stub process.
    """

    net: nn.Module
    device = torch.device("cpu")

    def __init__(self, pb_utils: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._pb_utils = pb_utils
        self._inputs = inputs
        self._outputs = outputs

    def load(self, args: dict[str, str]) -> None:
        """Build the net of this version as its weights configure it, where this instance is to run."""
        torch.set_num_threads(THREADS)
        self.device = device_of(args)
        file = Path(args["model_repository"]) / args["model_version"] / WEIGHTS
        self.net = load(args["model_name"], file).to(self.device)

    def prove(self, *example: Tensor) -> None:
        """Answer an example before any request comes; raise ValueError for an answer that is not finite."""
        with torch.inference_mode():
            answers = self.answer([tensor.to(self.device) for tensor in example], self._outputs)
        for name in self._outputs:
            if not bool(answers[name].isfinite().all()):
                raise ValueError(f"the answer to an example has {name} that is not finite")

    def answer(self, tensors: Sequence[Tensor], asked: Collection[str]) -> Mapping[str, Tensor]:
        """The outputs by name, at least those that are asked for. A net with one output needs nothing else."""
        return {self._outputs[0]: self.net(*tensors)}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request by itself: clients concatenate what belongs together."""
        with torch.inference_mode():
            return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        tensors = [self._tensor(request, name) for name in self._inputs]
        asked = request.requested_output_names()
        answers = self.answer(tensors, asked)
        return self._pb_utils.InferenceResponse(
            [self._pb_utils.Tensor.from_dlpack(name, answers[name].cpu().contiguous()) for name in asked]
        )

    def _tensor(self, request: Any, name: str) -> Tensor:
        tensor: Tensor = from_dlpack(self._pb_utils.get_input_tensor_by_name(request, name).to_dlpack())
        return tensor.to(self.device)


def device_of(args: Mapping[str, str]) -> torch.device:
    """The GPU that Triton gives an instance (KIND_AUTO: one each where there are any), if this torch can use it."""
    if args.get("model_instance_kind") == "GPU" and torch.cuda.is_available():
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")
