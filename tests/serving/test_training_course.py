"""The course of a training: seeds, checkpoints, an early end, towers that stay as they are, a device, TensorBoard."""

import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from feature_repo.views import DAY_MS, FAMILIARITY
from serving.datasets import shirts as garments
from serving.errors import ServingError
from serving.model.bundle import load
from serving.model.config import LossWeights, ModelConfig
from serving.model.dataset import Shop, drawn_shirts
from serving.model.export import export
from serving.model.ranker import Answers, Ranker
from serving.model.training.batches import Batch, inputs, learning
from serving.model.training.board import Board
from serving.model.training.checkpoint import FILE, Checkpoint, NoCheckpoint
from serving.model.training.config import BadConfig, TrainConfig
from serving.model.training.course import train
from serving.model.training.fitting import Course, Progress, Training, device_of, fit, new_nets
from serving.model.training.material import Lesson, of_log
from serving.requests import MODELS, PARTS

TOWERS = ("product_encoder", "query_encoder")


class Killed(Exception):
    """The process was killed."""


@pytest.fixture(scope="module")
def shop() -> Shop:
    """Forty lists of garments with titles, prices, sales and pictures."""
    return drawn_shirts(garments.products(3, 48), 3, 40, 30 * DAY_MS)


def config(folder: Path, model: ModelConfig | None = None) -> TrainConfig:
    return TrainConfig(folder, source="kafka", epochs=3, patience=0, device="cpu", model=model or ModelConfig())


def nobody(at: Progress) -> None:
    """Nobody follows the training."""


def killed_after(epoch: int) -> Callable[[Progress], None]:
    def listen(at: Progress) -> None:
        if at.ended is not None and at.ended.epoch == epoch:
            raise Killed

    return listen


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in MODELS}


