"""All Feast objects, made from views.py, in one file: split files make Feast register them twice.

    freshrank's workers fill the views  ->  feature_store().get_online_features(...) reads them

Apply them with `apply(feature_store())`. The environment says where things are: FRESHRANK_REDIS (the rows) and
FRESHRANK_REGISTRY (a file, or the URL of an SQL database in production).
"""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureStore, FeatureView, FileSource, PushSource, RepoConfig, ValueType
from feast import Field as FeastField
from feast.types import Array, Bytes, FeastType, Float32, Int64, String
from pydantic import SecretStr

from feature_repo import views
from feature_repo.online_store import FreshrankOnlineStoreConfig, redis_url
from feature_repo.views import Field, View

PROJECT = "freshrank"
REGISTRY = ".freshrank/registry.db"
HISTORY = ".freshrank/history"

_TYPES: dict[str, FeastType] = {"int64": Int64, "float32": Float32, "string": String, "bytes": Bytes}


def _feast_field(field: Field) -> FeastField:
    dtype = _TYPES[field.dtype]
    return FeastField(name=field.name, dtype=Array(dtype) if field.length > 1 else dtype, description=field.about)


def _feature_view(view: View, entity: Entity) -> FeatureView:
    # Feast wants a source for a view that is filled from outside: it is never pushed to (a row has one writer), and the
    # file behind it is where an export of the view's history would lie.
    history = FileSource(
        name=f"{view.name}_history", path=f"{HISTORY}/{view.name}.parquet", timestamp_field="event_time"
    )
    source = PushSource(
        name=f"{view.name}_rows", batch_source=history, description=f"made by the engine from topic {view.topic}"
    )
    join_key = FeastField(name=entity.join_key, dtype=String, description=entity.description)
    return FeatureView(
        name=view.name,
        entities=[entity],
        schema=[join_key, *(_feast_field(field) for field in view.fields)],
        ttl=timedelta(milliseconds=view.ttl_ms),
        online=True,
        source=source,
        description=f"one row a {view.entity}, made from the topic {view.topic}",
        tags={"topic": view.topic, "slo_ms": str(view.slo_ms)},
    )


product = Entity(
    name="product", join_keys=["product_id"], value_type=ValueType.STRING, description="product id of the shop"
)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="user id of the shop")

product_catalog = _feature_view(views.PRODUCT_CATALOG, product)
product_behavior = _feature_view(views.PRODUCT_BEHAVIOR, product)
product_content = _feature_view(views.PRODUCT_CONTENT, product)
user_behavior = _feature_view(views.USER_BEHAVIOR, user)

#: a service names the order of the ranker's inputs that it belongs to, as a model bundle does
_INPUTS = {"input_hash": views.input_hash()}

ranker_v1 = FeatureService(
    name="ranker_v1",
    features=[
        product_catalog[[*views.PRICE_FIELDS, "stock", "delisted"]],
        product_behavior,
        product_content[[*views.MODALITIES, "likeness", "mask"]],
    ],
    description="what the ranker reads of every candidate, by product_id",
    tags=_INPUTS,
)
ranker_user_v1 = FeatureService(
    name="ranker_user_v1",
    features=[user_behavior[["history"]]],
    description="what the user's vector is made of, by user_id",
    tags=_INPUTS,
)

ENTITIES = (product, user)
FEATURE_VIEWS = (product_catalog, product_behavior, product_content, user_behavior)
FEATURE_SERVICES = (ranker_v1, ranker_user_v1)


def feature_store(*, redis: str | None = None, registry: str | None = None) -> FeatureStore:
    """The feature store of this environment. `registry` is a path, or an SQL URL such as postgresql+psycopg://..."""
    where = registry or os.environ.get("FRESHRANK_REGISTRY", REGISTRY)
    online = FreshrankOnlineStoreConfig(redis_url=SecretStr(redis) if redis else redis_url())
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"registry_type": "sql" if "://" in where else "file", "path": where},
        online_store=online,
        entity_key_serialization_version=3,
        repo_path=Path.cwd(),
    )
    return FeatureStore(config=config)


def apply(store: FeatureStore) -> None:
    """Register entities, views and services; doing it again changes nothing."""
    store.apply([*ENTITIES, *FEATURE_VIEWS, *FEATURE_SERVICES])
