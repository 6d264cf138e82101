"""Luma, the sample catalogue of Magento 2: products in colours with pictures, titles and prices, and lists to rank.

A folder with items.csv and images_224.zip. Colour variants of one parent share title, description and price, so words
do not tell them apart: the colour is an attribute, and in the picture. What a list asks for are attributes ("purple
hoodie under 60"); a product's grade is how much of that holds.
"""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from msgspec import structs

from feature_repo.events import Attribute, Product
from serving.datasets.files import Record, pictures, records

ITEMS: Final = "items.csv"
PICTURES: Final = "images_224.zip"
COLUMNS: Final = (
    "item_id", "parent_sku", "title", "color", "price", "categories", "material", "pattern", "climate", "style",
    "description", "base_image",
)  # fmt: skip
#: attributes as the source names them; several values are joined by "|"
ATTRIBUTES: Final = ("color", "material", "pattern", "climate", "style")
BRAND: Final = "Luma"
CURRENCY: Final = "USD"

#: colours that are asked for, in English and Chinese
COLOURS: Final = {
    "Black": ("black", "黑色"),
    "Blue": ("blue", "蓝色"),
    "Gray": ("gray", "灰色"),
    "Green": ("green", "绿色"),
    "Orange": ("orange", "橙色"),
    "Purple": ("purple", "紫色"),
    "Red": ("red", "红色"),
    "White": ("white", "白色"),
    "Yellow": ("yellow", "黄色"),
}
#: last part of a category -> what is asked for, in English and Chinese
GARMENTS: Final = {
    "Hoodies & Sweatshirts": ("hoodie", "卫衣"),
    "Jackets": ("jacket", "夹克"),
    "Tees": ("tee", "T恤"),
    "Bras & Tanks": ("tank top", "背心"),
    "Tanks": ("tank top", "背心"),
    "Pants": ("pants", "长裤"),
    "Shorts": ("shorts", "短裤"),
    "Bags": ("bag", "包"),
    "Watches": ("watch", "手表"),
}
#: categories of what is on sale just now say nothing of what a product is
CAMPAIGNS: Final = ("Promotions", "Collections")
COLOUR_WORDS: Final = re.compile(
    r"\b(black|blue|gr[ae]y|green|orange|purple|red|white|yellow|brown|lavender|pink|charcoal|heather(ed)?|navy)\b",
    re.IGNORECASE,
)

#: dollars
PRICE_LIMITS: Final = (25, 30, 35, 40, 45, 50, 60, 70, 80)
SHOWN: Final = 40
#: grade of a product by how many of the conditions it misses; 0 when it meets none
GRADES: Final = (1.0, 0.3, 0.1)
TEST_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Item:
    """A product of the shop, complete, and what lists ask about it: its colour and kind of garment, by their source
    names; None where nobody asks for such. Variants have one parent."""

    product: Product
    parent: str
    colour: str | None
    garment: str | None

    @property
    def cents(self) -> int:
        """Its price."""
        assert isinstance(self.product.price, int)
        return self.product.price


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, the `shown` rows of the items it was made from, and their `grades` in [0, 1]."""

    query: str
    shown: tuple[int, ...]
    grades: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a shopper wants; None is no condition. `limit` in dollars."""

    colour: str | None
    garment: str | None
    limit: int | None

    def grade(self, item: Item) -> float:
        """How much of it an item fulfils."""
        held = [
            wanted == had
            for wanted, had in ((self.colour, item.colour), (_kind(self.garment), _kind(item.garment)))
            if wanted is not None
        ]
        if self.limit is not None:
            held.append(item.cents <= 100 * self.limit)
        missed = held.count(False)
        return GRADES[missed] if missed < min(len(held), len(GRADES)) else 0.0

    def words(self, language: int) -> str:
        """As it is typed: 0 English, 1 Chinese."""
        colour = COLOURS[self.colour][language] if self.colour else ""
        garment = GARMENTS[self.garment][language] if self.garment else ""
        if language == 0:
            return " ".join(filter(None, (colour, garment, f"under {self.limit}" if self.limit else "")))
        return (f"{self.limit}美元以下的" if self.limit else "") + colour + garment


def load(folder: Path) -> tuple[Item, ...]:
    """All items in the order of the file. Raises ServingError that names file, line and field."""
    images = pictures(folder / PICTURES)
    return tuple(_item(record, images) for record in records(folder / ITEMS, COLUMNS))


