"""Every form of every model, untrained, on one real Triton: its answers are those of the net in process."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.model.bundle import save, untrained
from serving.model.config import ModelConfig, TextForm
from serving.model.export import export
from serving.model.inprocess import InProcessScorer
from serving.model.versions import bundle_at, bundles, hold
from serving.requests import MODELS
from serving.scorer import TritonScorer
from streams.local.triton_server import TritonServer
from tests.parts import TRITON_READY_TIMEOUT_S, running
from tests.serving.rankers import FUSIONS, a_request, an_untrained, name_of
from tests.serving.test_scorers import PRODUCTS, QUERIES

pytestmark = pytest.mark.parts

TEXTS: tuple[TextForm, ...] = ("pieces", "transformer", "bilstm")
#: each form of a ranker, by row and by list; pictures and texts are read in another way every few versions, so that
#: few versions have every form of an encoder
CONFIGS = [
    ModelConfig(
        text=TEXTS[number // 3],
        image_size=64 + 32 * (number // 3),
        fusion=fusion,
        relative=by_list,
        list_attention=by_list,
        heads=("click", "relevance"),
    )
    for number, (fusion, by_list) in enumerate((fusion, by_list) for fusion in FUSIONS for by_list in (False, True))
]
VERSIONS = range(1, len(CONFIGS) + 1)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a version of each form."""
    folder = tmp_path_factory.mktemp("forms")
    torch.manual_seed(0)
    for number, config in enumerate(CONFIGS):
        if number == 0 or config.text != CONFIGS[number - 1].text:
            for model in ("product_encoder", "query_encoder"):
                save(untrained(model, config), folder / f"{model}.safetensors", config, {})
        facts = {"price_weight": "0.5", "click_rates": "[]", "metrics": json.dumps({})}
        save(an_untrained(config, number), folder / "ranker.safetensors", config, facts)
        export(folder, folder / "models")
    for model in MODELS:
        hold(folder / "models", model, {bundle_at(folder / "models", number).models[model] for number in VERSIONS})
    return folder / "models"


@pytest.fixture(scope="module")
def server(repository: Path, parts_dir: Path) -> Iterator[TritonServer]:
    """It has a process for each version of each model, and they start together."""
    with running(TritonServer(repository, MODELS, parts_dir / "forms"), 2 * TRITON_READY_TIMEOUT_S) as part:
        yield part


@pytest.fixture
async def there(server: TritonServer) -> AsyncIterator[TritonScorer]:
    scorer = TritonScorer(server.address, score_timeout_s=10)
    yield scorer
    await scorer.close()


def test_every_version_is_a_bundle_of_its_scope(repository: Path) -> None:
    assert bundles(repository) == list(VERSIONS)
    assert [bundle_at(repository, number).scope for number in VERSIONS] == [config.scope for config in CONFIGS]


@pytest.mark.parametrize("version", VERSIONS, ids=[name_of(config) for config in CONFIGS])
async def test_rankers(repository: Path, there: TritonScorer, version: int) -> None:
    here, request = InProcessScorer(repository), a_request(700, sets=9)
    want = await here.score(request, version, explain=True)
    got = await there.score(request, version, explain=True)
    assert want.contributions is not None
    assert got.contributions is not None
    np.testing.assert_allclose(got.logit, want.logit, atol=1e-4)
    np.testing.assert_allclose(got.contributions, want.contributions, atol=1e-4)
    np.testing.assert_allclose((await there.score(request, version)).logit, want.logit, atol=1e-4)


@pytest.mark.parametrize("text", TEXTS)
async def test_encoders(repository: Path, there: TritonScorer, text: TextForm) -> None:
    version = 1 + next(number for number, config in enumerate(CONFIGS) if config.text == text)
    here, models = InProcessScorer(repository), bundle_at(repository, version).models
    queries = [await scorer.encode_queries(QUERIES, models["query_encoder"]) for scorer in (here, there)]
    np.testing.assert_allclose(queries[1], queries[0], atol=1e-4)
    products = [await scorer.encode_products(PRODUCTS, models["product_encoder"]) for scorer in (here, there)]
    np.testing.assert_allclose(products[1].content, products[0].content, atol=1e-4)
    np.testing.assert_array_equal(products[1].mask, products[0].mask)


async def test_what_only_a_whole_list_can_tell_is_told_across_calls(
    repository: Path, there: TritonScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than one call takes: sets stay whole."""
    version = 1 + next(number for number, config in enumerate(CONFIGS) if config.scope == "list")
    request = a_request(300, sets=7)
    whole = await InProcessScorer(repository).score(request, version, explain=True)
    monkeypatch.setattr("serving.scorer.SCORED_ROWS", 80)
    parts = await there.score(request, version, explain=True)
    assert whole.contributions is not None
    assert parts.contributions is not None
    np.testing.assert_allclose(parts.logit, whole.logit, atol=1e-4)
    np.testing.assert_allclose(parts.contributions, whole.contributions, atol=1e-4)
