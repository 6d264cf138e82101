"""The example of the list "白色T恤": products with Chinese titles, drawn pictures, prices in fen, and a story.

Everything is a function of the seed. A quarter of the titles do not name the colour: only the picture tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from feature_repo.events import Behavior, Product
from feature_repo.views import DAY_MS, MINUTE_MS
from serving.datasets.drawing import COLOURS, OUTLINES, draw

QUERY: Final = "白色T恤"
CURRENCY: Final = "CNY"

COLOUR_NAMES: Final = {
    "white": "白色",
    "black": "黑色",
    "grey": "灰色",
    "red": "红色",
    "blue": "蓝色",
    "green": "绿色",
    "yellow": "黄色",
    "pink": "粉色",
}
GARMENT_NAMES: Final = {
    "t-shirt": "T恤",
    "shirt": "衬衫",
    "hoodie": "卫衣",
    "trousers": "长裤",
    "shorts": "短裤",
    "dress": "连衣裙",
}
CATEGORIES: Final = {
    "t-shirt": "上装",
    "shirt": "上装",
    "hoodie": "上装",
    "trousers": "裤装",
    "shorts": "裤装",
    "dress": "裙装",
}
MATERIALS: Final = ("纯棉", "亚麻", "莫代尔", "速干", "棉麻", "加厚")
DETAILS: Final = {
    "t-shirt": ("圆领", "V领", "短袖", "宽松"),
    "shirt": ("长袖", "修身", "免烫", "商务"),
    "hoodie": ("连帽", "加绒", "宽松", "套头"),
    "trousers": ("直筒", "休闲", "修身", "高腰"),
    "shorts": ("运动", "休闲", "沙滩", "五分"),
    "dress": ("收腰", "碎花", "长款", "无袖"),
}
WEARERS: Final = ("男款", "女款", "中性款")
#: a usual price in yuan
PRICES: Final = {"t-shirt": 79, "shirt": 139, "hoodie": 189, "trousers": 159, "shorts": 89, "dress": 229}

#: white and T-shirts are this much more frequent than each other colour and garment, so that the list has rivals
FAVOUR: Final = 4
UNNAMED_COLOUR: Final = 0.25


@dataclass(frozen=True, slots=True)
class Shirt:
    """A garment of the shop: `product` is complete, its image a PNG; `weekly_sales` pieces are bought in a week."""

    product: Product
    colour: str
    garment: str
    weekly_sales: int


class Pair(NamedTuple):
    """What a shopper asked and what was shown; relevant when colour and garment are those that were asked for."""

    query: str
    shirt: Shirt
    relevant: bool


@dataclass(frozen=True, slots=True)
class Story:
    """Events in order of time that move the list, and the products that they are about."""

    events: tuple[Product | Behavior, ...]
    bought: str
    discounted: str
    sold_out: str


def products(seed: int, n: int, event_time: int = 0) -> list[Shirt]:
    """n garments, complete with pictures, all of `event_time` (ms UTC)."""
    random = Random(seed)
    return [_shirt(random, f"shirt-{number:04d}", event_time) for number in range(n)]


def pairs(seed: int, n: int) -> list[Pair]:
    """n judged pairs, two in five relevant; the others miss by the colour, by the garment, or by both."""
    random = Random(seed)
    stock = products(random.randrange(2**32), max(1, min(n, 2000)))
    return [_pair(random, random.choice(stock)) for _ in range(n)]


def sales(shirts: Sequence[Shirt], until_ms: int, seed: int) -> list[Behavior]:
    """The purchases of the week before `until_ms`, in order of time."""
    random = Random(seed)
    moments = [
        (until_ms - 1 - random.randrange(7 * DAY_MS), shirt) for shirt in shirts for _ in range(shirt.weekly_sales)
    ]
    moments.sort(key=lambda moment: (moment[0], moment[1].product.product_id))
    return [
        _purchase(shirt.product, f"shirt-sale-{number}", time, f"shopper-{random.randrange(400)}")
        for number, (time, shirt) in enumerate(moments)
    ]


def story(shirts: Sequence[Shirt], start_ms: int, end_ms: int, seed: int) -> Story:
    """Three white T-shirts in [start_ms, end_ms): a slow one is bought, one gets cheaper, the leader sells out."""
    random = Random(seed)
    white = [shirt for shirt in shirts if (shirt.colour, shirt.garment) == ("white", "t-shirt")]
    by_sales = sorted(white, key=lambda shirt: (shirt.weekly_sales, shirt.product.product_id))
    if len(by_sales) < 3:
        raise ValueError(f"a story takes 3 white T-shirts, there are {len(by_sales)}")
    slow, middle, leader = by_sales[0].product, by_sales[len(by_sales) // 2].product, by_sales[-1].product
    length = end_ms - start_ms
    events: list[Product | Behavior] = [
        _purchase(slow, f"shirt-story-{number}", time, f"shopper-{random.randrange(400)}")
        for number, time in enumerate(_moments(random, start_ms, length, 60))
    ]
    price = _price(middle)
    events += [
        Product(product_id=middle.product_id, event_time=start_ms + length * 4 // 10, price=price * 8 // 10),
        Product(product_id=middle.product_id, event_time=start_ms + length * 7 // 10, price=price * 6 // 10),
        Product(product_id=leader.product_id, event_time=start_ms + length * 8 // 10, stock=0),
    ]
    events.sort(key=lambda event: event.event_time)
    return Story(tuple(events), bought=slow.product_id, discounted=middle.product_id, sold_out=leader.product_id)


def _moments(random: Random, start_ms: int, length: int, count: int) -> list[int]:
    """Times in whole minutes, ever denser towards the end."""
    return sorted((start_ms + int(length * random.random() ** 0.5)) // MINUTE_MS * MINUTE_MS for _ in range(count))


def _shirt(random: Random, product_id: str, event_time: int) -> Shirt:
    colour = _favoured(random, tuple(COLOURS))
    garment = _favoured(random, tuple(OUTLINES))
    named = COLOUR_NAMES[colour] if random.random() >= UNNAMED_COLOUR else ""
    wearer = "女款" if garment == "dress" else random.choice(WEARERS)
    detail = random.choice(DETAILS[garment])
    product = Product(
        product_id=product_id,
        event_time=event_time,
        title=f"{random.choice(MATERIALS)}{named}{GARMENT_NAMES[garment]} {wearer} {detail}",
        category=["服饰", CATEGORIES[garment]],
        price=round(PRICES[garment] * random.lognormvariate(0, 0.3)) * 100 - 10,
        currency=CURRENCY,
        stock=random.randint(5, 500),
        image=draw(garment, colour, random),
    )
    return Shirt(product, colour, garment, weekly_sales=round(random.lognormvariate(2.3, 0.9)))


def _pair(random: Random, shirt: Shirt) -> Pair:
    colour, garment = shirt.colour, shirt.garment
    miss = random.choices(("none", "colour", "garment", "both"), (4, 3, 2, 1))[0]
    if miss in ("colour", "both"):
        colour = random.choice([other for other in COLOURS if other != colour])
    if miss in ("garment", "both"):
        garment = random.choice([other for other in OUTLINES if other != garment])
    return Pair(_query(random, colour, garment), shirt, miss == "none")


def _query(random: Random, colour: str, garment: str) -> str:
    """What is typed for a colour and a garment, in Chinese or English."""
    chinese = f"{COLOUR_NAMES[colour]}{GARMENT_NAMES[garment]}"
    return random.choice((chinese, chinese, f"{chinese} {random.choice(WEARERS)}", f"{colour} {garment}"))


def _favoured(random: Random, names: Sequence[str]) -> str:
    """One of the names; the first is FAVOUR times as frequent as each of the others."""
    return random.choices(names, [FAVOUR, *[1] * (len(names) - 1)])[0]


def _price(product: Product) -> int:
    assert isinstance(product.price, int)
    return product.price


def _purchase(product: Product, event_id: str, time: int, user_id: str) -> Behavior:
    return Behavior(
        type="purchase",
        event_id=event_id,
        product_id=product.product_id,
        event_time=time,
        user_id=user_id,
        price=_price(product),
    )
