"""Lists to learn from know what was known at their moment, and nothing more."""

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.events import Behavior, Product
from feature_repo.views import DAY_MS, FAMILIARITY, HOUR_MS, MODALITIES, NUMERIC_FIELDS
from serving.datasets import shirts as garments
from serving.datasets.online_retail import History
from serving.model.dataset import PAGE, WARM_UP_MS, RankedList, Shop, drawn_shirts, online_retail
from serving.model.lessons import films, shirt_attributes, shirt_pictures, sounds
from serving.requests import ProductContent

#: titles need 100 neighbours for their words to become queries
NAMES = [f"{number:03}" for number in range(120)]
MOMENT = WARM_UP_MS + 10 * HOUR_MS
PRICE, SALES, TOTAL = (NUMERIC_FIELDS.index(name) for name in ("price", "sales_7d", "sales_total"))


def purchase(number: int, name: str, time_ms: int, user: str | None, invoice: str, quantity: int = 1) -> Behavior:
    return Behavior(
        type="purchase",
        event_id=str(number),
        product_id=name,
        event_time=time_ms,
        user_id=user,
        session_id=invoice,
        quantity=quantity,
    )


@pytest.fixture
def history() -> History:
    """Ann, who bought 001 before, buys 002 after the warm-up and 003 within a day."""
    products = [Product(product_id=name, event_time=0, title="Red Mug", price=100) for name in NAMES]
    products[50] = Product(product_id=NAMES[50], event_time=MOMENT + 1, title="Red Mug", price=100)
    behavior = [
        purchase(1, "001", HOUR_MS, "ann", "i1", quantity=4),
        purchase(2, "002", MOMENT - HOUR_MS, "bob", "i2", quantity=7),
        purchase(3, "002", MOMENT, "ann", "i3", quantity=1000),
        purchase(4, "003", MOMENT + DAY_MS - 1, "ann", "i4", quantity=1000),
        purchase(5, "004", MOMENT + DAY_MS, "ann", "i5"),
        purchase(6, "005", MOMENT + 1, "bob", "i6"),
    ]
    return History(
        products=tuple(sorted(products, key=lambda product: product.event_time)),
        patches=(
            Product(product_id="002", event_time=MOMENT - 1, price=90),
            Product(product_id="002", event_time=MOMENT + 1, price=80),
        ),
        behavior=tuple(sorted(behavior, key=lambda event: event.event_time)),
        start_ms=0,
        split_ms=MOMENT + DAY_MS,
        end_ms=MOMENT + 3 * DAY_MS,
    )


@pytest.fixture
def asked(history: History) -> RankedList:
    """The list of the first visit after the warm-up."""
    shop = online_retail(history, seed=1, per_day=50, report=lambda done, total: None)
    (found,) = (one for one in shop.lists if one.time_ms == MOMENT)
    names = [product.product_id for product in shop.products]
    assert [names[item] for item in found.items[:3]] == ["000", "001", "002"]
    return found


def test_features_are_those_before_the_moment(asked: RankedList) -> None:
    assert asked.numeric[1, [PRICE, SALES, TOTAL]].tolist() == [100, 0, 4]
    assert asked.numeric[2, [PRICE, SALES, TOTAL]].tolist() == [90, 7, 7]
    assert asked.numeric[3, [PRICE, SALES, TOTAL]].tolist() == [100, 0, 0]


def test_wanted_is_what_the_customer_buys_within_a_day(asked: RankedList) -> None:
    assert np.flatnonzero(asked.bought).tolist() == [2, 3]


def test_the_history_ends_before_the_moment(asked: RankedList) -> None:
    assert [(event[0], event[1]) for event in asked.history] == [("purchase", "001")]


def test_numbers_say_what_each_shopper_did_with_a_product(history: History, asked: RankedList) -> None:
    shop = Shop(tuple(ProductContent(name) for name in NAMES), (), click_rates=(0.5,))
    other = replace(asked, history=(("impression", "002", 0, 1), ("purchase", "nowhere", None, 2)))
    numbers = shop.numbers([asked, other, replace(asked, history=())])
    known = numbers[:, FAMILIARITY].reshape(3, 100)
    assert np.argwhere(known).tolist() == [[0, 1], [1, 2]]
    assert (known[0, 1], known[1, 2]) == (1.0, -0.5)
    assert not asked.numeric[:, FAMILIARITY].any(), "the list itself stays as it was made"
    np.testing.assert_array_equal(numbers[:100, :FAMILIARITY], asked.numeric[:, :FAMILIARITY])


def test_a_product_that_came_later_was_not_shown(asked: RankedList) -> None:
    assert 119 not in asked.items  # the latest product is the last of the catalogue
    assert len(asked.items) == 100


def test_lists_are_the_same_without_those_before_them(history: History) -> None:
    whole, later = (
        online_retail(history, seed=1, per_day=50, report=lambda done, total: None, since_ms=since).lists
        for since in (0, MOMENT + 1)
    )
    kept = [one for one in whole if one.time_ms > MOMENT]
    assert 0 < len(later) == len(kept) < len(whole)
    for one, other in zip(later, kept, strict=True):
        assert (one.query, one.time_ms, one.history) == (other.query, other.time_ms, other.history)
        for name in ("items", "numeric", "retrieval", "bought"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_shirts_are_drawn_from_their_seed() -> None:
    shirts = garments.products(3, 60)
    one, two = (drawn_shirts(shirts, 5, 8, 10 * DAY_MS) for _ in range(2))
    for first, second in zip(one.lists, two.lists, strict=True):
        assert first.query == second.query
        np.testing.assert_array_equal(first.numeric, second.numeric)
        np.testing.assert_array_equal(first.bought, second.bought)


LESSONS = {
    "image": lambda: shirt_pictures(garments.products(3, 60), 5, 2 * PAGE),
    "attributes": lambda: shirt_attributes(garments.products(3, 60), 5, 2 * PAGE),
    "video": lambda: films(5, 20, 2 * PAGE),
    "audio": lambda: sounds(5, 20, 2 * PAGE),
}


@pytest.mark.parametrize("modality", LESSONS)
def test_a_modality_is_learned_without_words_and_numbers(modality: str) -> None:
    shop = LESSONS[modality]()
    assert shop.prepared.mask.tolist() == [[float(name == modality) for name in MODALITIES]] * len(shop.products)
    assert len({one.query for one in shop.lists}) > 2
    for one in shop.lists:
        assert 0 < one.bought.mean() < 1
        assert (one.numeric[:, PRICE] == -1).all()
        assert not one.retrieval.any()


@pytest.mark.parametrize("modality", LESSONS)
def test_lessons_are_drawn_from_their_seed(modality: str) -> None:
    one, two = LESSONS[modality](), LESSONS[modality]()
    assert one.products == two.products
    assert [each.query for each in one.lists] == [each.query for each in two.lists]
