"""Product and behaviour events, result sets and model bundles as frozen structs: the nouns of the input topics.

Constraints stand in the types; `streams.validation` turns bytes into these structs or into a rejection. In a
`Product` patch an absent field (UNSET) leaves the value unchanged and None clears it.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

SCHEMA_VERSION = 1

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=10_000)]
Word = Annotated[str, Meta(max_length=256)]
#: a pattern alone would let a newline pass behind the letters
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3)]
#: integer milliseconds UTC; the upper bound is the year 9999
Millis = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
#: integer minor units of a currency (pence, cents, fen)
Money = Annotated[int, Meta(ge=0, le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**31)]
#: bytes, a `sha256:` reference to the media store, or an address
Media = bytes | Annotated[str, Meta(min_length=1, max_length=2048)]
Attribute = str | int | float | bool | None

BEHAVIOR_TYPES = ("impression", "click", "cart", "purchase", "return")


class Product(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A patch of one product. `price` in minor units, `event_time` in ms UTC."""

    product_id: Id
    event_time: Millis
    type: Literal["product"] = "product"
    v: int = SCHEMA_VERSION
    title: Text | None | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
    brand: Word | None | UnsetType = UNSET
    category: Annotated[list[Word], Meta(max_length=32)] | None | UnsetType = UNSET
    attributes: Annotated[dict[str, Attribute], Meta(max_length=64)] | None | UnsetType = UNSET
    price: Money | None | UnsetType = UNSET
    currency: Currency | None | UnsetType = UNSET
    stock: Count | None | UnsetType = UNSET
    image: Media | None | UnsetType = UNSET
    video: Media | None | UnsetType = UNSET
    audio: Media | None | UnsetType = UNSET
    delisted: bool | None | UnsetType = UNSET


class Behavior(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a shopper did with a product. `quantity` counts pieces, `price` is in minor units."""

    type: Literal["impression", "click", "cart", "purchase", "return"]
    event_id: Id
    product_id: Id
    event_time: Millis
    v: int = SCHEMA_VERSION
    user_id: Id | None = None
    session_id: Id | None = None
    result_set_id: Id | None = None
    position: Count | None = None
    quantity: Annotated[int, Meta(ge=1, le=2**31)] = 1
    price: Money | None = None


class Heartbeat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The log's clock: no event of this partition is older news than this, give or take what is late."""

    event_time: Millis
    type: Literal["heartbeat"] = "heartbeat"
    v: int = SCHEMA_VERSION


class ResultSet(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A live result set: candidates that a shop's retrieval found, to be kept in the right order until it expires."""

    result_set_id: Id
    event_time: Millis
    kind: Literal["search", "recommendation", "ads"]
    #: (product_id, retrieval score)
    candidates: Annotated[list[tuple[Id, float]], Meta(min_length=1)]
    type: Literal["result_set"] = "result_set"
    v: int = SCHEMA_VERSION
    query: Text | None = None
    context: Annotated[dict[str, Attribute], Meta(max_length=64)] | None = None
    user_id: Id | None = None
    expires_at: Millis | None = None


class Bundle(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The model bundle in force: which version of each model scores and encodes, and for which input fields."""

    bundle: Id
    version: Annotated[int, Meta(ge=1)]
    #: Triton version of each model: product_encoder, query_encoder, ranker
    models: dict[str, int]
    #: hash of the order of the ranker's input fields (`feature_repo.views.input_hash`)
    input_hash: str
    #: weight of ln(price / price when scored) in degraded rankings, in score units
    price_weight: float
    #: what a score depends on: its row alone, or all rows of its set
    scope: Literal["row", "list"] = "row"
    #: expected clicks of an impression by its position, the last one for all further down: what a taste is judged by
    click_rates: list[float] = []
    type: Literal["bundle"] = "bundle"
    v: int = SCHEMA_VERSION
    metrics: dict[str, float] = {}
