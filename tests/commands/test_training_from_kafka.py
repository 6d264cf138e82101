"""`train --from-kafka`: what a shop published to a broker becomes weights that an export takes."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.views import HOUR_MS, MINUTE_MS, NUMERIC_FIELDS
from serving.datasets.drawing import draw
from serving.model.export import export
from serving.model.training.config import LogConfig
from serving.requests import MODELS
from streams import topics
from streams.client import Connection, Publisher, Registrar
from streams.commands.shop_log import read_lists
from streams.local.tansu import TansuBroker
from streams.media import MediaStore
from streams.settings import Settings
from tests.commands.conftest import Invoke
from tests.parts import running

pytestmark = pytest.mark.parts

START_MS = 1_700_000_000_000
COLOURS = ("white", "black", "red", "blue", "green")
PRODUCTS = tuple(f"shirt-{number}" for number in range(20))
SETS = 40
CLICKS = NUMERIC_FIELDS.index("clicks_24h")


def colour_of(product: str) -> str:
    return COLOURS[int(product.removeprefix("shirt-")) % len(COLOURS)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker with the log of a shop: whoever asks for a colour clicks on it, and buys now and then."""
    folder = tmp_path_factory.mktemp("shop")
    with running(TansuBroker(folder)) as broker:
        settings = Settings(kafka=broker.address, kafka_kind="tansu", media=f"file://{folder}/media", partitions=2)
        topics.create(settings)
        connection = Connection.from_settings(settings)
        media = MediaStore(settings.media)
        with Publisher(connection) as publisher, Registrar(connection) as registrar:
            publisher.publish_many(
                Product(
                    product_id=name,
                    event_time=START_MS,
                    title=f"{colour_of(name)} shirt",
                    price=1000 + number,
                    image=media.put(draw("t-shirt", colour_of(name), Random(number))),
                )
                for number, name in enumerate(PRODUCTS)
            )
            for number in range(SETS):
                register(registrar, number)
            publisher.publish_many(event for number in range(SETS) for event in visit(number))
        yield settings


def register(registrar: Registrar, number: int) -> None:
    registrar.register(
        ResultSet(
            result_set_id=f"set-{number}",
            event_time=START_MS + HOUR_MS + number * MINUTE_MS,
            kind="search",
            query=f"{COLOURS[number % len(COLOURS)]} shirt",
            candidates=[(name, 1.0) for name in Random(number).sample(PRODUCTS, 10)],
            user_id=f"user-{number % 3}",
        )
    )


def visit(number: int) -> list[Behavior]:
    """What comes of a set: impressions, and a click on each product of the colour that was asked for."""
    shown = Random(number).sample(PRODUCTS, 10)
    time = START_MS + HOUR_MS + number * MINUTE_MS

    def event(kind: str, product: str, after_ms: int, place: int) -> Behavior:
        return Behavior(
            type=kind,  # type: ignore[arg-type]
            event_id=f"{number}/{kind}/{product}",
            product_id=product,
            event_time=time + after_ms,
            user_id=f"user-{number % 3}",
            result_set_id=f"set-{number}",
            position=place,
        )

    wanted = [name for name in shown if colour_of(name) == COLOURS[number % len(COLOURS)]]
    return [
        *(event("impression", name, 10, place) for place, name in enumerate(shown)),
        *(event("click", name, 5_000, shown.index(name)) for name in wanted),
        *(event("purchase", name, 9_000, shown.index(name)) for name in wanted[:1]),
    ]


@pytest.fixture
def environment(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands talk to the shop's broker."""
    for name in ("kafka", "kafka_kind", "media", "partitions"):
        monkeypatch.setenv(f"FRESHRANK_{name.upper()}", str(getattr(shop, name)))


def test_lists_are_what_was_shown(shop: Settings) -> None:
    found, ends = read_lists(shop, LogConfig(), None, lambda stage, done, total: None)
    by_time = {one.time_ms: one for one in found.lists}
    assert len(by_time) == len(found.lists)
    last = by_time[START_MS + HOUR_MS + (SETS - 1) * MINUTE_MS + 10]
    assert last.query == f"{COLOURS[(SETS - 1) % len(COLOURS)]} shirt"
    names = [found.products[row].title for row in last.items]
    assert [name == last.query for name in names] == (last.bought > 0).tolist()
    clicks = [
        sum(event.product_id == name and event.type == "click" for n in range(SETS - 1) for event in visit(n))
        for name in sorted(Random(SETS - 1).sample(PRODUCTS, 10))
    ]
    np.testing.assert_array_equal(last.numeric[:, CLICKS], clicks)
    assert last.history
    assert all(product.image for product in found.products)
    assert {name.partition("/")[0] for name in ends} == {"catalog", "behavior", "result-sets"}


@pytest.mark.usefixtures("environment")
def test_weights_from_kafka_are_exported(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("train", "--from-kafka", "--weights", tmp_path / "w", "--epochs", "2", "--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["log"]["lists"] > 0
    assert 0 <= report["log"]["model"] <= 1
    assert export(tmp_path / "w", tmp_path / "repository") == dict.fromkeys(MODELS, 1)


def test_what_is_published_later_is_not_in_a_training_that_goes_on(shop: Settings) -> None:
    before, ends = read_lists(shop, LogConfig(), None, lambda stage, done, total: None)
    connection = Connection.from_settings(shop)
    with Publisher(connection) as publisher, Registrar(connection) as registrar:
        register(registrar, SETS)
        publisher.publish_many(visit(SETS))
    again, _ = read_lists(shop, LogConfig(), ends, lambda stage, done, total: None)
    later, _ = read_lists(shop, LogConfig(), None, lambda stage, done, total: None)
    assert len(again.lists) == len(before.lists) < len(later.lists)


def test_by_arrival_nothing_is_known_of_what_came_in_later(shop: Settings) -> None:
    """This log came long after what it tells of, so in no moment of it anything had arrived."""
    found, _ = read_lists(shop, LogConfig(by_arrival=True), None, lambda stage, done, total: None)
    assert found.lists
    assert {product.title for product in found.products} == {""}
