"""Triton's side of the models.

Tensors cross by DLPack both ways: the server's own bridge to NumPy drops the data without a word.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from serving.model.bundle import WEIGHTS, load

#: one call is small; threads would only fight over the cores of the workers
THREADS = 1


class TorchModel:
    """A torch module behind Triton's Python backend: named tensors in, named tensors out.

    `pb_utils` is Triton's module, which exists only inside its stub process.
    """

    def __init__(self, pb_utils: Any, module: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._pb_utils = pb_utils
        self._module = module
        self._inputs = inputs
        self._outputs = outputs

    def load(self, args: dict[str, str], example: Sequence[Tensor]) -> None:
        """Read the weights of this version and prove them on an example before any request comes."""
        torch.set_num_threads(THREADS)
        load(self._module, Path(args["model_repository"]) / args["model_version"] / WEIGHTS)
        for name, tensor in zip(self._outputs, self._run(example), strict=True):
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{args['model_name']} answers its example with {name} that is not finite")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request by itself: clients concatenate what belongs together."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensors = [self._tensor(request, name) for name in self._inputs]
        answers = zip(self._outputs, self._run(tensors), strict=True)
        return self._pb_utils.InferenceResponse(
            [self._pb_utils.Tensor.from_dlpack(name, tensor.contiguous()) for name, tensor in answers]
        )

    def _tensor(self, request: Any, name: str) -> Tensor:
        tensor: Tensor = from_dlpack(self._pb_utils.get_input_tensor_by_name(request, name).to_dlpack())
        return tensor

    def _run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            answer = self._module(*tensors)
        return answer if isinstance(answer, tuple) else (answer,)