@pytest.fixture(scope="module")
def whole(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a training without a break."""
    folder = tmp_path_factory.mktemp("whole")
    train(config(folder), nobody, shop)
    return folder


def test_the_same_seed_gives_the_same_bytes(shop: Shop, whole: Path, tmp_path: Path) -> None:
    train(config(tmp_path), nobody, shop)
    assert files(tmp_path) == files(whole)
    train(replace(config(tmp_path), seed=8), nobody, shop)
    assert all(one != other for one, other in zip(files(tmp_path).values(), files(whole).values(), strict=True))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_killed_training_goes_on_to_the_same_bytes(shop: Shop, whole: Path, tmp_path: Path, epoch: int) -> None:
    with pytest.raises(Killed):
        train(config(tmp_path), killed_after(epoch), shop)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    told: list[Progress] = []
    train(config(tmp_path), told.append, shop, Checkpoint.load(tmp_path))
    assert [at.ended.epoch for at in told if at.ended] == list(range(epoch + 1, 4))
    assert files(tmp_path) == files(whole)
    assert not (tmp_path / FILE).exists(), "the training is done"


def test_a_training_that_was_killed_in_an_epoch_repeats_it(shop: Shop, whole: Path, tmp_path: Path) -> None:
    def listen(at: Progress) -> None:
        if at.done == 3 and at.step is not None:
            raise Killed

    small = replace(config(tmp_path), batch=16)
    with pytest.raises(Killed):
        train(small, listen, shop)
    train(small, nobody, shop, Checkpoint.load(tmp_path))
    assert files(tmp_path) == files(whole)


def test_a_new_training_leaves_no_checkpoint_of_an_older_one(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(config(tmp_path), killed_after(1), shop)

    def at_once(at: Progress) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(config(tmp_path), at_once, shop)
    with pytest.raises(NoCheckpoint, match="nothing to go on with"):
        Checkpoint.load(tmp_path)


def test_a_checkpoint_goes_on_with_its_own_lists_only(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(config(tmp_path), killed_after(1), shop)
    other = drawn_shirts(garments.products(4, 48), 4, 40, 30 * DAY_MS)
    with pytest.raises(BadConfig, match="other lists than those of the checkpoint"):
        train(config(tmp_path), nobody, other, Checkpoint.load(tmp_path))


@pytest.mark.parametrize("data", [b"", b"what is this", b"\x08\0\0\0\0\0\0\0{}      "])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(ServingError, match="is no checkpoint"):
        Checkpoint.load(tmp_path)


# --- the best weights ----------------------------------------------------------------------------------------------


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`judged(0.1, 0.3, 0.2)`: what the epochs are worth."""

    def judge(*worth: float) -> None:
        left = iter(worth)
        monkeypatch.setattr(Training, "check", lambda self, checked: next(left))

    return judge


def test_the_best_weights_are_kept(shop: Shop, tmp_path: Path, judged: Callable[..., None]) -> None:
    judged(0.1, 0.3, 0.2)
    report = train(config(tmp_path / "three"), nobody, shop)
    assert (report.epochs, report.best_epoch) == (3, 2)
    judged(0.1, 0.3, 0.2)
    with pytest.raises(Killed):
        train(config(tmp_path / "two"), killed_after(2), shop)
    second = Checkpoint.load(tmp_path / "two").tensors
    encoder = load("query_encoder", tmp_path / "three" / "query_encoder.safetensors").state_dict()
    for name, tensor in encoder.items():
        torch.testing.assert_close(tensor, second[f"now/query_encoder/{name}"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("patience", "worth", "epochs"),
    [(1, (0.5, 0.4, 0.6), 2), (2, (0.5, 0.4, 0.6), 3), (2, (0.5, 0.5, 0.5, 0.9), 3), (0, (0.5, 0.1, 0.1, 0.1), 4)],
)
def test_patience_ends_a_training(
    shop: Shop, judged: Callable[..., None], patience: int, worth: tuple[float, ...], epochs: int
) -> None:
    judged(*worth)
    lesson = Lesson(shop, shop.lists[:8])
    chosen = TrainConfig(epochs=len(worth), patience=patience, device="cpu")
    course = fit(new_nets(ModelConfig()), [lesson], chosen, nobody, [lesson])
    assert course.last == epochs


def test_epochs_are_compared_by_lists_that_nothing_was_learned_from(shop: Shop) -> None:
    material = of_log(shop, tested=0.2)
    learned, held_out, tested = material.lessons[0].lists, material.checked[0].lists, material.tested["log"].lists
    assert (len(learned), len(held_out), len(tested)) == (29, 3, 8)
    assert [*learned, *held_out, *tested] == list(shop.lists), "in order of time, each once"


def test_a_log_with_few_lists_teaches_nothing(shop: Shop) -> None:
    with pytest.raises(ServingError, match=r"the log has 5 lists .* expected 20 or more"):
        of_log(replace(shop, lists=shop.lists[:5]), tested=0.2)


# --- towers that stay as they are ----------------------------------------------------------------------------------


def test_a_ranker_is_trained_on_towers_that_stay_as_they_are(shop: Shop, whole: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert export(whole, repository) == dict.fromkeys(MODELS, 1)
    gated = config(tmp_path / "weights", ModelConfig(fusion="gated"))
    train(replace(gated, only="ranker", towers=whole), nobody, shop)
    assert export(tmp_path / "weights", repository) == {**dict.fromkeys(TOWERS, 1), "ranker": 2}
    for name in TOWERS:
        assert files(tmp_path / "weights")[name] == files(whole)[name]


def test_towers_may_come_from_a_repository(shop: Shop, whole: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    export(whole, repository)
    found = []
    for towers in (whole, repository):
        folder = tmp_path / towers.name
        train(replace(config(folder), only="ranker", towers=towers), nobody, shop)
        found.append(files(folder))
    assert found[0] == found[1]


def test_a_ranker_alone_goes_on_to_the_same_bytes(shop: Shop, whole: Path, tmp_path: Path) -> None:
    alone = replace(config(tmp_path / "whole"), only="ranker", towers=whole)
    train(alone, nobody, shop)
    broken = replace(alone, weights=tmp_path / "broken")
    with pytest.raises(Killed):
        train(broken, killed_after(2), shop)
    train(broken, nobody, shop, Checkpoint.load(tmp_path / "broken"))
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_a_ranker_fits_its_towers(shop: Shop, whole: Path, tmp_path: Path) -> None:
    other = replace(config(tmp_path, ModelConfig(text="bilstm")), only="ranker", towers=whole)
    with pytest.raises(BadConfig, match=r"model\.text is 'bilstm', expected 'pieces' as of the product_encoder"):
        train(other, nobody, shop)
    with pytest.raises(BadConfig, match=r"train\.towers is '.*', expected a model repository or a folder with"):
        train(replace(config(tmp_path), only="ranker", towers=tmp_path), nobody, shop)
    with pytest.raises(BadConfig, match=r"train\.towers is set, expected train\.only = ranker"):
        train(replace(config(tmp_path), towers=whole), nobody, shop)


# --- forms and devices ---------------------------------------------------------------------------------------------


def test_all_losses_and_heads_are_learned_from(shop: Shop) -> None:
    model = ModelConfig(
        heads=("click", "relevance"), losses=LossWeights(1.0, 0.5, 0.5, 0.5), relative=True, list_attention=True
    )
    steps: list[Progress] = []
    chosen = TrainConfig(epochs=1, device="cpu", model=model)
    course = fit(new_nets(model), [Lesson(shop, shop.lists[:16])], chosen, steps.append)
    assert list(course.epochs[0].losses) == ["click", "relevance", "softmax", "lambdarank"]
    assert all(np.isfinite(value) and value > 0 for value in course.epochs[0].losses.values())


def test_a_stranger_has_met_nothing(shop: Shop) -> None:
    """Who is taken away in training takes along what they did with the products of the list."""
    bought = shop.products[shop.lists[0].items[2]].product_id
    lists = [replace(one, history=(("purchase", bought, None, 0),)) for one in shop.lists[:2]]
    lesson, nets = Lesson(shop, lists), new_nets(ModelConfig())
    batch = Batch(lesson, learning(nets, lesson), np.arange(2))
    known, stranger = (inputs(nets, batch, torch.device("cpu"), strangers=share) for share in (0.0, 1.0))
    assert known.numeric[:, FAMILIARITY].sum() > 0
    np.testing.assert_array_equal(known.numeric, shop.numbers(lists))
    assert not stranger.user.any()
    assert not stranger.numeric[:, FAMILIARITY].any()


def test_pictures_are_prepared_in_the_size_of_the_model(shop: Shop) -> None:
    model = ModelConfig(image_size=96)
    lesson = Lesson(shop, shop.lists[:4])
    fit(new_nets(model), [lesson], TrainConfig(epochs=1, device="cpu", model=model), nobody, [lesson])
    assert shop.prepared_at(96).image.shape[1:] == (96, 96, 3)


def test_the_processor_computes_in_float32(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no GPU is there, `auto` is `cpu`, and nothing is computed in fewer bits."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")
    seen: list[bool] = []
    answers = Ranker.answers

    def watched(self: Ranker, *inputs: torch.Tensor) -> Answers:
        found = answers(self, *inputs)
        seen.append(found.score.dtype is torch.float32 and not torch.is_autocast_enabled("cpu"))
        return found

    monkeypatch.setattr(Ranker, "answers", watched)
    lesson = Lesson(shop, shop.lists[:16])
    ended = []
    for device in ("auto", "cpu"):
        torch.manual_seed(1)
        nets = new_nets(ModelConfig())
        fit(nets, [lesson], TrainConfig(epochs=1, device=device), nobody)
        ended.append(nets.ranker.state_dict())
    assert seen
    assert all(seen)
    for name, tensor in ended[0].items():
        torch.testing.assert_close(tensor, ended[1][name], rtol=0, atol=0)


@pytest.mark.parametrize("fusion", ["sum", "concatenation", "attention", "gated"])
def test_every_fusion_learns_in_fewer_bits(shop: Shop, monkeypatch: pytest.MonkeyPatch, fusion: str) -> None:
    """What a GPU computes in bfloat16, here on the processor: no dtypes clash, losses are nearly the same."""
    model = ModelConfig(
        fusion=fusion,  # type: ignore[arg-type]
        relative=True,
        list_attention=True,
        heads=("click", "relevance"),
        losses=LossWeights(1.0, 1.0, 1.0, 1.0),
    )
    found = []
    for precision in (None, lambda self: torch.autocast("cpu", torch.bfloat16)):
        if precision is not None:
            monkeypatch.setattr(Training, "_precision", precision)
        torch.manual_seed(1)
        chosen = TrainConfig(epochs=1, device="cpu", learning_rate=1e-6, model=model)
        found.append(fit(new_nets(model), [Lesson(shop, shop.lists[:16])], chosen, nobody).epochs[0].losses)
    exact, rough = found
    assert list(rough.values()) == pytest.approx(list(exact.values()), rel=0.1)
    assert rough != exact


@pytest.mark.parametrize("name", ["quantum", "cuda:99"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(BadConfig, match=rf"train\.device is '{name}', expected auto, cpu or a device that is there"):
        device_of(name)


@pytest.mark.gpu
def test_a_gpu_learns_what_the_processor_learns(shop: Shop) -> None:
    """In bfloat16, so nearly the same; the nets come back to the processor."""
    ended = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        nets = new_nets(ModelConfig())
        lesson = Lesson(shop, shop.lists)
        ended.append(fit(nets, [lesson], TrainConfig(epochs=3, patience=0, device=device), nobody, [lesson]).epochs[-1])
        assert {p.device.type for net in nets.by_name.values() for p in net.parameters()} == {"cpu"}
    here, there = ended
    assert list(there.losses.values()) == pytest.approx(list(here.losses.values()), rel=0.1)


# --- TensorBoard ---------------------------------------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What was written, by name and step: TFRecord frames of length, checksum, event, checksum."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            data = data[16 + length :]
    return found


def test_the_course_is_written_for_tensorboard(shop: Shop, tmp_path: Path) -> None:
    lesson = Lesson(shop, shop.lists[:32])
    chosen = TrainConfig(epochs=2, device="cpu")
    told: list[Progress] = []
    with Board(tmp_path) as board:

        def listen(at: Progress) -> None:
            told.append(at)
            board(at)

        course = fit(new_nets(ModelConfig()), [lesson], chosen, listen, [lesson])
    written = scalars(tmp_path)
    losses = ("click", "softmax")
    assert set(written) == {
        *(f"{group}/{name}" for group in ("step", "epoch") for name in losses),
        "step/learning_rate",
        "epoch/ndcg10",
        *(f"fusion_weight/{part}" for part in PARTS),
    }
    steps = {at.done: at.step for at in told if at.step}
    assert sorted(steps) == [1, 2, 3, 4]
    assert written["step/click"] == {number: pytest.approx(step.losses["click"]) for number, step in steps.items()}
    assert written["step/learning_rate"] == {n: pytest.approx(step.learning_rate) for n, step in steps.items()}
    assert written["epoch/ndcg10"] == {epoch.epoch: pytest.approx(epoch.ndcg) for epoch in course.epochs}
    last = course.epochs[-1].fusion_weights
    assert {part: written[f"fusion_weight/{part}"][2] for part in PARTS} == pytest.approx(dict(last))


def test_without_the_package_that_writes_them_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ServingError, match=r"need tensorboardX: pip install 'freshrank\[train\]'"), Board(tmp_path):
        pass


def test_a_course_without_epochs_has_no_best() -> None:
    assert Course().ndcg(0) < 0
