"""Pure functions: state + event -> state, state + as_of -> feature values. Engine and oracle share nothing else.

Counts are integers in event-time buckets, pruned by the row's own newest event time, so any order of the same events
gives the same bits. Nothing here looks at a clock.

    catalog.py    patches -> price, stock, title ...: last writer wins, per field
    behavior.py   events of a product -> sales, clicks, views in windows
    user.py       events of a user -> the last of them, and totals
    content.py    vectors of a product
    counting.py   what one event adds to the counts
    buckets.py    counts in buckets of event time, and running sums over windows
    repeats.py    what a publisher sent twice
    rounding.py   three significant digits
    packing.py    states as bytes
"""

from feature_repo.features.behavior import (
    CTR_CLICKS,
    CTR_VIEWS,
    HOUR_WINDOWS,
    MINUTE_WINDOWS,
    BehaviorState,
    behavior_values,
    fold_behavior,
    fold_behaviors,
    next_change,
    only_counts,
    pack_behavior,
    unpack_behavior,
    values_of_counts,
)
from feature_repo.features.buckets import Buckets
from feature_repo.features.catalog import (
    CONTENT_FIELDS,
    PATCH_FIELDS,
    CatalogState,
    Order,
    brings_content,
    catalog_ints,
    catalog_strings,
    catalog_texts,
    content_of,
    current,
    delisting,
    fold_product,
    fold_products,
    pack_catalog,
    unpack_catalog,
    usual_price,
)
from feature_repo.features.content import ContentState, content_values, pack_content, unpack_content
from feature_repo.features.counting import COLUMNS, counts_of
from feature_repo.features.repeats import REMEMBER_MS, Repeats, event_key
from feature_repo.features.rounding import three_digits
from feature_repo.features.user import (
    UserEvent,
    UserState,
    fold_user,
    pack_user,
    unpack_user,
    user_events,
    user_history,
    user_values,
)
from feature_repo.views import HISTORY_EVENTS

__all__ = [
    "COLUMNS",
    "CONTENT_FIELDS",
    "CTR_CLICKS",
    "CTR_VIEWS",
    "HISTORY_EVENTS",
    "HOUR_WINDOWS",
    "MINUTE_WINDOWS",
    "PATCH_FIELDS",
    "REMEMBER_MS",
    "BehaviorState",
    "Buckets",
    "CatalogState",
    "ContentState",
    "Order",
    "Repeats",
    "UserEvent",
    "UserState",
    "behavior_values",
    "brings_content",
    "catalog_ints",
    "catalog_strings",
    "catalog_texts",
    "content_of",
    "content_values",
    "counts_of",
    "current",
    "delisting",
    "event_key",
    "fold_behavior",
    "fold_behaviors",
    "fold_product",
    "fold_products",
    "fold_user",
    "next_change",
    "only_counts",
    "pack_behavior",
    "pack_catalog",
    "pack_content",
    "pack_user",
    "three_digits",
    "unpack_behavior",
    "unpack_catalog",
    "unpack_content",
    "unpack_user",
    "user_events",
    "user_history",
    "user_values",
    "usual_price",
    "values_of_counts",
]
