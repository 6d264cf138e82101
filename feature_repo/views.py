"""The feature views as plain data: names, dtypes, ttl, input topic, SLO. Everything else is made from this file.

A row of a view is laid out in this order: int64 fields, float32 fields (arrays flattened), string and bytes fields.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Dtype = Literal["int64", "float32", "string", "bytes"]

#: content modalities in the order of the ranker's `mask[N, M]`
MODALITIES = ("text", "image", "video", "audio", "attributes")
#: D, the width of a query vector and of every slot of content
EMBEDDING_DIM = 32
#: S slots of the ranker's `content[N, S, D]`, by whose they are: first one for each modality, in their order, that a
#: query is matched with; then likeness, one vector over several slots: which products have attributes in common
LIKENESS = tuple(range(len(MODALITIES), len(MODALITIES) + 1))
SLOTS = (*MODALITIES, *("attributes" for _ in LIKENESS))
LIKENESS_DIM = len(LIKENESS) * EMBEDDING_DIM
#: modalities that a user has a taste in, and the slots that it is a taste for
TASTES = ("text", "image", "attributes")
TASTE_SLOTS = (MODALITIES.index("text"), MODALITIES.index("image"), *LIKENESS)
#: U, the width of a user vector: a taste in each of these, how much is known of the user and which way it leans
USER_DIM = len(TASTE_SLOTS) * EMBEDDING_DIM + 2
#: events of a user that a row remembers
HISTORY_EVENTS = 128
#: int64 fields carry this where a value is unknown or cleared
UNKNOWN = -1

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Field:
    """One feature. `length` > 1 makes it a float32 array of that length."""

    name: str
    dtype: Dtype
    about: str
    length: int = 1


@dataclass(frozen=True, eq=False)
class View:
    """A feature view: one input topic, one writer per row. `ttl_ms` and `slo_ms` are by the log's clock.

    There is one object of each, so views are told apart by identity, which costs nothing where rows are unpacked.
    """

    name: str
    entity: Literal["product", "user"]
    topic: str
    ttl_ms: int
    slo_ms: int
    fields: tuple[Field, ...]

    @cached_property
    def ints(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.dtype == "int64")

    @cached_property
    def floats(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.dtype == "float32")

    @cached_property
    def strings(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.dtype in ("string", "bytes"))

    @cached_property
    def float_width(self) -> int:
        """How many float32 numbers a row holds."""
        return sum(field.length for field in self.floats)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Column of each number field inside its block (int64 block or flattened float32 block)."""
        places: dict[str, int] = {field.name: column for column, field in enumerate(self.ints)}
        column = 0
        for field in self.floats:
            places[field.name] = column
            column += field.length
        return places


PRODUCT_CATALOG = View(
    name="product_catalog",
    entity="product",
    topic="catalog",
    ttl_ms=3650 * DAY_MS,
    slo_ms=1_000,
    fields=(
        Field("price", "int64", "price in minor units; -1 unknown"),
        Field(
            "price_usual",
            "int64",
            "median of the last 9 prices set, in minor units (even counts: the lower of the middle two); -1 unknown",
        ),
        Field("stock", "int64", "pieces in stock; -1 unknown"),
        Field("delisted", "int64", "1 when the product is no longer sold"),
        Field("title", "string", "title as the shop shows it"),
        Field("brand", "string", "brand"),
        Field("category", "string", "path of categories, joined by ' > '"),
        Field("currency", "string", "ISO 4217 code of the price"),
    ),
)

PRODUCT_BEHAVIOR = View(
    name="product_behavior",
    entity="product",
    topic="behavior",
    ttl_ms=3650 * DAY_MS,
    slo_ms=1_000,
    fields=(
        Field("sales_10m", "float32", "pieces purchased less returned in 10 minutes, at least 0"),
        Field("sales_1h", "float32", "pieces purchased less returned in 1 hour, at least 0"),
        Field("sales_24h", "float32", "pieces purchased less returned in 24 hours, at least 0"),
        Field("sales_7d", "float32", "pieces purchased less returned in 7 days, at least 0"),
        Field("orders_24h", "float32", "purchase events in 24 hours"),
        Field("orders_7d", "float32", "purchase events in 7 days"),
        Field("returns_7d", "float32", "pieces returned in 7 days"),
        Field("views_24h", "float32", "impressions in 24 hours"),
        Field("clicks_1h", "float32", "clicks in 1 hour"),
        Field("clicks_24h", "float32", "clicks in 24 hours"),
        Field("carts_24h", "float32", "additions to a cart in 24 hours"),
        Field("ctr_24h", "float32", "(clicks + 1) / (impressions + 20) over 24 hours"),
        Field("sales_total", "float32", "pieces purchased less returned since the product began, at least 0"),
        Field("orders_total", "float32", "purchase events since the product began"),
    ),
)

PRODUCT_CONTENT = View(
    name="product_content",
    entity="product",
    topic="content",
    ttl_ms=3650 * DAY_MS,
    slo_ms=10_000,
    fields=(
        *(Field(m, "float32", f"embedding of the {m}; zeros when missing", EMBEDDING_DIM) for m in MODALITIES),
        Field("likeness", "float32", "attributes: products that have rare ones in common are alike", LIKENESS_DIM),
        Field("mask", "float32", "1 for each modality that is there", len(MODALITIES)),
        Field("encoder", "string", "version of product_encoder that made the row"),
        Field("content_hash", "string", "sha256 of the content that was encoded"),
    ),
)

USER_BEHAVIOR = View(
    name="user_behavior",
    entity="user",
    topic="user-behavior",
    ttl_ms=365 * DAY_MS,
    slo_ms=2_000,
    fields=(
        Field("views_total", "float32", "impressions shown to the user"),
        Field("clicks_total", "float32", "clicks of the user"),
        Field("carts_total", "float32", "additions to a cart by the user"),
        Field("orders_total", "float32", "purchase events of the user"),
        Field(
            "history",
            "bytes",
            f"last {HISTORY_EVENTS} events, msgpack: [[type, product_id, position, event_time], ...], oldest first",
        ),
    ),
)

VIEWS = (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT, USER_BEHAVIOR)
VIEW_BY_NAME = {view.name: view for view in VIEWS}

#: exact amounts in minor units (-1 unknown) that the ranker reads of `product_catalog`
PRICE_FIELDS = ("price", "price_usual")
#: the ranker's live numbers of a product, whoever asks: the prices, then every behaviour feature
PRODUCT_FIELDS = (*PRICE_FIELDS, *(field.name for field in PRODUCT_BEHAVIOR.fields))
#: columns of the ranker's `numeric[N, F]`: those, then what the user of the row's list did with this very product, less
#: what was expected (`serving/users.py`); 0 for a product that the user has not met, and for nobody
NUMERIC_FIELDS = (*PRODUCT_FIELDS, "familiarity")
#: where in `numeric` they are
PRICE_COLUMNS = slice(0, len(PRICE_FIELDS))
BEHAVIOR_COLUMNS = slice(len(PRICE_FIELDS), len(PRODUCT_FIELDS))
FAMILIARITY = NUMERIC_FIELDS.index("familiarity")


def input_hash() -> str:
    """Hash of the order of the ranker's inputs; a bundle made for another order is refused at load."""
    text = f"{NUMERIC_FIELDS}|{SLOTS}|{EMBEDDING_DIM}|{TASTES}|{USER_DIM}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
