"""Shirts are a function of the seed, their pictures tell the colour, and the story has its three turns."""

from collections import Counter
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from feature_repo.events import Behavior, Product
from feature_repo.views import DAY_MS
from serving.datasets import shirts
from serving.datasets.drawing import COLOURS, SIDE
from serving.datasets.shirts import COLOUR_NAMES, GARMENT_NAMES

NOW = 1_322_265_600_000


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert shirts.products(7, 20, NOW) == shirts.products(7, 20, NOW)
    assert shirts.products(7, 20, NOW) != shirts.products(8, 20, NOW)
    assert shirts.products(7, 30, NOW)[:20] == shirts.products(7, 20, NOW)


def test_products_are_complete() -> None:
    garments = shirts.products(1, 100, NOW)
    assert len({shirt.product.product_id for shirt in garments}) == 100
    for shirt in garments:
        product = shirt.product
        assert GARMENT_NAMES[shirt.garment] in str(product.title)
        assert isinstance(product.price, int)
        assert product.price > 1000
        assert isinstance(product.stock, int)
        assert product.stock > 0
        assert (product.currency, product.event_time) == ("CNY", NOW)
        assert isinstance(product.image, bytes)
        assert len(product.image) < 8192


def test_some_titles_leave_the_colour_to_the_picture() -> None:
    named = Counter(COLOUR_NAMES[shirt.colour] in str(shirt.product.title) for shirt in shirts.products(1, 200))
    assert 20 < named[False] < 80


def test_no_title_names_a_wrong_colour() -> None:
    for shirt in shirts.products(1, 200):
        others = [name for colour, name in COLOUR_NAMES.items() if colour != shirt.colour]
        assert not any(name in str(shirt.product.title) for name in others)


def test_the_picture_tells_the_colour() -> None:
    for shirt in shirts.products(3, 100):
        assert isinstance(shirt.product.image, bytes)
        pixels = np.asarray(Image.open(BytesIO(shirt.product.image)), dtype=np.int64)
        assert pixels.shape == (SIDE, SIDE, 3)
        cloth = np.abs(pixels - COLOURS[shirt.colour]).sum(axis=2) < 60
        assert cloth.mean() > 0.08


def test_pairs_are_relevant_when_colour_and_garment_are_as_asked() -> None:
    judged = shirts.pairs(5, 400)
    assert 100 < sum(pair.relevant for pair in judged) < 220
    for query, shirt, relevant in judged:
        chinese = COLOUR_NAMES[shirt.colour] + GARMENT_NAMES[shirt.garment]
        assert relevant == (query.startswith(chinese) or query == f"{shirt.colour} {shirt.garment}")
    assert any(pair.query == shirts.QUERY for pair in judged)


def test_sales_of_the_week_before() -> None:
    garments = shirts.products(1, 50, NOW)
    bought = shirts.sales(garments, NOW, 2)
    counts = Counter(purchase.product_id for purchase in bought)
    assert counts == {shirt.product.product_id: shirt.weekly_sales for shirt in garments}
    assert all(NOW - 7 * DAY_MS <= purchase.event_time < NOW for purchase in bought)
    assert all(a.event_time <= b.event_time for a, b in pairwise(bought))
    assert len({purchase.event_id for purchase in bought}) == len(bought)


def test_the_story() -> None:
    garments = shirts.products(1, 100, NOW)
    told = shirts.story(garments, NOW, NOW + DAY_MS, 3)
    assert len({told.bought, told.discounted, told.sold_out}) == 3
    assert all(NOW <= event.event_time < NOW + DAY_MS for event in told.events)
    assert all(a.event_time <= b.event_time for a, b in pairwise(told.events))
    purchases = [event for event in told.events if isinstance(event, Behavior)]
    assert {event.product_id for event in purchases} == {told.bought}
    assert len(purchases) == 60
    patches = {event.product_id: event for event in told.events if isinstance(event, Product)}
    before = {shirt.product.product_id: shirt.product for shirt in garments}[told.discounted].price
    assert isinstance(before, int)
    assert patches[told.discounted].price == before * 6 // 10
    assert patches[told.sold_out].stock == 0


def test_a_story_needs_its_heroes() -> None:
    with pytest.raises(ValueError, match="3 white T-shirts, there are 0"):
        shirts.story([], NOW, NOW + DAY_MS, 3)
