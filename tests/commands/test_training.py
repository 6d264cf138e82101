"""`train` and `export`: what they hand on, and what they print. That the training trains is tested with the models."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from serving.model.bundle import REPOSITORY, weights_file
from serving.model.config import ModelConfig
from serving.model.dataset import Shop
from serving.model.evaluate import Quality
from serving.model.training import course
from serving.model.training.checkpoint import Checkpoint
from serving.model.training.config import TrainConfig, as_values, read
from serving.model.training.fitting import Epoch, Progress, Step
from serving.model.training.report import TrainReport
from serving.requests import MODELS
from tests.commands.conftest import Invoke

QUALITY = Quality(shop="online_retail", lists=10, model=0.4, popularity=0.25, retrieval=0.125, without={"price": 0.375})
REPORT = TrainReport((QUALITY, replace(QUALITY, shop="shirts")), 1234, 5, 4, 0.5, [], 61.4)
EPOCH = Epoch(1, {"click": 0.25, "softmax": 2.0}, 0.5)


class Asked:
    """What training was called with; it takes no time and gives REPORT, or is interrupted after an epoch."""

    def __init__(self) -> None:
        self.configs: list[TrainConfig] = []
        self.resumed: list[Checkpoint | None] = []
        self.interrupt = False

    def train(
        self,
        config: TrainConfig,
        progress: Callable[[Progress], None],
        log: Shop | None = None,
        resume: Checkpoint | None = None,
        notes: object = None,
    ) -> TrainReport:
        self.configs.append(config)
        self.resumed.append(resume)
        progress(Progress("lists", 1, 1))
        progress(Progress("fit", 1, 1, Step({"click": 0.25, "softmax": 2.0}, 0.001)))
        progress(Progress("fit", 1, 1, ended=EPOCH))
        if self.interrupt:
            raise KeyboardInterrupt
        return REPORT


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(course, "train", found.train)
    return found


def a_checkpoint(config: TrainConfig) -> None:
    """As one that training leaves after its first epoch."""
    Checkpoint({}, {"config": as_values(config), "course": {"epochs": [{}], "best": 1}, "steps": 1}).save(
        config.weights
    )


def test_train_uses_what_it_is_told(invoke: Invoke, asked: Asked, tmp_path: Path) -> None:
    assert invoke("train", "--weights", tmp_path, "--epochs", "3", "--seed", "5", "--device", "cpu").exit_code == 0
    assert asked.configs == [TrainConfig(weights=tmp_path, epochs=3, seed=5, device="cpu")]


def test_train_leaves_the_rest_as_the_committed_weights_were_made(invoke: Invoke, asked: Asked) -> None:
    invoke("train")
    assert asked.configs == [TrainConfig()]


def test_options_stand_over_the_file_and_the_file_over_the_defaults(
    invoke: Invoke, asked: Asked, tmp_path: Path
) -> None:
    file = tmp_path / "train.toml"
    file.write_text('[train]\nepochs = 9\nseed = 1\n[model]\nfusion = "gated"\n')
    done = invoke("train", "--config", file, "--epochs", "3", "--set", "model.text=bilstm", "--set", "log.tested=0.5")
    assert done.exit_code == 0
    (config,) = asked.configs
    assert (config.epochs, config.seed, config.log.tested) == (3, 1, 0.5)
    assert config.model == ModelConfig(text="bilstm", fusion="gated")


def test_a_printed_configuration_is_that_of_the_next_training(invoke: Invoke, asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text(invoke("train", "--epochs", "3", "--set", "model.losses.lambdarank=0.5", "--print-config").stdout)
    assert asked.configs == [], "nothing was trained"
    assert invoke("train", "--config", file).exit_code == 0
    assert asked.configs == [read(file)]
    assert asked.configs[0].model.losses.lambdarank == 0.5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--epochs", "0"), "train.epochs is 0, expected a whole number >= 1"),
        (("--set", "model.fusion=mean"), "model.fusion is 'mean', expected sum or concatenation or attention or gated"),
        (("--set", "train.epoch=3"), "unknown field train.epoch, expected weights, "),
        (("--set", "epochs=3"), "--set epochs=3: expected section.field=value, as in model.fusion=gated"),
        (("--set", "train.epochs"), "--set train.epochs: expected section.field=value"),
        (("--only", "towers"), "train.only is 'towers', expected ranker"),
        (("--resume",), "no checkpoint in .freshrank/weights: nothing to go on with"),
    ],
)
def test_a_mistake_is_one_line(invoke: Invoke, asked: Asked, options: tuple[str, ...], told: str) -> None:
    done = invoke("train", *options)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: {told}")
    assert done.stderr.count("\n") == 1
    assert asked.configs == []


@pytest.mark.usefixtures("asked")
def test_train_tells_how_good_the_model_is(invoke: Invoke) -> None:
    done = invoke("train")
    assert "popularity (sales_7d)" in done.stdout
    assert "0.2500" in done.stdout
    assert "model without price" in done.stdout
    assert "1,234 lists learned from in 61 s; weights in .freshrank/weights, those of epoch 4" in done.stdout
    assert done.stderr == "epoch 1 of 5: click 0.2500, softmax 2.0000, NDCG@10 0.5000\n"
    told = json.loads(invoke("train", "--json").stdout)
    assert told["online_retail"]["model"] == 0.4
    assert told["shirts"]["popularity"] == 0.25


def test_ctrl_c_says_how_to_go_on(invoke: Invoke, asked: Asked, tmp_path: Path) -> None:
    asked.interrupt = True
    stopped = invoke("train", "--weights", tmp_path)
    assert stopped.exit_code == 130
    assert stopped.stderr.endswith("stopped before the first epoch ended: there is nothing to go on with\n")
    a_checkpoint(TrainConfig(tmp_path))
    stopped = invoke("train", "--weights", tmp_path)
    assert stopped.exit_code == 130
    line = stopped.stderr.splitlines()[-1]
    assert line == f"stopped after epoch 1 of 5; to go on: freshrank train --weights {tmp_path} --resume"


def test_a_training_goes_on_as_it_began(invoke: Invoke, asked: Asked, tmp_path: Path) -> None:
    began = TrainConfig(tmp_path, epochs=9, model=ModelConfig(fusion="gated"))
    a_checkpoint(began)
    assert invoke("train", "--weights", tmp_path, "--resume").exit_code == 0
    assert invoke("train", "--weights", tmp_path, "--resume", "--epochs", "9").exit_code == 0
    assert asked.configs == [began, began]
    assert all(asked.resumed)
    other = invoke("train", "--weights", tmp_path, "--resume", "--epochs", "5")
    assert other.exit_code == 2
    assert "the checkpoint was made with train.epochs = 9, not 5: leave that out, or train anew" in other.stderr


@pytest.mark.usefixtures("asked")
def test_the_course_goes_to_tensorboard(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("train", "--tensorboard", tmp_path / "runs").exit_code == 0
    assert [path.name.startswith("events.") for path in (tmp_path / "runs").iterdir()] == [True]


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
