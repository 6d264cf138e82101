"""What the committed weights must know: the floors are beaten, a colour is seen, sales and price move a list."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from feature_repo.views import NUMERIC_FIELDS, input_hash
from serving.datasets.drawing import draw
from serving.datasets.shirts import COLOUR_NAMES
from serving.model.bundle import default_bundle
from serving.model.inprocess import InProcessScorer
from serving.requests import CONTRIBUTIONS, ProductContent, ScoreRequest, empty_request

COLOURS = ("white", "black", "red", "blue", "green")
PRICE, SALES = NUMERIC_FIELDS.index("price"), NUMERIC_FIELDS.index("sales_7d")
SALES_FIELDS = [NUMERIC_FIELDS.index(name) for name in ("sales_7d", "orders_7d", "sales_total", "orders_total")]


@pytest.fixture
def scorer() -> InProcessScorer:
    return InProcessScorer()


async def request_of(scorer: InProcessScorer, query: str, products: list[ProductContent]) -> ScoreRequest:
    """Products of the same price and the same steady sales, so that only their content differs."""
    vectors = await scorer.encode_products(products)
    request = empty_request(queries=1, rows=len(products))
    request.numeric[:, PRICE] = 7900
    request.numeric[:, SALES_FIELDS] = 10
    return replace(request, query=await scorer.encode_queries([query]), content=vectors.content, mask=vectors.mask)


def test_the_bundle_fits_the_code() -> None:
    bundle = default_bundle()
    assert bundle.input_hash == input_hash()
    assert set(bundle.models) == {"product_encoder", "query_encoder", "ranker"}
    assert bundle.price_weight > 0


def test_the_model_beats_popularity_on_the_week_after() -> None:
    metrics = default_bundle().metrics
    assert metrics["ndcg10"] > 1.2 * metrics["ndcg10_popularity"]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("language", ["chinese", "english"])
async def test_a_colour_that_no_title_names_is_found_by_the_picture(
    scorer: InProcessScorer, colour: str, language: str
) -> None:
    shirts = [
        ProductContent(f"{shown}-{n}", title="纯棉T恤 男款 圆领", image=draw("t-shirt", shown, Random(n)))
        for shown in COLOURS
        for n in range(5)
    ]
    query = f"{COLOUR_NAMES[colour]}T恤" if language == "chinese" else f"{colour} t-shirt"
    scores = await scorer.score(await request_of(scorer, query, shirts))
    best = {shirts[n].product_id.split("-")[0] for n in np.argsort(-scores.logit)[:5]}
    assert best == {colour}


async def test_only_the_contribution_of_the_image_differs_between_pictures(scorer: InProcessScorer) -> None:
    shirts = [ProductContent(c, title="T恤", image=draw("t-shirt", c, Random(1))) for c in COLOURS]
    scores = await scorer.score(await request_of(scorer, "白色T恤", shirts), explain=True)
    assert scores.contributions is not None
    spread = np.ptp(scores.contributions, axis=0)
    image = CONTRIBUTIONS.index("image")
    assert spread[image] > 1
    assert np.delete(spread, image).max() < 1e-5


async def test_a_shirt_that_sells_rises_and_a_dearer_one_falls(scorer: InProcessScorer) -> None:
    shirts = [ProductContent(str(n), title="白色T恤", image=draw("t-shirt", "white", Random(1))) for n in range(3)]
    request = await request_of(scorer, "白色T恤", shirts)
    request.numeric[1, SALES_FIELDS] = 100
    request.numeric[2, PRICE] = 15_900
    same, selling, dear = (await scorer.score(request)).logit
    assert dear < same < selling
