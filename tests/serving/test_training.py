"""From events to weights to a new version in a repository, in small."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from feature_repo.views import EMBEDDING_DIM, NUMERIC_FIELDS, SLOTS, USER_DIM, input_hash
from serving.errors import BundleMismatch, ServingError
from serving.model.bundle import REPOSITORY, bundle_of, load, read_header, weights_file
from serving.model.evaluate import MASKS, mean_ndcg
from serving.model.export import adopt, copy_repository, export
from serving.model.inprocess import InProcessScorer
from serving.model.training.config import TrainConfig
from serving.model.training.course import train
from serving.model.training.fitting import Progress
from serving.model.training.report import TrainReport
from serving.preprocess import ATTRIBUTE_NUMBERS
from serving.requests import CONTRIBUTIONS, MODELS
from serving.scorer import TritonScorer
from streams.local.triton_server import TritonServer
from tests.parts import TRITON_READY_TIMEOUT_S, running
from tests.serving.rankers import a_request


def small(weights: Path, data: Path | None = None) -> TrainConfig:
    """Some seconds of training."""
    return TrainConfig(
        weights,
        data,
        epochs=1,
        device="cpu",
        lists_per_day=2,
        shirts=60,
        shirt_lists=16,
        picture_lists=16,
        media=20,
        media_lists=8,
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def report(weights: Path, told: list[Progress]) -> TrainReport:
    """What training in small reports."""
    return train(small(weights), told.append)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    copy_repository(tmp_path / "models")
    return tmp_path / "models"


def test_progress_reaches_its_total(report: TrainReport, told: list[Progress]) -> None:
    assert report.trained_lists > 0
    for stage in ("lists", "fit"):
        steps = [progress for progress in told if progress.stage == stage]
        assert [progress.done for progress in steps] == sorted(progress.done for progress in steps)
        assert steps[-1].done == steps[-1].total


def test_the_report_has_floors_model_and_ablation(report: TrainReport) -> None:
    names = [name for name, _ in report.rows()]
    assert names == ["popularity (sales_7d)", "text retrieval", "model", *(f"model without {part}" for part in MASKS)]
    assert all(0 <= value <= 1 for _, values in report.rows() for value in values)
    assert json.loads(report.to_json())["online_retail"]["popularity"] == report.shops[0].popularity


def test_the_same_seed_gives_the_same_weights(report: TrainReport, weights: Path, tmp_path: Path) -> None:
    again = train(small(tmp_path), lambda progress: None)
    assert again.rows() == report.rows()
    for model in MODELS:
        one, two = (load_file(folder / f"{model}.safetensors") for folder in (weights, tmp_path))
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_a_history_that_is_too_short_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "short.csv"
    data.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
    )
    with pytest.raises(ServingError, match="too short"):
        train(small(tmp_path, data), lambda progress: None)


def test_ndcg_of_two_lists() -> None:
    scores = np.array([3, 2, 1, 1, 2, 3], np.float32)
    bought = np.array([1, 0, 0, 1, 0, 0], np.float32)
    second = 1 / np.log2(4)  # found at the third place of three
    assert mean_ndcg(scores, bought, np.array([0, 0, 0, 1, 1, 1], np.int32)) == pytest.approx((1 + second) / 2)


def test_numbers_that_no_list_varied_are_named_as_silent(report: TrainReport) -> None:
    assert {"views_24h", "clicks_24h", "clicks_24h_rate"} <= set(report.silent_features)
    assert not {"price", "sales_7d", "retrieval"} & set(report.silent_features)


def test_a_score_says_how_probable_a_click_is(report: TrainReport, weights: Path) -> None:
    """Held-out lists were used: the scale is not the one that training starts from."""
    saved = load_file(weights / "ranker.safetensors")
    assert saved["heads.scale"] > 0
    assert saved["heads.scale"] != 1
    assert saved["heads.shift"] != 0


@pytest.mark.usefixtures("report")
def test_an_export_is_a_new_version_beside_the_old(weights: Path, repository: Path) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    assert export(weights, repository) == dict.fromkeys(MODELS, 2)
    for path, data in before.items():
        assert path.read_bytes() == data
    assert sorted(path.name for path in repository.iterdir()) == sorted(MODELS)
    assert bundle_of(repository).models == dict.fromkeys(MODELS, 2)
    assert bundle_of(repository).version == 2


@pytest.mark.usefixtures("report")
def test_an_export_makes_a_repository_that_is_not_there(weights: Path, tmp_path: Path) -> None:
    assert export(weights, tmp_path / "new") == dict.fromkeys(MODELS, 1)
    assert (tmp_path / "new" / "ranker" / "config.pbtxt").is_file()


def test_the_tracked_repository_is_not_exported_to(weights: Path) -> None:
    with pytest.raises(ServingError, match="tracked"):
        export(weights, REPOSITORY)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="no weights of product_encoder"):
        export(tmp_path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.usefixtures("report")
def test_adopted_weights_replace_the_first_version(weights: Path, repository: Path) -> None:
    adopt(weights, repository)
    assert weights_file(repository, "ranker", 1).read_bytes() == (weights / "ranker.safetensors").read_bytes()


def test_weights_for_other_inputs_are_refused(tmp_path: Path) -> None:
    committed = weights_file(REPOSITORY, "ranker")
    other = tmp_path / "weights.safetensors"
    save_file(load_file(committed), other, {**read_header(committed), "input_hash": "0123456789abcdef"})
    with pytest.raises(BundleMismatch, match=f"0123456789abcdef, this code has {input_hash()}"):
        load("ranker", other)


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(BundleMismatch, match="does not hold the weights of ranker"):
        load("ranker", weights_file(REPOSITORY, "query_encoder"))


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"what is this")
    with pytest.raises(ServingError, match="cannot read weights"):
        read_header(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("model", "name", "dims"),
    [
        ("product_encoder", "attribute_numbers", f"-1, {ATTRIBUTE_NUMBERS}"),
        ("product_encoder", "content", f"-1, {len(SLOTS)}, {EMBEDDING_DIM}"),
        ("query_encoder", "query", f"-1, {EMBEDDING_DIM}"),
        ("ranker", "user", f"-1, {USER_DIM}"),
        ("ranker", "content", f"-1, {len(SLOTS)}, {EMBEDDING_DIM}"),
        ("ranker", "numeric", f"-1, {len(NUMERIC_FIELDS)}"),
        ("ranker", "contributions", f"-1, {len(CONTRIBUTIONS)}"),
    ],
)
def test_the_server_knows_the_shapes_of_the_views(model: str, name: str, dims: str) -> None:
    config = (REPOSITORY / model / "config.pbtxt").read_text()
    (line,) = (line for line in config.splitlines() if f'name: "{name}" ' in line)
    assert f"dims: [ {dims} ]" in line


@pytest.mark.parts
@pytest.mark.usefixtures("report")
async def test_triton_serves_a_new_version_beside_the_old(weights: Path, repository: Path, parts_dir: Path) -> None:
    request = a_request(20)
    with running(TritonServer(repository, MODELS, parts_dir / "versions"), TRITON_READY_TIMEOUT_S) as server:
        scorer = TritonScorer(server.address, score_timeout_s=10)
        export(weights, repository)
        for model in MODELS:
            server.load(model)
        here = InProcessScorer(repository)
        for version in (1, 2):
            want, got = await here.score(request, version), await scorer.score(request, version)
            np.testing.assert_allclose(got.logit, want.logit, atol=1e-4)
        np.testing.assert_array_equal((await scorer.score(request)).logit, (await scorer.score(request, 2)).logit)
        await scorer.close()
