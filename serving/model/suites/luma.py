"""Sets built from Luma's attributes: every fusion, every modality alone and taken away, colours without their words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, get_args

import numpy as np

from feature_repo.events import Product
from feature_repo.views import PRICE_COLUMNS, UNKNOWN
from serving.datasets import luma
from serving.datasets.luma import Asked, Item
from serving.model.config import FusionForm, ModelConfig
from serving.model.dataset import PAGE, RankedList, Shop
from serving.model.evaluate import MASKS, Nets, logits, request
from serving.model.metrics import Doubles, Interval, interval
from serving.model.suites import floors
from serving.model.suites.asking import Asking
from serving.model.suites.judging import Judged
from serving.model.suites.learning import learned
from serving.model.suites.rows import Bars, Finding, Row, Target, quality
from serving.requests import ProductContent, empty_request
from serving.retrieval import TextIndex

SUITE: Final = "luma"
SPLIT_SEED: Final = 7
LEARNED_LISTS: Final = 800
TESTED_LISTS: Final = 600
EPOCHS: Final = 4
WORDS: Final = ("text", "attributes")
#: what a product consists of here, and what a request for each alone leaves out
PARTS: Final = {"image": ("image",), "text": WORDS, "price": ("price",)}
#: a gain is one when its interval is above 0
GAIN: Final = Target(0, of="low", strict=True)

Keep = Callable[[Shop], Shop]


@dataclass(frozen=True, slots=True)
class Shelf:
    """One side of the split: the shop as it is, and what is asked of it."""

    items: tuple[Item, ...]
    shop: Shop
    colourless: Shop
    colours: Shop


def measure(asking: Asking) -> Finding:
    """Train every fusion on all parts, and the sum on each part alone; measure on parents not learned from."""
    items = luma.load(asking.folder(SUITE))
    to_learn, to_test = luma.split(items, SPLIT_SEED)
    learn = shelf(to_learn, 0, asking.fewer(LEARNED_LISTS), PAGE)
    test = shelf(to_test, 1, asking.fewer(TESTED_LISTS), page=1)
    trainings = Trainings(learn, asking)
    fusions = {form: trainings.of(f"fusion {form}", ModelConfig(fusion=form)) for form in get_args(FusionForm)}
    alone = {part: trainings.of(f"{part} alone", ModelConfig(), only(part)) for part in PARTS}
    whole = scores(fusions["sum"], test.shop)
    words, boosted = floor_scores(learn, test)
    order = {
        "random order": floors.random_scores(len(words), 0),
        "words of the query found (BM25)": words,
        "LightGBM on words found and price": boosted,
    }
    rows = [quality(name, mean_of(test.shop, found[None])) for name, found in order.items()]
    by_words, by_trees = (row.value for row in rows[1:])
    for form, nets in fusions.items():
        found = mean_of(test.shop, scores(nets, test.shop))
        rows.append(quality(f"image + text + price, {form}", found, floor=by_words, peer=by_trees))
    for part, nets in alone.items():
        part_alone = scores(nets, only(part)(test.shop))
        rows.append(quality(f"{part} alone", mean_of(test.shop, part_alone), floor=by_words, peer=by_trees))
        rows.append(quality(f"all less {part} alone", gain(test.shop, whole, part_alone), target=GAIN))
    for form, nets in fusions.items():
        for part in ("image", *WORDS, "price"):
            found = mean_of(test.shop, scores(nets, test.shop, part))
            rows.append(quality(f"{form}, without {part} at serving time", found, floor=by_words, peer=by_trees))
    rows += colour_rows(fusions["sum"], test)
    return Finding(
        SUITE,
        "Luma: sets built from attributes",
        tuple(rows),
        (
            f"NDCG@10 of {len(test.shop.lists):,} lists over {len(test.items)} items that were not learned from "
            f"({len(learn.items)} were; variants of a parent are on one side); mean of {asking.seeds} trainings, "
            "spread: 95 %.",
            "A list asks for a colour, a garment, a price or two of them, in English or Chinese; text is title, "
            "description, category and attributes.",
            "Floor: BM25 on the words of text and attributes; peer: LightGBM on its score, the price and the price's "
            "rank. Gains are paired.",
            "No word for them: lists that ask for a colour, products whose text and attributes name none; the floor is "
            "the same model without the picture.",
        ),
        (
            Bars(
                SUITE,
                "Luma: NDCG@10 on sets built from attributes",
                "NDCG@10",
                tuple(row for row in rows if not row.name.startswith(("all less", "what", "colours"))),
                "NDCG@10 on Luma of floors, fusions, modalities alone, and fusions without a modality at serving time",
            ),
        ),
    )


def shelf(items: tuple[Item, ...], seed: int, count: int, page: int) -> Shelf:
    """`count` lists of each kind on one side of the split."""
    asked, colours = luma.lists(items, seed, count, page), luma.colour_lists(items, seed + 100, count, page)
    bare = tuple(replace(item, product=luma.without_colours(item.product)) for item in items)
    return Shelf(items, shop_of(items, asked), shop_of(bare, asked), shop_of(bare, colours))


def shop_of(items: Sequence[Item], asked: Sequence[Asked]) -> Shop:
    """The items as a catalogue, and lists of nothing but prices: a sample catalogue sells nothing."""
    return Shop(tuple(_content(item.product) for item in items), tuple(_list(items, one) for one in asked))


def only(part: str) -> Keep:
    """A shop of which nothing is known but one part."""

    def kept(shop: Shop) -> Shop:
        products = tuple(
            ProductContent(
                product.product_id,
                **{
                    name: getattr(product, name) for name in ("title", "description", "brand", "category", "attributes")
                },
            )
            if part == "text"
            else ProductContent(product.product_id, image=product.image if part == "image" else None)
            for product in shop.products
        )
        return Shop(products, shop.lists if part == "price" else tuple(map(_priceless, shop.lists)))

    return kept


class Trainings:
    """Nets of `seeds` trainings each, on both kinds of lists."""

    def __init__(self, learn: Shelf, asking: Asking) -> None:
        self._learn = learn
        self._asking = asking

    def of(self, name: str, model: ModelConfig, keep: Keep = lambda shop: shop) -> list[Nets]:
        """One net for each seed."""
        shops = [keep(shop) for shop in (self._learn.shop, self._learn.colourless, self._learn.colours)]
        return [self._one(name, model, shops, seed) for seed in range(self._asking.seeds)]

    def _one(self, name: str, model: ModelConfig, shops: Sequence[Shop], seed: int) -> Nets:
        stage = f"{name}, training {seed + 1} of {self._asking.seeds}"
        epochs = 1 if self._asking.quick else EPOCHS
        return learned(model, shops, seed, epochs, partial(self._asking.tell, stage))


def scores(nets: Sequence[Nets], shop: Shop, without: str | None = None) -> Doubles:
    """[S, N] by each of the nets, with one part masked if it is named."""
    found = []
    for one in nets:
        asked = request(one, shop, shop.lists)
        found.append(logits(one.ranker, asked if without is None else MASKS[without](asked)))
    return np.stack(found).astype(np.float64)


def mean_of(shop: Shop, found: Doubles) -> Interval:
    """NDCG@10 of scores [S, N]."""
    return Judged(shop.lists).ndcg(found)


def gain(shop: Shop, found: Doubles, over: Doubles) -> Interval:
    """By how much one is better than the other, list by list and training by training."""
    judged = Judged(shop.lists)
    return interval(judged.ndcg_of(found) - judged.ndcg_of(over))


def colour_rows(nets: Sequence[Nets], test: Shelf) -> list[Row]:
    """Whether the picture tells the colour where no word does."""
    seen, unseen = scores(nets, test.colours), scores(nets, test.colours, "image")
    blind = mean_of(test.colours, unseen).mean
    return [
        quality("colours, no word for them", mean_of(test.colours, seen), floor=blind),
        quality("what the picture brings there", gain(test.colours, seen, unseen), target=GAIN),
    ]


def floor_scores(learn: Shelf, test: Shelf) -> tuple[Doubles, Doubles]:
    """[N] by words found, [N] by LightGBM, of the tested lists."""
    (seen, gains, sizes), (asked, _, _) = _plain(learn), _plain(test)
    return asked[:, 0], floors.boosted(floors.Table(seen, gains, sizes), asked, seed=0)


def _plain(side: Shelf) -> tuple[Doubles, Doubles, floors.Counts]:
    """Features [N, 3] (words found, price, rank of the price), gains [N], sizes [L]."""
    index = TextIndex([(item.product.product_id, _all_words(item)) for item in side.items])
    rows, gains = [], []
    for one in side.shop.lists:
        found = dict(index.search(one.query, len(side.items)))
        prices = [side.items[row].cents for row in one.items]
        ranks = np.argsort(np.argsort(prices, kind="stable"))
        names = (side.items[row].product.product_id for row in one.items)
        rows += list(zip((found.get(name, 0.0) for name in names), prices, ranks, strict=True))
        gains.append(one.relevance)
    sizes = np.array([len(one.items) for one in side.shop.lists])
    return np.array(rows, np.float64), np.concatenate(gains).astype(np.float64), sizes


def _all_words(item: Item) -> str:
    attributes = item.product.attributes if isinstance(item.product.attributes, dict) else {}
    return " ".join((_content(item.product).text, *(str(value).replace("|", " ") for value in attributes.values())))


def _content(product: Product) -> ProductContent:
    assert isinstance(product.category, list)
    assert isinstance(product.attributes, dict)
    assert isinstance(product.image, bytes)
    return ProductContent(
        product.product_id,
        title=str(product.title),
        description=str(product.description),
        brand=str(product.brand),
        category=tuple(product.category),
        attributes=product.attributes,
        image=product.image,
    )


def _list(items: Sequence[Item], asked: Asked) -> RankedList:
    unknown = empty_request(queries=1, rows=len(asked.shown))
    unknown.numeric[:, PRICE_COLUMNS] = np.array([[items[row].cents] for row in asked.shown], np.float32)
    return RankedList(
        query=asked.query,
        time_ms=0,
        items=np.array(asked.shown, np.int32),
        numeric=unknown.numeric,
        retrieval=unknown.retrieval,
        bought=np.array([grade == 1 for grade in asked.grades], np.float32),
        grade=np.array(asked.grades, np.float32),
    )


def _priceless(one: RankedList) -> RankedList:
    numeric = one.numeric.copy()
    numeric[:, PRICE_COLUMNS] = UNKNOWN
    return replace(one, numeric=numeric)
