"""One contract for every scorer: the nets in process and the same nets on a real Triton."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from feature_repo.views import EMBEDDING_DIM, MODALITIES, SLOTS
from serving.datasets.clips import video_bytes, wav_bytes
from serving.errors import BadMedia, ScorerUnavailable
from serving.model.bundle import save, untrained, weights_file
from serving.model.config import ModelConfig
from serving.model.export import copy_repository
from serving.model.inprocess import InProcessScorer
from serving.requests import CONTRIBUTIONS, ProductContent, Scorer, empty_request
from serving.scorer import SCORED_ROWS, TritonScorer
from streams.local.triton_server import TritonServer
from tests.parts import TRITON_READY_TIMEOUT_S, running
from tests.serving.rankers import a_request, some_rows, with_rubbish
from tests.serving.test_preprocess import picture

ENCODERS = ("product_encoder", "query_encoder")
FILM = video_bytes(np.random.default_rng(1).integers(0, 256, (6, 32, 48, 3), np.uint8), fps=3)
SOUND = wav_bytes(np.sin(np.arange(8000) / 5).astype(np.float32), rate=8000)
PRODUCTS = [
    ProductContent("a", title="纯棉白色T恤", category=("服饰", "上装"), image=picture("white")),
    ProductContent("b", title="Red Retrospot Mug", image=picture("red", form="JPEG")),
    ProductContent("c", image=picture("blue"), video=FILM),
    ProductContent("d"),
    ProductContent("e", brand="Acme", attributes={"尺码": 42, "waterproof": True}, audio=SOUND),
    ProductContent("f", video=FILM, audio=SOUND),
]
QUERIES = ["白色T恤", "red mug", ""]


@pytest.fixture(params=["in_process", *(pytest.param(way, marks=pytest.mark.parts) for way in ("triton", "shared"))])
async def scorer(request: pytest.FixtureRequest) -> AsyncIterator[Scorer]:
    made: Scorer = InProcessScorer()
    if request.param != "in_process":
        address = request.getfixturevalue("triton").address
        made = TritonScorer(address, score_timeout_s=10, shared_memory=request.param == "shared")
    yield made
    await made.close()


async def test_it_is_ready(scorer: Scorer) -> None:
    assert await scorer.ready()


@pytest.mark.parametrize("rows", [1, 2, 100, 3000, 45_000])
async def test_contributions_sum_to_the_logit(scorer: Scorer, rows: int) -> None:
    scores = await scorer.score(a_request(rows), explain=True)
    assert scores.logit.shape == (rows,)
    assert scores.contributions is not None
    assert scores.contributions.shape == (rows, len(CONTRIBUTIONS))
    assert scores.logit.dtype == scores.contributions.dtype == np.float32
    np.testing.assert_allclose(scores.contributions.sum(1), scores.logit, atol=1e-5)


async def test_contributions_are_there_only_if_asked_for(scorer: Scorer) -> None:
    plain, explained = await scorer.score(a_request(30)), await scorer.score(a_request(30), explain=True)
    assert plain.contributions is None
    np.testing.assert_allclose(plain.logit, explained.logit, atol=1e-5)


async def test_no_rows_no_scores(scorer: Scorer) -> None:
    scores = await scorer.score(empty_request(queries=0, rows=0), explain=True)
    assert scores.logit.shape == (0,)
    assert scores.contributions is not None
    assert scores.contributions.shape == (0, len(CONTRIBUTIONS))


async def test_a_row_depends_on_no_other_row(scorer: Scorer) -> None:
    request = a_request(200)
    whole = await scorer.score(request)
    rows = np.array([3, 77, 78, 199])
    alone = await scorer.score(some_rows(request, rows))
    np.testing.assert_allclose(alone.logit, whole.logit[rows], atol=1e-5)


async def test_a_request_of_any_size_is_answered(scorer: Scorer) -> None:
    request = a_request(45_000, sets=400)
    whole = await scorer.score(request)
    rows = np.array([0, 19_999, 20_000, 44_999])
    few = await scorer.score(some_rows(request, rows))
    np.testing.assert_allclose(few.logit, whole.logit[rows], atol=1e-4)


async def test_what_is_masked_has_no_part(scorer: Scorer) -> None:
    request = a_request(50)
    scores = await scorer.score(request, explain=True)
    assert scores.contributions is not None
    parts = scores.contributions[:, : len(MODALITIES)]
    assert not parts[request.mask == 0].any()
    other = with_rubbish(request)
    np.testing.assert_array_equal((await scorer.score(other)).logit, scores.logit)


async def test_an_unknown_product_gets_a_score(scorer: Scorer) -> None:
    assert np.isfinite((await scorer.score(empty_request(queries=1, rows=3))).logit).all()


async def test_products_are_unit_vectors_where_the_mask_is_one(scorer: Scorer) -> None:
    vectors = await scorer.encode_products(PRODUCTS)
    assert vectors.content.shape == (len(PRODUCTS), len(SLOTS), EMBEDDING_DIM)
    assert vectors.mask.tolist() == [
        [1, 1, 0, 0, 1],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 1, 1],
        [0, 0, 1, 1, 0],
    ]
    np.testing.assert_allclose(np.linalg.norm(vectors.content[:, : len(MODALITIES)], axis=2), vectors.mask, atol=1e-5)


async def test_encoding_a_product_alone_gives_the_same_vector(scorer: Scorer) -> None:
    """With and without each medium in the call."""
    together = await scorer.encode_products(PRODUCTS)
    for row, product in enumerate(PRODUCTS):
        alone = await scorer.encode_products([product])
        np.testing.assert_allclose(alone.content[0], together.content[row], atol=1e-5)
        np.testing.assert_array_equal(alone.mask[0], together.mask[row])


async def test_the_order_of_products_makes_no_difference(scorer: Scorer) -> None:
    there, back = await scorer.encode_products(PRODUCTS), await scorer.encode_products(PRODUCTS[::-1])
    np.testing.assert_allclose(back.content[::-1], there.content, atol=1e-5)


async def test_more_products_than_one_call_takes(scorer: Scorer) -> None:
    vectors = await scorer.encode_products([ProductContent("d")] * 600 + PRODUCTS[:1])
    assert vectors.content.shape[0] == 601
    assert not vectors.content[:600].any()
    assert vectors.content[600].any()


async def test_nothing_to_encode(scorer: Scorer) -> None:
    assert (await scorer.encode_products([])).content.shape == (0, len(SLOTS), EMBEDDING_DIM)
    assert (await scorer.encode_queries([])).shape == (0, EMBEDDING_DIM)


async def test_a_query_without_words_is_zeros(scorer: Scorer) -> None:
    vectors = await scorer.encode_queries(QUERIES)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0], atol=1e-5)


async def test_a_bad_medium_names_its_product(scorer: Scorer) -> None:
    for bad in (
        ProductContent("bad", image=b"?"),
        ProductContent("bad", video=b"?"),
        ProductContent("bad", audio=b"?"),
    ):
        with pytest.raises(BadMedia) as caught:
            await scorer.encode_products([*PRODUCTS, bad])
        assert caught.value.product_id == "bad"


async def test_a_version_is_pinned(scorer: Scorer) -> None:
    request = a_request(10)
    pinned, newest = await scorer.score(request, version=1), await scorer.score(request)
    np.testing.assert_array_equal(pinned.logit, newest.logit)
    with pytest.raises(ScorerUnavailable, match="ranker 99"):
        await scorer.score(request, version=99)


async def test_it_works_again_after_close(scorer: Scorer) -> None:
    await scorer.close()
    assert await scorer.ready()


@pytest.mark.parts
async def test_triton_gives_what_the_nets_give_in_process(triton: TritonServer) -> None:
    here, there = InProcessScorer(), TritonScorer(triton.address, score_timeout_s=10)
    request = a_request(1000)
    want, got = await here.score(request, explain=True), await there.score(request, explain=True)
    assert want.contributions is not None
    assert got.contributions is not None
    np.testing.assert_allclose(got.logit, want.logit, atol=1e-4)
    np.testing.assert_allclose(got.contributions, want.contributions, atol=1e-4)
    content = [await scorer.encode_products(PRODUCTS) for scorer in (here, there)]
    np.testing.assert_allclose(content[0].content, content[1].content, atol=1e-4)
    queries = [await scorer.encode_queries(QUERIES) for scorer in (here, there)]
    np.testing.assert_allclose(queries[0], queries[1], atol=1e-4)
    await there.close()


@pytest.mark.parts
async def test_triton_serves_encoders_of_any_form(tmp_path: Path, parts_dir: Path) -> None:
    """Texts read by a Transformer or a BiLSTM, pictures of another size: each version has its own, and says so."""
    repository = tmp_path / "models"
    copy_repository(repository)
    forms = {2: ModelConfig(text="transformer", image_size=96), 3: ModelConfig(text="bilstm", image_size=224)}
    for version, config in forms.items():
        for model in ENCODERS:
            shutil.copytree(repository / model / "1", repository / model / str(version))
            save(untrained(model, config), weights_file(repository, model, version), config, {})
    with running(TritonServer(repository, ENCODERS, parts_dir / "forms"), TRITON_READY_TIMEOUT_S) as server:
        here, there = InProcessScorer(repository), TritonScorer(server.address)
        for version in forms:
            want, got = [await scorer.encode_products(PRODUCTS, version) for scorer in (here, there)]
            np.testing.assert_allclose(got.content, want.content, atol=1e-4)
            queries = [await scorer.encode_queries(QUERIES, version) for scorer in (here, there)]
            np.testing.assert_allclose(queries[0], queries[1], atol=1e-4)
        newest = await there.encode_products(PRODUCTS)
        np.testing.assert_array_equal(newest.content, got.content)
        await there.close()


async def test_without_a_server_it_says_so_at_once() -> None:
    scorer = TritonScorer("127.0.0.1:1", score_timeout_s=2)
    assert not await scorer.ready()
    for rows in (1, 3 * SCORED_ROWS):
        with pytest.raises(ScorerUnavailable, match=r"ranker newest on triton at 127\.0\.0\.1:1"):
            await scorer.score(a_request(rows))
    await scorer.close()