def split(items: Sequence[Item], seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(to learn from, to test on): all variants of a parent are on one side."""
    parents = sorted({item.parent for item in items})
    held_out = frozenset(Random(seed).sample(parents, round(TEST_SHARE * len(parents))))
    return (
        tuple(item for item in items if item.parent not in held_out),
        tuple(item for item in items if item.parent in held_out),
    )


def lists(items: Sequence[Item], seed: int, count: int, page: int = 1) -> list[Asked]:
    """`count` lists of up to SHOWN items: somebody wants one of them, and asks for some of its properties. `page` lists
    in a row are shown the same items, so that a batch of them has fewer pictures than rows."""
    return _lists(items, Random(seed), count, page, _wish, lambda item: bool(item.colour and item.garment))


def colour_lists(items: Sequence[Item], seed: int, count: int, page: int = 1) -> list[Asked]:
    """The same, but nothing is asked for but a colour."""
    return _lists(
        items, Random(seed), count, page, lambda item, _: Wish(item.colour, None, None), lambda item: bool(item.colour)
    )


def without_colours(product: Product) -> Product:
    """The same product with no word for a colour in its title, description and attributes."""
    attributes = product.attributes if isinstance(product.attributes, dict) else {}
    return structs.replace(
        product,
        title=_colourless(product.title),
        description=_colourless(product.description),
        attributes={name: _colourless(value) for name, value in attributes.items() if name != "color"},
    )


def _item(record: Record, images: dict[str, bytes]) -> Item:
    picture = record.text("base_image").removeprefix("/")
    if picture not in images:
        record.fail("base_image", f"a picture of {PICTURES}", repr(picture))
    paths = [path for path in record.fields["categories"].split("|") if not path.startswith(CAMPAIGNS)]
    category = [part for path in paths for part in path.split("/") if part]
    attributes: dict[str, Attribute] = {
        name: html.unescape(record.fields[name]) for name in ATTRIBUTES if record.fields[name]
    }
    product = Product(
        product_id=record.text("item_id"),
        event_time=0,
        title=html.unescape(record.text("title")),
        description=html.unescape(record.fields["description"]),
        brand=BRAND,
        category=list(dict.fromkeys(category)),
        attributes=attributes,
        price=record.minor_units("price"),
        currency=CURRENCY,
        image=images[picture],
    )
    colour = record.fields["color"]
    return Item(
        product=product,
        parent=record.text("parent_sku"),
        colour=colour if colour in COLOURS else None,
        garment=next((part for part in category if part in GARMENTS), None),
    )


def _lists(
    items: Sequence[Item],
    random: Random,
    count: int,
    page: int,
    wish_for: Callable[[Item, Random], Wish],
    askable: Callable[[Item], bool],
) -> list[Asked]:
    asked: list[Asked] = []
    wanted = [row for row, item in enumerate(items) if askable(item)]
    shown: list[int] = []
    for number in range(count):
        if number % page == 0:
            first = random.choice(wanted)
            others = [row for row in range(len(items)) if row != first]
            shown = [first, *random.sample(others, min(SHOWN - 1, len(others)))]
            random.shuffle(shown)
        wish = wish_for(items[random.choice([row for row in shown if askable(items[row])])], random)
        grades = tuple(wish.grade(items[row]) for row in shown)
        asked.append(Asked(wish.words(random.randrange(2)), tuple(shown), grades))
    return asked


def _wish(item: Item, random: Random) -> Wish:
    """Conditions that the item meets: all three or, as often as not, one of them less."""
    limits = [limit for limit in PRICE_LIMITS if item.cents <= 100 * limit]
    whole = Wish(item.colour, item.garment, limits[0] if limits else PRICE_LIMITS[-1])
    left_out = random.choice((None, None, "colour", "garment", "limit"))
    return Wish(
        colour=whole.colour if left_out != "colour" else None,
        garment=whole.garment if left_out != "garment" else None,
        limit=whole.limit if limits and left_out != "limit" else None,
    )


def _kind(garment: str | None) -> tuple[str, str] | None:
    """Categories that are asked for by the same words are one."""
    return GARMENTS[garment] if garment else None


def _colourless(value: object) -> str:
    return " ".join(COLOUR_WORDS.sub(" ", value).split()) if isinstance(value, str) else ""
