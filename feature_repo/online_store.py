"""Feast's online-store class over the engine's rows: `get_online_features` reads them, nobody writes them by Feast.

    pointer of the view -> rows -> NumPy columns -> Feast's value protos

The rows belong to the engine: writing, pushing and materializing are refused, and Feast's teardown leaves them alone.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast import Entity, FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import FloatList
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import Field as Setting
from pydantic import SecretStr

from feature_repo.reading import RowReader, Snapshot
from feature_repo.views import UNKNOWN, VIEW_BY_NAME, Field, View

#: what Feast reads of one row: event time and values by feature name, (None, None) where there is no row
FeastRow = tuple[datetime | None, dict[str, ValueProto] | None]
FeastWrite = tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]

_EPOCH = datetime.fromtimestamp(0, tz=UTC)


class RowHasOneWriter(Exception):
    """Somebody wants to write a row that the engine owns; what it contains comes from its input topic alone."""


class UnknownView(LookupError):
    """A feature view, or a feature of one, that the engine does not fill."""


def redis_url() -> SecretStr:
    """FRESHRANK_REDIS, which the workers read as well; else a Redis on this machine."""
    return SecretStr(os.environ.get("FRESHRANK_REDIS", "redis://127.0.0.1:6379/0"))


class FreshrankOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` in feature_store.yaml; without a `redis_url` the environment's FRESHRANK_REDIS."""

    type: Literal["feature_repo.online_store.FreshrankOnlineStore"] = "feature_repo.online_store.FreshrankOnlineStore"
    redis_url: SecretStr = Setting(default_factory=redis_url)


class FreshrankOnlineStore(OnlineStore):
    """Reads rows of the engine's views from Redis."""

    def __init__(self) -> None:
        self._readers: dict[str, RowReader] = {}

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=True)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[FeastRow]:
        """Rows as Feast wants them, (None, None) for a row that is missing or past its ttl.

        A price or stock that is unknown (-1 in the row) is a null value. Raises ViewNotServed when no engine writes
        the view, StoreUnavailable when Redis is away, UnknownView for a view or feature that is not the engine's.
        """
        view = view_of(table)
        found = self._reader(config).read(view, [entity_id(key) for key in entity_keys])
        return feast_rows(found, requested_features)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[FeastRow]:
        """The same from a thread, so that neither Redis nor making the protos holds up the event loop."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastWrite],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Always RowHasOneWriter (push, write_to_online_store and materialize end here)."""
        view = view_of(table)
        raise RowHasOneWriter(
            f"a row has one writer: rows of {view.name} are made by the engine from the topic {view.topic!r}; "
            "publish there instead of writing to Feast"
        )

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Refuses views that no engine would fill; there is nothing to create or to delete for those that it does."""
        for table in tables_to_keep:
            view_of(table)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Closes connections. The rows stay: they are the engine's state, not Feast's."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _reader(self, config: RepoConfig) -> RowReader:
        settings = config.online_store
        assert isinstance(settings, FreshrankOnlineStoreConfig)
        url = settings.redis_url.get_secret_value()
        return self._readers.setdefault(url, RowReader(url))


def view_of(table: FeatureView) -> View:
    """The engine's view behind Feast's."""
    view = VIEW_BY_NAME.get(table.name)
    if view is None:
        raise UnknownView(f"feature view {table.name} is not one of the engine's: {', '.join(VIEW_BY_NAME)}")
    return view


def entity_id(key: EntityKeyProto) -> str:
    """The id in an entity key; ValueError unless it is one string."""
    values = list(key.entity_values)
    if len(values) != 1 or values[0].WhichOneof("val") != "string_val":
        raise ValueError(f"expected one string as entity key, got {list(key.join_keys)} = {values}")
    text: str = values[0].string_val
    return text


def feast_rows(found: Snapshot, requested: Sequence[str] | None) -> list[FeastRow]:
    """Protos made column by column; `requested` are feature names, None means all."""
    there = [place for place, blob in enumerate(found.blobs) if blob is not None]
    fields = _requested(found.view, requested)
    texts = _texts(found) if any(field in found.view.strings for field in fields) else {}
    columns = [texts[field.name] if field.name in texts else _numbers(found, field, there) for field in fields]
    times = found.fixed["event_time"][there].tolist()
    rows: list[FeastRow] = [(None, None)] * len(found.blobs)
    names = [field.name for field in fields]
    for place, time, *values in zip(there, times, *columns, strict=True):
        rows[place] = (_EPOCH + timedelta(milliseconds=time), dict(zip(names, values, strict=True)))
    return rows


def _requested(view: View, names: Sequence[str] | None) -> list[Field]:
    if names is None:
        return list(view.fields)
    fields = {field.name: field for field in view.fields}
    if unknown := [name for name in names if name not in fields]:
        raise UnknownView(f"feature view {view.name} has no {', '.join(unknown)}: apply its definition again")
    return [fields[name] for name in names]


def _numbers(found: Snapshot, field: Field, there: Sequence[int]) -> list[ValueProto]:
    values = found.columns()[field.name][there].tolist()
    if field.dtype == "int64":
        return [ValueProto() if value == UNKNOWN else ValueProto(int64_val=value) for value in values]
    if field.length > 1:
        return [ValueProto(float_list_val=FloatList(val=value)) for value in values]
    return [ValueProto(float_val=value) for value in values]


def _texts(found: Snapshot) -> dict[str, list[ValueProto]]:
    rows = [[_text(value) for value in row.strings] for row in found.rows() if row is not None]
    return {field.name: [row[column] for row in rows] for column, field in enumerate(found.view.strings)}


def _text(value: str | bytes) -> ValueProto:
    return ValueProto(string_val=value) if isinstance(value, str) else ValueProto(bytes_val=value)
