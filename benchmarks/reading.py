"""What one read of online features costs: in bulk as NumPy arrays, and through Feast. On a Redis of its own.

python benchmarks/reading.py
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from feature_repo.definitions import apply, feature_store
from feature_repo.reading import RowReader
from feature_repo.row import pack_row
from feature_repo.row_store import ROWS_PER_SCRIPT, Marker, RowStore, RowWrite, Space, Stored
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, PRODUCT_CONTENT, View
from streams.local.redis_server import RedisServer

ROWS = (1, 100, 1000)
REPEATS = 21
TIME = 1_300_000_000_000


async def fill(url: str, view: View, entities: Sequence[str]) -> None:
    """Rows as the engine writes them."""
    store, space = RowStore(url), Space("benchmark", "topic", view.name)
    blob = pack_row(
        view,
        as_of=TIME,
        event_time=TIME,
        kafka_time=TIME,
        ints=[7] * len(view.ints),
        floats=[0.5] * view.float_width,
        strings=["text" if field.dtype == "string" else b"bytes" for field in view.strings],
        stamps={0: 1},
    )
    rows = [RowWrite(entity, b"", blob, Stored({0: 1}, TIME, TIME, b""), None) for entity in entities]
    for start in range(0, len(rows), ROWS_PER_SCRIPT):
        await store.flush(space, 0, b"", b"", rows[start : start + ROWS_PER_SCRIPT], None)
    await store.flush(space, 0, b"", Marker(2).encode(), [], None)
    await store.publish_space(space)
    await store.close()


def median_ms(read: Callable[[], object]) -> float:
    """Median of repeated calls, the first left out."""
    read()
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        read()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def measure(url: str, registry: Path) -> None:
    """Print the table."""
    entities = [f"p{n}" for n in range(max(ROWS))]
    for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT):
        asyncio.run(fill(url, view, entities))
    store, reader = feature_store(redis=url, registry=str(registry)), RowReader(url)
    apply(store)
    service = store.get_feature_service("ranker_v1")
    behavior = [f"{PRODUCT_BEHAVIOR.name}:{field.name}" for field in PRODUCT_BEHAVIOR.fields]
    click.echo("| rows | `read_arrays`, product_behavior | Feast, product_behavior | Feast, service ranker_v1 |")
    click.echo("|---|---|---|---|")
    for count in ROWS:
        asked = entities[:count]
        keys = [{"product_id": entity} for entity in asked]
        taken = [
            median_ms(lambda asked=asked: reader.read_arrays(PRODUCT_BEHAVIOR, asked)),  # type: ignore[misc]
            median_ms(lambda keys=keys: store.get_online_features(behavior, keys)),  # type: ignore[misc]
            median_ms(lambda keys=keys: store.get_online_features(service, keys)),  # type: ignore[misc]
        ]
        click.echo(f"| {count} | " + " | ".join(f"{ms:.2f} ms" for ms in taken) + " |")
    reader.close()


def main() -> None:
    """Start a Redis, measure, stop it."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            server.ready(10)
            measure(f"redis://{server.address}", Path(folder) / "registry.db")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
