"""Lists in which one modality alone tells what was asked for. Words are the easier way to most products; where there
are none, the other encoders have to learn what queries mean."""

from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import Final, TypeVar

import numpy as np

from serving.datasets.drawing import COLOURS
from serving.datasets.moving import MOTION_NAMES, film
from serving.datasets.shirts import COLOUR_NAMES, GARMENT_NAMES, MATERIALS, Shirt
from serving.datasets.sounds import SOUND_NAMES, sound
from serving.model.dataset import PAGE, RankedList, Shop, look_query
from serving.requests import ProductContent, empty_request

#: products of a list; films are the dearest to look at
SHOWN: Final = 40
FILMS_SHOWN: Final = 16
Kind = TypeVar("Kind", bound=Hashable)


def shirt_pictures(shirts: Sequence[Shirt], seed: int, count: int) -> Shop:
    """`count` lists of shirts as pictures only; asked is a colour and a garment."""
    products = [ProductContent(shirt.product.product_id, image=_picture(shirt)) for shirt in shirts]
    return _shop(products, _looks(shirts), _look, Random(seed), count)


def shirt_attributes(shirts: Sequence[Shirt], seed: int, count: int) -> Shop:
    """`count` lists of shirts as attributes only, some in Chinese; asked is a colour and a garment."""
    random = Random(seed)
    products = [
        ProductContent(shirt.product.product_id, attributes=_attributes(shirt.colour, shirt.garment, random))
        for shirt in shirts
    ]
    return _shop(products, _looks(shirts), _look, random, count)


def films(seed: int, products: int, count: int) -> Shop:
    """`count` lists of `products` films without sound or words; asked is how a garment moves."""
    random = Random(seed)
    kinds = [random.choice(list(MOTION_NAMES)) for _ in range(products)]
    looks = [(random.choice(list(GARMENT_NAMES)), random.choice(list(COLOURS))) for _ in range(products)]
    shown = [
        ProductContent(f"film-{number}", video=film(garment, colour, motion, random))
        for number, ((garment, colour), motion) in enumerate(zip(looks, kinds, strict=True))
    ]
    return _shop(shown, kinds, _motion, random, count, FILMS_SHOWN)


def sounds(seed: int, products: int, count: int) -> Shop:
    """`count` lists of `products` sounds without words; asked is what sounds."""
    random = Random(seed)
    kinds = [random.choice(list(SOUND_NAMES)) for _ in range(products)]
    heard = [
        ProductContent(f"sound-{number}", audio=sound(kind, random.randrange(2**32)))
        for number, kind in enumerate(kinds)
    ]
    return _shop(heard, kinds, _sound, random, count)


def _shop(
    products: Sequence[ProductContent],
    kinds: Sequence[Kind],
    query: Callable[[Random, Kind], str],
    random: Random,
    count: int,
    shown: int = SHOWN,
) -> Shop:
    """`count` lists of `shown` of the products, without numbers; `bought` is 1 where the kind is the one asked for."""
    lists = []
    for number in range(count):
        if number % PAGE == 0:
            page = random.sample(range(len(products)), min(shown, len(products)))
        asked = kinds[random.choice(page)]
        unknown = empty_request(queries=1, rows=len(page))
        lists.append(
            RankedList(
                query=query(random, asked),
                time_ms=0,
                items=np.array(page, np.int32),
                numeric=unknown.numeric,
                retrieval=unknown.retrieval,
                bought=np.array([kinds[row] == asked for row in page], np.float32),
            )
        )
    return Shop(tuple(products), tuple(lists))


def _picture(shirt: Shirt) -> bytes:
    image = shirt.product.image
    if not isinstance(image, bytes):
        raise ValueError(f"{shirt.product.product_id} has no picture")
    return image


def _looks(shirts: Sequence[Shirt]) -> list[tuple[str, str]]:
    return [(shirt.colour, shirt.garment) for shirt in shirts]


def _look(random: Random, look: tuple[str, str]) -> str:
    return look_query(random, *look)


def _attributes(colour: str, garment: str, random: Random) -> dict[str, str | int]:
    """What a shop may know of a garment, with names and values in Chinese or English."""
    size, material = random.randrange(34, 48, 2), random.choice(MATERIALS)
    if random.random() < 0.5:
        return {"颜色": COLOUR_NAMES[colour], "类型": GARMENT_NAMES[garment], "材质": material, "尺码": size}
    return {"colour": colour, "type": garment, "material": material, "size": size}


def _motion(random: Random, motion: str) -> str:
    return random.choice((MOTION_NAMES[motion], f"{motion} garment", f"{MOTION_NAMES[motion]}衣服", motion))


def _sound(random: Random, name: str) -> str:
    return random.choice((SOUND_NAMES[name], f"sound of a {name}", f"{SOUND_NAMES[name]}声", name))
