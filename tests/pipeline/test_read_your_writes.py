"""What was published and waited for is known to every set that is registered afterwards."""

from __future__ import annotations

import time

import pytest

from feature_repo.events import Product, ResultSet
from streams.client import ClosedSet, Connection, FreshRanking, Publisher, RankingsReader, Registrar
from streams.local.engine import LocalEngine
from streams.progress import Progress
from tests.pipeline.conftest import Verify
from tests.pipeline.shop import Shop

pytestmark = [pytest.mark.parts, pytest.mark.timeout(240)]

ROUNDS = 8


def test_a_set_registered_after_the_wait_knows_what_was_published(
    engine: LocalEngine, shop: Shop, verify: Verify
) -> None:
    """Each round delists one of the products that the next set names: its first ranking is without it."""
    settings = engine.settings
    connection = Connection.from_settings(settings)
    candidates = [(shop.product_id(number), 1.0) for number in range(shop.candidates)]
    with Publisher(connection) as publisher, Registrar(connection) as registrar, RankingsReader(connection) as reader:
        for number in range(ROUNDS):
            gone = shop.product_id(number)
            publisher.publish(Product(product_id=gone, event_time=shop.begins_ms + number, delisted=True))
            Progress(settings).wait_for(publisher.flush(), timeout_s=30)
            name = f"{shop.name}-after-{number}"
            registrar.register(
                ResultSet(result_set_id=name, event_time=shop.begins_ms, kind="search", candidates=candidates)
            )
            registrar.flush()
            first = first_ranking(reader, name)
            left = {product_id for product_id, _ in candidates[number + 1 :]}
            assert {item.product_id for item in first.items} == left
    verify()


def first_ranking(reader: RankingsReader, name: str) -> FreshRanking:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for news in reader.follow(idle_s=0.5):
            if news.result_set_id == name and not isinstance(news, ClosedSet):
                return news
    raise AssertionError(f"no ranking of {name}")
