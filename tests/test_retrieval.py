"""Retrieval finds English words and Chinese characters, and always in the same order."""

import pytest

from serving.datasets import online_retail
from serving.retrieval import TextIndex, queries, tokens

TITLES = [
    ("b", "Red Retrospot Mug"),
    ("a", "Red Retrospot Mug"),
    ("c", "Blue Mugs For The Garden"),
    ("d", "纯棉白色T恤 男款 圆领"),
    ("e", "纯棉黑色衬衫"),
]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Red Mugs", ["red", "mug"]),
        ("GLASS  bus", ["glass", "bus"]),
        ("Children's T-Light", ["children's", "t-light"]),
        ("白色T恤", ["白色", "t", "恤"]),
        ("纯棉衬衫", ["纯棉", "棉衬", "衬衫"]),
        ("--- !", []),
    ],
)
def test_tokens(text: str, terms: list[str]) -> None:
    assert tokens(text) == terms


def test_search_finds_words_and_breaks_ties_by_id() -> None:
    found = TextIndex(TITLES).search("red mug")
    assert [product_id for product_id, _ in found] == ["a", "b", "c"]
    assert found[0][1] == found[1][1] > found[2][1] > 0


def test_search_finds_chinese() -> None:
    assert [product_id for product_id, _ in TextIndex(TITLES).search("白色T恤")] == ["d"]
    assert {product_id for product_id, _ in TextIndex(TITLES).search("纯棉")} == {"d", "e"}


def test_order_of_titles_does_not_matter() -> None:
    assert TextIndex(TITLES).search("mug") == TextIndex(TITLES[::-1]).search("mug")


def test_candidates_are_filled_up_in_order_of_id() -> None:
    found = TextIndex(TITLES).candidates("blue", k=3)
    assert [product_id for product_id, _ in found] == ["c", "a", "b"]
    assert [score for _, score in found][1:] == [0.0, 0.0]


def test_nothing_matches() -> None:
    assert TextIndex(TITLES).search("sofa") == []
    assert TextIndex([]).candidates("sofa") == []


def test_the_slice_has_enough_real_queries() -> None:
    history = online_retail.load()
    index = TextIndex([(product.product_id, str(product.title)) for product in history.products])
    asked = queries(history)
    assert len(asked) >= 200
    assert all(len(index.search(query)) == 100 for query in asked[:200])
    assert asked == queries(history)
