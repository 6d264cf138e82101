"""Feast's objects say what views.py says, and both of Feast's doors, Python and its command line, see the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_repo.views import VIEWS, View, input_hash

pytestmark = pytest.mark.parts  # feast alone takes some ten seconds to import

FEATURE_REPO = Path(__file__).parents[2] / "feature_repo"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_feature_view_is_its_view(view: View) -> None:
    from feature_repo import definitions

    found = getattr(definitions, view.name)
    types = {"int64": "Int64", "float32": "Float32", "string": "String", "bytes": "Bytes"}
    assert [(field.name, str(field.dtype), field.description) for field in found.features] == [
        (field.name, types[field.dtype] if field.length == 1 else f"Array({types[field.dtype]})", field.about)
        for field in view.fields
    ]
    assert [field.name for field in found.entity_columns] == [f"{view.entity}_id"]
    assert (found.entities, found.online) == ([view.entity], True)
    assert found.ttl.total_seconds() * 1000 == view.ttl_ms
    assert found.tags == {"topic": view.topic, "slo_ms": str(view.slo_ms)}


@pytest.mark.parametrize("registry", ["{}/registry.db", "sqlite:///{}/registry.sqlite"])
def test_a_registry_is_a_file_or_a_database(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_repo.definitions import FEATURE_SERVICES, FEATURE_VIEWS, apply, feature_store

    monkeypatch.setenv("FRESHRANK_REGISTRY", registry.format(tmp_path))
    for _ in range(2):
        apply(feature_store())
        found = feature_store()
        assert {view.name: view for view in found.list_feature_views()} == {view.name: view for view in FEATURE_VIEWS}
        assert {s.name for s in found.list_feature_services()} == {s.name for s in FEATURE_SERVICES}
        assert {entity.name for entity in found.list_entities()} == {"product", "user"}
    assert found.get_feature_service("ranker_v1").tags == {"input_hash": input_hash()}
    assert len(list(tmp_path.iterdir())) == 1


def test_redis_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_repo.definitions import feature_store

    monkeypatch.setenv("FRESHRANK_REDIS", "rediss://:hidden@redis.example:6380/2")
    config = feature_store().config
    assert config.online_store.redis_url.get_secret_value() == "rediss://:hidden@redis.example:6380/2"
    assert "hidden" not in repr(config) + str(config.online_store)
    monkeypatch.delenv("FRESHRANK_REDIS")
    assert feature_store().config.online_store.redis_url.get_secret_value() == "redis://127.0.0.1:6379/0"


def test_the_command_line_has_the_same_store(monkeypatch: pytest.MonkeyPatch) -> None:
    from feast.repo_config import load_repo_config

    from feature_repo.definitions import REGISTRY, feature_store

    monkeypatch.delenv("FRESHRANK_REGISTRY", raising=False)
    line = load_repo_config(FEATURE_REPO, FEATURE_REPO / "feature_store.yaml")
    ours = feature_store().config
    assert (line.project, line.provider, line.online_store) == (ours.project, ours.provider, ours.online_store)
    assert line.entity_key_serialization_version == ours.entity_key_serialization_version
    assert (FEATURE_REPO / line.registry.path).resolve() == (FEATURE_REPO.parent / REGISTRY).resolve()


def test_feast_apply_sees_one_file_and_in_it_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `feast apply` does not find in the folder it deletes from the registry."""
    from feast.repo_operations import get_repo_files, parse_repo

    from feature_repo.definitions import ENTITIES, FEATURE_SERVICES, FEATURE_VIEWS

    monkeypatch.chdir(FEATURE_REPO)
    monkeypatch.syspath_prepend(str(FEATURE_REPO))
    assert get_repo_files(FEATURE_REPO) == [FEATURE_REPO / "definitions.py"]
    found = parse_repo(FEATURE_REPO)
    assert {view.name for view in found.feature_views} == {view.name for view in FEATURE_VIEWS}
    assert {service.name for service in found.feature_services} == {service.name for service in FEATURE_SERVICES}
    assert {entity.name for entity in found.entities} >= {entity.name for entity in ENTITIES}
