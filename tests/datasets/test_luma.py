"""Luma's items as products, lists that ask for what they have, and a split that keeps variants together."""

from pathlib import Path

import pytest

from serving.datasets import luma
from serving.datasets.luma import COLOUR_WORDS, Item, Wish
from serving.errors import ServingError
from tests.datasets.shelves import luma_row, write_luma

COLOURS = ("Black", "Red", "Purple", "")
GARMENTS = ("Men/Tops/Jackets", "Women/Bottoms/Shorts", "Gear|Bags", "Men/Tops/Tanks")


def rows() -> list[dict[str, str]]:
    """Twelve parents in four colours each; prices and garments go by parent."""
    return [
        luma_row(f"P{parent}-{colour}", f"P{parent}", colour, GARMENTS[parent % 4], f"{20 + 5 * parent}.5")
        for parent in range(12)
        for colour in COLOURS
    ]


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    return luma.load(write_luma(tmp_path, rows()))


def test_items_are_complete_products(items: tuple[Item, ...]) -> None:
    assert len(items) == 48
    item = items[1]
    assert (item.parent, item.colour, item.garment, item.cents) == ("P0", "Red", "Jackets", 2050)
    product = item.product
    assert (product.product_id, product.title, product.brand, product.currency) == ("P0-Red", "P0 & co", "Luma", "USD")
    assert product.category == ["Men", "Tops", "Jackets"]
    assert product.attributes == {"color": "Red", "material": "Wool|Fleece", "pattern": "Solid", "style": "Hooded"}
    assert isinstance(product.image, bytes)
    assert items[3].colour is None
    assert items[8].garment == "Bags"


def test_no_parent_is_on_both_sides(items: tuple[Item, ...]) -> None:
    learned, tested = luma.split(items, seed=1)
    assert sorted(item.product.product_id for item in (*learned, *tested)) == sorted(
        item.product.product_id for item in items
    )
    assert not {item.parent for item in learned} & {item.parent for item in tested}
    assert len({item.parent for item in tested}) == 3
    assert luma.split(items, seed=1) == (learned, tested)


def test_every_list_has_an_item_that_is_all_that_was_asked_for(items: tuple[Item, ...]) -> None:
    asked = luma.lists(items, seed=2, count=60)
    assert asked == luma.lists(items, seed=2, count=60)
    for one in asked:
        assert max(one.grades) == 1
        assert len(one.shown) == len(one.grades) == len(set(one.shown)) == 40
    assert any("under" in one.query for one in asked)
    assert any("美元以下的" in one.query for one in asked)


def test_a_page_of_lists_shows_the_same_items(items: tuple[Item, ...]) -> None:
    shown = [one.shown for one in luma.lists(items, seed=2, count=12, page=4)]
    assert len(set(shown)) == 3
    assert shown[0] == shown[3] != shown[4]


def test_a_grade_is_how_much_of_the_wish_holds(items: tuple[Item, ...]) -> None:
    item = items[0]  # a black jacket for 20.50
    for wish, grade in (
        (Wish("Black", "Jackets", 25), 1.0),
        (Wish("Black", "Jackets", 20), 0.3),
        (Wish("Red", "Jackets", 20), 0.1),
        (Wish("Red", "Shorts", 20), 0.0),
        (Wish("Red", "Jackets", None), 0.3),
        (Wish("Red", "Shorts", None), 0.0),
        (Wish("Black", None, None), 1.0),
        (Wish("Red", None, None), 0.0),
    ):
        assert wish.grade(item) == grade, wish


def test_kinds_with_the_same_word_are_one(items: tuple[Item, ...]) -> None:
    assert Wish(None, "Bras & Tanks", None).grade(items[12]) == 1


def test_a_wish_is_typed_in_two_languages() -> None:
    wish = Wish("Purple", "Hoodies & Sweatshirts", 60)
    assert wish.words(0) == "purple hoodie under 60"
    assert wish.words(1) == "60美元以下的紫色卫衣"
    assert Wish(None, "Tees", None).words(1) == "T恤"


def test_colour_lists_ask_for_nothing_else(items: tuple[Item, ...]) -> None:
    for one in luma.colour_lists(items, seed=3, count=30):
        assert set(one.grades) == {0.0, 1.0}
        colours = {items[row].colour for row, grade in zip(one.shown, one.grades, strict=True) if grade}
        assert len(colours) == 1


def test_without_colours_nothing_names_one(items: tuple[Item, ...]) -> None:
    product = luma.without_colours(items[1].product)
    assert product.description == "Two-tone . • Warm."
    assert isinstance(product.attributes, dict)
    assert "color" not in product.attributes
    assert product.attributes["style"] == "Hooded"
    assert not COLOUR_WORDS.search(f"{product.title} {product.description} {product.attributes}")
    assert product.image == items[1].product.image


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("price", "cheap", r"items\.csv: line 3: price: expected a price, got 'cheap'"),
        ("price", "-1", r"line 3: price: expected a price, got '-1'"),
        ("price", "nan", r"line 3: price: expected a price, got 'nan'"),
        ("item_id", " ", r"line 3: item_id: expected a text, got nothing"),
        ("base_image", "/none.jpg", r"line 3: base_image: expected a picture of images_224\.zip, got 'none\.jpg'"),
    ],
)
def test_a_bad_field_is_told_by_file_and_line(tmp_path: Path, field: str, value: str, told: str) -> None:
    lines = rows()[:3]
    write_luma(tmp_path, lines)
    lines[1][field] = value
    luma_without_pictures = tmp_path / "items.csv"
    header = ",".join(lines[0])
    luma_without_pictures.write_text("\n".join([header, *(",".join(line.values()) for line in lines)]))
    with pytest.raises(ServingError, match=told):
        luma.load(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_luma(tmp_path, [{name: value for name, value in row.items() if name != "color"} for row in rows()])
    with pytest.raises(ServingError, match=r"items\.csv: line 1: expected a column color"):
        luma.load(tmp_path)


def test_what_is_not_there_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"images_224\.zip: cannot be read"):
        luma.load(tmp_path)
    (tmp_path / "images_224.zip").write_bytes(b"no archive")
    with pytest.raises(ServingError, match=r"images_224\.zip: cannot be read"):
        luma.load(tmp_path)
