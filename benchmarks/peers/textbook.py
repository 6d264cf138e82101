"""The textbook build: one plain Faust agent over Feast's own API and one Triton call.

    price event -> write_to_online_store_async -> get_online_features_async of all candidates of the sets that hold the
    product -> one Triton call of all their rows -> a ranking for each set

Written in its favour: sets, their queries and catalog rows are held in memory, products that several sets share are
read once, nothing else is waited for, and rankings are sent without awaiting each acknowledgement.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiokafka
import faust
import msgpack
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from faust.transport.drivers import aiokafka as driver
from numpy.typing import NDArray

from benchmarks.peers.feast_redis import feast_store, fill, frame, numbers_of, ranker_service
from benchmarks.telling import arguments, tell
from feature_repo.reading import RowReader
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, PRODUCT_CONTENT
from serving.ranking import order, rounded
from serving.requests import Scorer, ScoreRequest, empty_request
from serving.scorer import triton_scorer
from serving.settings import ServingSettings
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class Candidates:
    """A live set; the query vector is made when it is registered."""

    set_id: str
    product_ids: list[str]
    retrieval: NDArray[np.float32]
    query: NDArray[np.float32]


class Textbook:
    """What the agent holds."""

    def __init__(self, settings: Settings, redis_address: str, folder: Path) -> None:
        self._settings = settings
        self.store = feast_store(redis_address, folder)
        self.scorer: Scorer = triton_scorer(ServingSettings())
        self.holding: defaultdict[str, list[Candidates]] = defaultdict(list)
        self.catalog: dict[str, dict[str, Any]] = {}

    def read_products(self, products: list[str]) -> None:
        """The rows that the engine has, written by Feast's API: both sides begin with the same features."""
        reader = RowReader(self._settings.redis.get_secret_value())
        for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR, PRODUCT_CONTENT):
            table = frame(view, products, reader.read(view, products))
            fill(self.store, view, table)
            if view is PRODUCT_CATALOG:
                self.catalog = {row["product_id"]: row for row in table.to_dict("records")}
        reader.close()

    async def register(self, sets: list[tuple[str, str, list[tuple[str, float]]]]) -> None:
        """Hold sets: (id, query, candidates)."""
        queries = await self.scorer.encode_queries([query for _, query, _ in sets])
        for (set_id, _, candidates), vector in zip(sets, queries, strict=True):
            ordered = sorted(candidates)
            ids = [product_id for product_id, _ in ordered]
            live = Candidates(set_id, ids, np.array([score for _, score in ordered], np.float32), vector)
            for product_id in ids:
                self.holding[product_id].append(live)

    async def rank(self, patch: dict[str, Any]) -> list[tuple[str, bytes]]:
        """What follows from one price event: (set id, ranking) of every set that holds the product."""
        row = self.catalog[patch["product_id"]]
        row.update(price=patch["price"], event_time=datetime.now(UTC))
        await self.store.write_to_online_store_async(PRODUCT_CATALOG.name, pd.DataFrame([row]))
        sets = self.holding.get(patch["product_id"], [])
        if not sets:
            return []
        products = sorted({product_id for live in sets for product_id in live.product_ids})
        found = await self.store.get_online_features_async(
            ranker_service(), [{"product_id": product_id} for product_id in products]
        )
        columns = found.to_dict()
        known = empty_request(1, len(products))
        numbers_of(columns, known)
        place = {product_id: at for at, product_id in enumerate(products)}
        rows = np.array([place[product_id] for live in sets for product_id in live.product_ids])
        counts = [len(live.product_ids) for live in sets]
        scores = rounded((await self.scorer.score(_request(sets, known, rows, counts))).logit)
        stock = np.array([-1 if value is None else value for value in columns["stock"]], np.int64)[rows]
        return list(self._rankings(patch["number"], sets, scores, stock, counts))

    def _rankings(
        self, number: int, sets: list[Candidates], scores: NDArray[Any], stock: NDArray[np.int64], counts: list[int]
    ) -> Any:
        start = 0
        for live, count in zip(sets, counts, strict=True):
            end = start + count
            ranked = order(scores[start:end], stock[start:end])
            yield (
                live.set_id,
                msgpack.packb(
                    {
                        "number": number,
                        "result_set_id": live.set_id,
                        "product_ids": [live.product_ids[at] for at in ranked.tolist()],
                        "scores": scores[start:end][ranked].astype(np.float32).tobytes(),
                    }
                ),
            )
            start = end


def _request(sets: list[Candidates], known: ScoreRequest, rows: NDArray[np.int64], counts: list[int]) -> ScoreRequest:
    request = empty_request(len(sets), len(rows))
    request.query[:] = np.stack([live.query for live in sets])
    request.content[:], request.mask[:], request.numeric[:] = known.content[rows], known.mask[rows], known.numeric[rows]
    request.retrieval[:] = np.concatenate([live.retrieval for live in sets])
    request.set_index[:] = np.repeat(np.arange(len(sets)), counts)
    return request


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust waits for a fetch for 1.5 s, which the embedded broker answers at the half: not the peer's fault."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = Settings().fetch_wait_ms
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


async def main(prices: str, rankings: str, sets: str, redis: str, folder: str) -> None:
    """Follow the topic `prices` for ever. `sets` is a file of the world: products and sets."""
    settings = Settings()
    book = Textbook(settings, redis, Path(folder))
    products, registered = msgpack.unpackb(Path(sets).read_bytes(), use_list=True)
    book.read_products(products)
    await book.register(registered)
    app = faust.App(
        "textbook",
        broker=f"kafka://{settings.kafka}",
        datadir=str(Path(folder) / "faust"),
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
        broker_request_timeout=40.0,
        producer_request_timeout=30.0,
    )
    app.transport = _Transport(app.conf.broker, app, loop=app.loop)
    target = app.topic(rankings, key_serializer="raw", value_serializer="raw")

    @app.agent(app.topic(prices, key_serializer="raw", value_serializer="raw"))
    async def rerank(events: Any) -> None:
        async for value in events:
            for set_id, ranking in await book.rank(msgpack.unpackb(value)):
                await target.send(key=set_id.encode(), value=ranking)

    await app.start()
    while not app.consumer.assignment():
        await asyncio.sleep(0.05)
    tell(ready=True)
    await app.wait_until_stopped()


if __name__ == "__main__":
    asyncio.run(main(**arguments()))
