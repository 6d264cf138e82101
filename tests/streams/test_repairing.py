"""A row that was planted in the store behind everyone's back is mended after a minute, and counted."""

import numpy as np
import pytest

from feature_repo.events import ResultSet
from feature_repo.row import pack_row
from feature_repo.views import PRODUCT_CATALOG
from streams.dirty import Since
from streams.minute import KEEP_MS
from streams.records import Change
from streams.repairing import RepairWalk, Suspects
from streams.reranking import Reranker


def catalog(price: int, version: int) -> bytes:
    """A row of product_catalog at an offset."""
    return pack_row(
        PRODUCT_CATALOG,
        as_of=version,
        event_time=version,
        kafka_time=version,
        ints=[price, price, 5, 0],
        floats=[],
        strings=["title", "", "", "GBP"],
        stamps={0: version},
    )


class World:
    """A reranker with one set of one product, a store that holds what it is told, and a clock."""

    def __init__(self) -> None:
        self.now = 1_000
        self.reranker = Reranker()
        self.store: dict[tuple[str, str], bytes] = {}
        self.is_away = False
        self.counted: list[tuple[str, int]] = []
        registration = ResultSet(result_set_id="s", event_time=1, kind="search", candidates=[("p", 1.0)])
        needs = self.reranker.register(registration, b"s", 0)
        assert needs is not None
        self.take(Change(PRODUCT_CATALOG.name, "p", catalog(100, 1)))
        self.reranker.begin(needs.live)

    async def read(self, view: str, entities: list[str]) -> list[bytes | None] | None:
        return None if self.is_away else [self.store.get((view, entity)) for entity in entities]

    def take(self, change: Change) -> None:
        self.reranker.apply_change(change, Since())

    def walk(self) -> RepairWalk:
        return RepairWalk(
            lambda: self.reranker,
            self.read,  # type: ignore[arg-type]
            self.take,
            lambda view, values: self.counted.append((view, values)),
            lambda: self.now,
        )

    @property
    def price(self) -> int:
        return int(self.reranker.rows.price[self.reranker.rows.slots["p"]])


@pytest.fixture
def world() -> World:
    return World()


async def test_a_planted_row_is_mended_after_a_minute_and_counted(world: World) -> None:
    walk = world.walk()
    world.store[PRODUCT_CATALOG.name, "p"] = catalog(250, 2)
    await walk.look_at("s")
    world.now += KEEP_MS
    await walk.look_at("s")
    assert (world.price, world.counted) == (100, [])
    world.now += 1
    await walk.look_at("s")
    assert (world.price, world.counted) == (250, [(PRODUCT_CATALOG.name, 1)])
    assert world.reranker.is_dirty


async def test_a_change_that_arrives_meanwhile_is_no_repair(world: World) -> None:
    walk = world.walk()
    world.store[PRODUCT_CATALOG.name, "p"] = catalog(250, 2)
    await walk.look_at("s")
    world.take(Change(PRODUCT_CATALOG.name, "p", catalog(250, 2)))
    world.now += 2 * KEEP_MS
    await walk.look_at("s")
    world.store[PRODUCT_CATALOG.name, "p"] = catalog(300, 3)
    await walk.look_at("s")
    assert (world.price, world.counted) == (250, [])


@pytest.mark.parametrize(("price", "version"), [(100, 2), (250, 0)])
async def test_same_values_or_an_older_row_are_not_ahead(world: World, price: int, version: int) -> None:
    walk = world.walk()
    world.store[PRODUCT_CATALOG.name, "p"] = catalog(price, version)
    await walk.look_at("s")
    world.now += 2 * KEEP_MS
    await walk.look_at("s")
    assert (world.price, world.counted) == (100, [])


async def test_a_store_that_is_away_says_nothing(world: World) -> None:
    walk = world.walk()
    world.store[PRODUCT_CATALOG.name, "p"] = catalog(250, 2)
    world.is_away = True
    await walk.look_at("s")
    world.now += 2 * KEEP_MS
    world.is_away = False
    await walk.look_at("s")
    assert world.counted == []


async def test_sets_that_are_gone_or_not_loaded_are_passed_over(world: World) -> None:
    walk = world.walk()
    world.reranker.remove("s")
    await walk.look_at("s")
    assert world.counted == []


def test_suspects_forget_what_was_told() -> None:
    suspects = Suspects()
    assert list(suspects.see(0, "view", [("a", 1), ("b", 1)])) == []
    assert list(suspects.see(KEEP_MS + 1, "view", [("a", 1), ("b", None)])) == ["a"]
    assert list(suspects.see(KEEP_MS + 2, "view", [("a", 1), ("b", 1)])) == []


def test_a_busy_row_that_is_behind_twice_was_not_missed() -> None:
    suspects = Suspects()
    assert list(suspects.see(0, "view", [("a", 1)])) == []
    assert list(suspects.see(KEEP_MS + 1, "view", [("a", 2)])) == []
    assert list(suspects.see(2 * KEEP_MS + 2, "view", [("a", 2)])) == ["a"]


def test_behaviour_and_content_are_compared_by_value() -> None:
    from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CONTENT

    reranker = Reranker()
    slot, _ = reranker.rows.acquire("p")
    for view in (PRODUCT_BEHAVIOR, PRODUCT_CONTENT):
        numbers = np.zeros(view.float_width, np.float32)
        numbers[0] = 3.0
        blob = pack_row(
            view, as_of=1, event_time=1, kafka_time=1, ints=[], floats=numbers, strings=["", ""], stamps={0: 1}
        )
        assert reranker.rows.is_behind(view.name, slot, blob)
        reranker.rows.put(view.name, slot, blob)
        assert not reranker.rows.is_behind(view.name, slot, blob)
