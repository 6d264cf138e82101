"""A product as the shop describes it: last writer wins, per field."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter

from msgspec import UNSET, Struct, field

from feature_repo.events import Product
from feature_repo.features.packing import pack, pack_list, unpack
from feature_repo.views import UNKNOWN

#: (event_time, offset, partition, place in the message): the later one wins a field
Order = tuple[int, int, int, int]

PATCH_FIELDS = (
    "title", "description", "brand", "category", "attributes", "price", "currency", "stock",
    "image", "video", "audio", "delisted",
)  # fmt: skip
#: what a product usually costs is judged by so many of the prices that were set last
PRICES_KEPT = 9
CONTENT_FIELDS = ("title", "description", "brand", "category", "attributes", "image", "video", "audio")
LIVE_FIELDS = tuple(name for name in PATCH_FIELDS if name not in CONTENT_FIELDS)
#: what readers get as text
_TEXT_FIELDS = frozenset(("title", "brand", "category", "currency"))
_content_in = attrgetter(*CONTENT_FIELDS)
_live_in = attrgetter(*LIVE_FIELDS)
_order_of, _price_of = itemgetter(0), itemgetter(1)


class CatalogState(Struct, gc=False):
    """Per field the winning value and its order; `newest` is the newest event time (ms) of the row."""

    fields: dict[str, tuple[Order, object]] = field(default_factory=dict)
    newest: int = 0
    #: the last prices that were set, in order; what clears a price sets none
    prices: list[tuple[Order, int]] = field(default_factory=list)
    #: fields as they are packed, but for those that changed since; None before it was packed first
    packed: dict[str, bytes] | None = None
    #: what readers get as text, packed; None when it changed
    texts: bytes | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CatalogState) and _facts(self) == _facts(other)


def _facts(state: CatalogState) -> tuple[object, ...]:
    return state.fields, state.newest, state.prices


def fold_product(state: CatalogState, patch: Product, order: Order) -> bool:
    """Last writer wins, per field. True when a content field changed its value."""
    if patch.event_time > state.newest:
        state.newest = patch.event_time
    for name, value in zip(LIVE_FIELDS, _live_in(patch), strict=True):
        if value is not UNSET:
            _set(state, name, value, order)
    if isinstance(patch.price, int):
        _remember_price(state.prices, order, patch.price)
    return brings_content(patch) and _fold_content(state, patch, order)


def brings_content(patch: Product) -> bool:
    """Whether the patch sets or clears a content field."""
    return not (
        patch.title is patch.description is patch.brand is patch.category is UNSET
        and patch.attributes is patch.image is patch.video is patch.audio is UNSET
    )


def fold_products(state: CatalogState, patches: Sequence[tuple[Order, Product]]) -> bool:
    """`fold_product` of each of them: of what is no content, only the last patch that sets a field is looked at."""
    changes = [_fold_content(state, patch, order) for order, patch in patches if brings_content(patch)]
    _fold_live(state, sorted(patches, key=_order_of))
    return any(changes)


def _fold_live(state: CatalogState, patches: Iterable[tuple[Order, Product]]) -> None:
    """What is no content, of patches whose order rises."""
    winners: dict[str, tuple[Order, Product]] = {}
    prices: list[tuple[Order, int]] = []
    time = state.newest
    for winner in patches:
        order, patch = winner
        time = patch.event_time
        if patch.price is not UNSET:
            winners["price"] = winner
            # one that is there twice must not take the place of an earlier one
            if patch.price is not None and not (prices and prices[-1][0] == order):
                prices.append((order, patch.price))
        if patch.currency is not UNSET:
            winners["currency"] = winner
        if patch.stock is not UNSET:
            winners["stock"] = winner
        if patch.delisted is not UNSET:
            winners["delisted"] = winner
    state.newest = max(state.newest, time)
    for name, (order, patch) in winners.items():
        _set(state, name, getattr(patch, name), order)
    for order, price in prices[-PRICES_KEPT:]:
        _remember_price(state.prices, order, price)


def _fold_content(state: CatalogState, patch: Product, order: Order) -> bool:
    """Whether a content field has another value now."""
    changes = [
        _set(state, name, value, order)
        for name, value in zip(CONTENT_FIELDS, _content_in(patch), strict=True)
        if value is not UNSET
    ]
    return any(changes)


def _set(state: CatalogState, name: str, value: object, order: Order) -> bool:
    """Whether the field has another value now."""
    known = state.fields.get(name)
    if known is not None and order <= known[0]:
        return False
    state.fields[name] = (order, value)
    if state.packed:
        state.packed.pop(name, None)
    is_new = (known[1] if known else None) != value
    if is_new and name in _TEXT_FIELDS:
        state.texts = None
    return is_new


def _remember_price(prices: list[tuple[Order, int]], order: Order, price: int) -> None:
    """Keep the PRICES_KEPT greatest orders, each once: a function of the patches, however often and late they come."""
    if not prices or order > prices[-1][0]:
        prices.append((order, price))
    else:
        place = bisect_left(prices, (order, price))
        if prices[place : place + 1] == [(order, price)]:
            return
        prices.insert(place, (order, price))
    if len(prices) > PRICES_KEPT:
        del prices[0]


def current(state: CatalogState, name: str) -> object:
    """The value of a field now; None when it was never set or was cleared."""
    known = state.fields.get(name)
    return None if known is None else known[1]


def catalog_ints(state: CatalogState) -> list[int]:
    """price, price_usual, stock, delisted: in the order of views.PRODUCT_CATALOG."""
    price, stock = current(state, "price"), current(state, "stock")
    return [
        price if isinstance(price, int) else UNKNOWN,
        usual_price(state),
        stock if isinstance(stock, int) else UNKNOWN,
        int(current(state, "delisted") is True),
    ]


def usual_price(state: CatalogState) -> int:
    """Median of the last prices set, of two in the middle the lower; a price that was cleared leaves it as it is."""
    prices = sorted(map(_price_of, state.prices))
    return prices[(len(prices) - 1) // 2] if prices else UNKNOWN


def catalog_strings(state: CatalogState) -> list[str]:
    """title, brand, category, currency: in the order of views.PRODUCT_CATALOG."""
    category = current(state, "category")
    return [
        str(current(state, "title") or ""),
        str(current(state, "brand") or ""),
        " > ".join(category) if isinstance(category, list) else "",
        str(current(state, "currency") or ""),
    ]


def catalog_texts(state: CatalogState) -> bytes:
    """The same as a packed list, which is packed again only when one of them changed."""
    if state.texts is None:
        state.texts = pack(catalog_strings(state))
    return state.texts


def content_of(state: CatalogState) -> dict[str, object]:
    """The whole content of a product, without the fields that are missing."""
    found = {name: current(state, name) for name in CONTENT_FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def delisting(product_id: str, event_time: int) -> Product:
    """What a null value on `catalog` means."""
    return Product(product_id=product_id, event_time=event_time, delisted=True)


def pack_catalog(state: CatalogState) -> bytes:
    packed = state.packed
    if packed is None:
        # most rows of a great catalogue are packed once: what would serve a second time is made then
        state.packed = {}
        fields_once = [(name, *state.fields[name]) for name in sorted(state.fields)]
        return pack((state.newest, fields_once, state.prices))
    if len(packed) < len(state.fields):
        for name, (order, value) in state.fields.items():
            if name not in packed:
                packed[name] = pack((name, order, value))
    fields = pack_list([packed[name] for name in sorted(packed)])
    return pack_list((pack(state.newest), fields, pack(state.prices)))


def unpack_catalog(data: bytes) -> CatalogState:
    newest, fields, *rest = unpack(data)
    known = {name: (tuple(order), value) for name, order, value in fields}
    prices = [(tuple(order), price) for order, price in rest[0]] if rest else _prices_of_old(known)
    return CatalogState(known, newest, prices)


def _prices_of_old(known: dict[str, tuple[Order, object]]) -> list[tuple[Order, int]]:
    """A state that was packed before prices were remembered knows the last of them."""
    order, price = known.get("price", ((0, 0, 0, 0), None))
    return [(order, price)] if isinstance(price, int) else []
