"""docs/reference/features.md: its tables are views.py, and its examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_repo.row_store import Marker, RowStore
from feature_repo.views import DAY_MS, PRODUCT_BEHAVIOR, PRODUCT_CATALOG, VIEWS, View
from streams.local.redis_server import RedisServer
from tests.feature_repo.rows import new_space, write_of
from tests.parts import running

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "features.md").read_text()


def expected(view: View) -> list[str]:
    """The lines that the page has for a view, but for its introduction."""
    ttl, slo = view.ttl_ms // DAY_MS, f"{view.slo_ms / 1000:g}"
    head = f"key `{view.entity}_id`, from topic `{view.topic}`, ttl {ttl} days, readable {slo} s after the event (SLO)"
    rows = [
        f"| `{field.name}` | {field.dtype}{f'[{field.length}]' if field.length > 1 else ''} | {field.about} |"
        for field in view.fields
    ]
    return [head, "| feature | type | meaning |", "|---|---|---|", *rows]


def test_the_tables_are_the_views() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^###|\Z)", PAGE, re.DOTALL | re.MULTILINE))
    assert list(sections) == [view.name for view in VIEWS]
    for view in VIEWS:
        _introduction, *lines = [line for line in sections[view.name].split("\n\n") if line.strip()]
        assert "\n\n".join(lines).replace("\n\n", "\n").strip().splitlines() == expected(view)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running(RedisServer(tmp_path)) as server:
        yield server


@pytest.mark.parts
async def test_the_examples_run(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRESHRANK_REDIS", f"redis://{own_redis.address}")
    monkeypatch.setenv("FRESHRANK_REGISTRY", str(tmp_path / "registry.db"))
    store = RowStore(f"redis://{own_redis.address}")
    for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR):
        space = new_space(view)
        await store.flush(space, 0, b"", Marker(1).encode(), [write_of(view, "85123A", 4)], None)
        await store.publish_space(space)
    await store.close()
    for example in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(example, "docs/reference/features.md", "exec"), {})
    feast, bulk = capsys.readouterr().out.splitlines()
    assert feast == "{'product_id': ['85123A'], 'price': [400], 'sales_24h': [4.25]}"
    assert bulk == "[4.25 0.  ] [ True False]"
