"""Rankings for programs and for humans."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from feature_repo.reading import RowReader, ViewNotServed
from feature_repo.row_store import StoreUnavailable
from feature_repo.views import PRODUCT_CATALOG
from streams.client import ClosedSet, FreshRanking
from streams.commands.connecting import settings

_TITLE = [field.name for field in PRODUCT_CATALOG.strings].index("title")


def as_object(news: FreshRanking | ClosedSet, limit: int | None = None) -> dict[str, Any]:
    """As JSON: everything that a ranking says, its first `limit` items; a closed set has `closed`."""
    if isinstance(news, ClosedSet):
        return {"result_set_id": news.result_set_id, "version": news.version, "closed": True}
    return {
        "result_set_id": news.result_set_id,
        "version": news.version,
        "model_version": news.model_version,
        "degraded": news.degraded,
        "caused_by": None if news.caused_by is None else asdict(news.caused_by),
        "cause_kafka_time": news.columns.cause_kafka_time or None,
        "feature_age_ms": {view: list(ages) for view, ages in news.feature_age_ms.items()},
        "scored_at": news.scored_at,
        "published_at": news.published_at,
        "count": len(news.items),
        "items": [asdict(item) for item in news.items[:limit]],
    }


class Titles:
    """Titles of products from the feature store, asked once each; where it is away, ids must do."""

    def __init__(self) -> None:
        self._rows = RowReader(settings().redis.get_secret_value())
        self._known: dict[str, str] = {}

    def of(self, product_ids: Iterable[str]) -> Mapping[str, str]:
        """product_id -> title, of those that have one."""
        asked = [product_id for product_id in product_ids if product_id not in self._known]
        if asked:
            try:
                rows = self._rows.read(PRODUCT_CATALOG, asked).rows()
            except (StoreUnavailable, ViewNotServed):
                return self._known
            titles = (
                (product_id, str(row.strings[_TITLE])) for product_id, row in zip(asked, rows, strict=True) if row
            )
            self._known.update((product_id, title) for product_id, title in titles if title)
        return self._known


def titles_of(ranking: FreshRanking, limit: int | None) -> Mapping[str, str]:
    """Titles of the first `limit` products."""
    return Titles().of(ranking.columns.product_ids[:limit])
