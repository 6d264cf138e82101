"""Feast as its documentation has it: the same feature views on Feast's own Redis store, in their own repository."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from feast import FeatureService, FeatureStore, RepoConfig
from numpy.typing import NDArray

from feature_repo import definitions
from feature_repo.reading import Snapshot
from feature_repo.views import EMBEDDING_DIM, LIKENESS, LIKENESS_DIM, MODALITIES, PRODUCT_FIELDS, UNKNOWN, View
from serving.requests import ScoreRequest

#: Feast's rows lie in a database of their own of the same Redis
DATABASE = 1
WRITTEN_ROWS = 1_000


def feast_store(redis_address: str, folder: Path) -> FeatureStore:
    """The engine's views, applied to a store of type `redis`; its registry is a file in `folder`."""
    # counts of usage are sent nowhere
    os.environ["FEAST_USAGE"] = "False"
    folder.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project="textbook",
        provider="local",
        registry={"registry_type": "file", "path": str(folder / "registry.db"), "cache_ttl_seconds": 0},
        online_store={"type": "redis", "connection_string": f"{redis_address},db={DATABASE}"},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    definitions.apply(store)
    return store


def ranker_service() -> FeatureService:
    """What the ranker reads of every candidate."""
    return definitions.ranker_v1


def frame(view: View, entities: Sequence[str], found: Snapshot) -> pd.DataFrame:
    """Rows of the engine as the DataFrame that `write_to_online_store` takes; rows that are missing are left out."""
    there = [place for place, blob in enumerate(found.blobs) if blob is not None]
    columns = found.columns()[there]
    table: dict[str, Any] = {"product_id": [entities[place] for place in there]}
    for field in (*view.ints, *view.floats):
        table[field.name] = columns[field.name].tolist()
    rows = [row for row in found.rows() if row is not None]
    for place, field in enumerate(view.strings):
        table[field.name] = [row.strings[place] for row in rows]
    table["event_time"] = [datetime.now(UTC)] * len(there)
    return pd.DataFrame(table)


def fill(store: FeatureStore, view: View, table: pd.DataFrame) -> None:
    """Write rows by Feast's own API, a thousand at a time."""
    for start in range(0, len(table), WRITTEN_ROWS):
        store.write_to_online_store(view.name, table.iloc[start : start + WRITTEN_ROWS])


def numbers_of(columns: dict[str, list[Any]], request: ScoreRequest) -> None:
    """Put what `get_online_features(...).to_dict()` gave into a request, row by row; what is missing stays unknown."""
    for place, name in enumerate(PRODUCT_FIELDS):
        unknown = UNKNOWN if name == "price" else 0.0
        request.numeric[:, place] = [unknown if value is None else value for value in columns[name]]
    for place, name in enumerate(MODALITIES):
        request.content[:, place] = _vectors(columns[name], request.content.shape[2])
    wide = _vectors(columns["likeness"], LIKENESS_DIM)
    request.content[:, LIKENESS] = wide.reshape(len(wide), len(LIKENESS), EMBEDDING_DIM)
    request.mask[:] = _vectors(columns["mask"], len(MODALITIES))


def _vectors(values: list[Any], width: int) -> NDArray[np.float32]:
    nothing = [0.0] * width
    return np.array([nothing if value is None else value for value in values], np.float32)
