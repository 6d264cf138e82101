"""Models run where their weights are. PyTorch's meta device stands in for a GPU: it computes nothing, and refuses, as a
GPU does, what mixes its tensors with those of the CPU."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

from feature_repo.views import EMBEDDING_DIM, MODALITIES, SLOTS
from serving.model.backend import TorchModel, device_of
from serving.model.config import ModelConfig, TextForm
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.preprocess import ATTRIBUTE_NUMBERS, AUDIO_FRAMES, FRAMES, MELS
from tests.serving.rankers import CONFIGS, JOINT, a_request, an_untrained, name_of, tensors_of

ELSEWHERE = torch.device("meta")
ROWS = 3


@pytest.fixture(autouse=True)
def assumed() -> Iterator[None]:
    """Which rows have a picture, say, is data, and there is none: all are taken to have it."""
    with _config.patch(meta_nonzero_assume_all_nonzero=True):  # type: ignore[attr-defined]
        yield


def moved(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.to(ELSEWHERE) for tensor in tensors]


@pytest.mark.parametrize("config", [*CONFIGS, JOINT], ids=name_of)
def test_a_ranker_runs_where_it_is(config: ModelConfig) -> None:
    net, request = an_untrained(config).to(ELSEWHERE), moved(tensors_of(a_request(20)))
    with torch.inference_mode():
        logit, contributions = net.explain(*request)
        assert (net(*request).device, logit.device, contributions.device) == (ELSEWHERE,) * 3


@pytest.mark.parametrize("form", ["pieces", "transformer"])
def test_encoders_run_where_they_are(form: TextForm) -> None:
    """All but a BiLSTM, which packs its texts by their lengths: data, too."""
    encoder = ProductEncoder(ModelConfig(text=form)).eval()
    size = encoder.image_size
    content = [
        torch.ones(ROWS, 64, dtype=torch.int32),
        torch.ones(ROWS, 64, dtype=torch.int32),
        torch.zeros(ROWS, ATTRIBUTE_NUMBERS),
        torch.zeros(ROWS, size, size, 3, dtype=torch.uint8),
        torch.zeros(ROWS, FRAMES, size, size, 3, dtype=torch.uint8),
        torch.zeros(ROWS, MELS, AUDIO_FRAMES),
        torch.ones(ROWS, len(MODALITIES)),
    ]
    with torch.inference_mode():
        vectors = encoder.to(ELSEWHERE)(*moved(content))
        query = QueryEncoder(ModelConfig(text=form)).to(ELSEWHERE)(*moved(content[:1]))
    assert (vectors.device, vectors.shape) == (ELSEWHERE, (ROWS, len(SLOTS), EMBEDDING_DIM))
    assert (query.device, query.shape) == (ELSEWHERE, (ROWS, EMBEDDING_DIM))


@pytest.mark.parametrize(
    ("kind", "can", "where"), [("GPU", True, "cuda:1"), ("GPU", False, "cpu"), ("CPU", True, "cpu")]
)
def test_an_instance_runs_where_triton_puts_it(
    kind: str, can: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: can)
    assert device_of({"model_instance_kind": kind, "model_instance_device_id": "1"}) == torch.device(where)


def test_requests_go_to_the_device() -> None:
    """What Triton hands over lies on the CPU."""
    request = SimpleNamespace(requested_output_names=list)
    given = SimpleNamespace(to_dlpack=lambda: torch.ones(2).__dlpack__())
    utils = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: given, InferenceResponse=lambda tensors: tensors
    )
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, tensor: Tensor) -> Tensor:
            seen.append(tensor)
            return tensor

    model = TorchModel(utils, ["x"], ["y"])
    model.net, model.device = Seeing(), ELSEWHERE
    assert model.execute([request]) == [[]]
    assert seen[0].device == ELSEWHERE
