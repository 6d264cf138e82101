"""`train` and `export`: what they hand on, and what they print. That the training trains is tested with the models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.model import train as training
from serving.model.bundle import REPOSITORY, weights_file
from serving.model.evaluate import Quality
from serving.model.train import Progress, TrainConfig, TrainReport
from serving.requests import MODELS
from tests.commands.conftest import Invoke

QUALITY = Quality(shop="online_retail", lists=10, model=0.4, popularity=0.25, retrieval=0.125, without={"price": 0.375})
REPORT = TrainReport(QUALITY, QUALITY, 1234, 0.5, [], 61.4)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configurations that training was called with; it takes no time and gives REPORT."""
    found: list[TrainConfig] = []

    def train(config: TrainConfig, progress: Callable[[Progress], None]) -> TrainReport:
        found.append(config)
        progress(Progress("fit", 1, 2, 0.5))
        return REPORT

    monkeypatch.setattr(training, "train", train)
    return found


def test_train_uses_what_it_is_told(invoke: Invoke, asked: list[TrainConfig], tmp_path: Path) -> None:
    assert invoke("train", "--weights", tmp_path, "--epochs", "3", "--seed", "5").exit_code == 0
    assert asked == [TrainConfig(weights=tmp_path, epochs=3, seed=5)]


def test_train_leaves_the_rest_as_the_committed_weights_were_made(invoke: Invoke, asked: list[TrainConfig]) -> None:
    invoke("train")
    assert asked == [TrainConfig(weights=Path(".freshrank/weights"))]


@pytest.mark.usefixtures("asked")
def test_train_tells_how_good_the_model_is(invoke: Invoke) -> None:
    output = invoke("train").stdout
    assert "popularity (sales_7d)" in output
    assert "0.2500" in output
    assert "model without price" in output
    assert "1,234 lists learned from in 61 s; weights in .freshrank/weights" in output
    told = json.loads(invoke("train", "--json").stdout)
    assert told["online_retail"]["model"] == 0.4


def test_export_adds_a_version(invoke: Invoke, tmp_path: Path) -> None:
    weights, repository = tmp_path / "weights", tmp_path / "repository"
    weights.mkdir()
    for model in MODELS:
        shutil.copy(weights_file(REPOSITORY, model), weights / f"{model}.safetensors")
    told = json.loads(invoke("export", weights, "--repository", repository, "--json").stdout)
    assert told["models"] == dict.fromkeys(MODELS, 1)
    again = invoke("export", weights, "--repository", repository).stdout
    assert f"ranker: version 1 in {repository / 'ranker' / '1'}" in again, "the same weights are no new version"
    assert "trained quality: ndcg10 " in again
    tracked = invoke("export", weights, "--repository", REPOSITORY)
    assert tracked.exit_code == 2
    assert "is the tracked model repository" in tracked.stderr
