"""Lists of a log know what was visible before their moment, and nothing more."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.views import DAY_MS, HOUR_MS, NUMERIC_FIELDS, PRICE_FIELDS
from serving.model.dataset import RankedList, Shop, click_rates_of
from serving.model.log_lists import BATCH_MS, GRADES, Told, log_lists

HORIZON_MS = DAY_MS
MOMENT = 100 * DAY_MS
LATE_MS = 5_000
TESTED = 0.5
PRICE, SALES, CLICKS, VIEWS = (NUMERIC_FIELDS.index(name) for name in ("price", "sales_24h", "clicks_24h", "views_24h"))


class Log:
    """Records with places of their own, visible LATE_MS after they happened."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def add(self, record: Product | Behavior | ResultSet, visible_ms: int | None = None) -> None:
        visible = record.event_time + LATE_MS if visible_ms is None else visible_ms
        self.told.append(Told(record, visible, (len(self.told), 0, 0)))

    def product(self, name: str, time: int = 0, **fields: object) -> None:
        self.add(Product(product_id=name, event_time=time, **fields))  # type: ignore[arg-type]

    def happened(self, kind: str, name: str, time: int, set_id: str | None = None, user: str | None = None) -> None:
        event = Behavior(
            type=kind,  # type: ignore[arg-type]
            event_id=f"e{len(self.told)}",
            product_id=name,
            event_time=time,
            result_set_id=set_id,
            user_id=user,
        )
        self.add(event)

    def registered(self, set_id: str, time: int, names: Sequence[str], user: str | None = None) -> None:
        candidates = [(name, 1.0 / (1 + place)) for place, name in enumerate(names)]
        self.add(
            ResultSet(
                result_set_id=set_id,
                event_time=time,
                kind="search",
                query="red mug",
                candidates=candidates,
                user_id=user,
            )
        )

    def lists(self) -> Shop:
        return log_lists(self.told, nothing, HORIZON_MS, TESTED)


def nothing(name: str, medium: bytes | str) -> bytes | None:
    """No medium can be had."""
    return None


@pytest.fixture
def log() -> Log:
    """Three products, one of them sold before; a search of ann, who clicks b and buys c."""
    log = Log()
    for name in "abc":
        log.product(name, title=f"mug {name}", price=100)
    log.happened("purchase", "a", MOMENT - HOUR_MS, user="ann")
    log.happened("click", "b", MOMENT - HOUR_MS, user="bob")
    log.registered("s", MOMENT, "cab", user="ann")
    log.happened("click", "b", MOMENT + 60_000, "s", "ann")
    log.happened("purchase", "c", MOMENT + 120_000, "s", "ann")
    return log


def the_list(log: Log) -> RankedList:
    (found,) = log.lists().lists
    return found


def test_a_list_is_what_was_registered_and_what_came_of_it(log: Log) -> None:
    shop = log.lists()
    (one,) = shop.lists
    assert (one.time_ms, one.query) == (MOMENT, "red mug")
    assert [shop.products[row].title for row in one.items] == ["mug a", "mug b", "mug c"]
    np.testing.assert_allclose(one.retrieval, [1 / 2, 1 / 3, 1])
    assert one.numeric[:, PRICE].tolist() == [100, 100, 100]
    assert one.numeric[:, SALES].tolist() == [1, 0, 0]
    assert one.numeric[:, CLICKS].tolist() == [0, 1, 0]
    assert one.bought.tolist() == [0, 1, 1]
    np.testing.assert_allclose(one.relevance, [0, GRADES["click"], GRADES["purchase"]])
    assert [(kind, time) for kind, _, _, time in one.history] == [("purchase", MOMENT - HOUR_MS)]


def test_the_highest_grade_counts(log: Log) -> None:
    log.happened("cart", "b", MOMENT + 70_000, "s", "ann")
    log.happened("click", "b", MOMENT + 80_000, "s", "ann")
    np.testing.assert_allclose(the_list(log).relevance, [0, GRADES["cart"], GRADES["purchase"]])


@pytest.mark.parametrize(
    ("time", "set_id"), [(MOMENT + HORIZON_MS, "s"), (MOMENT - 1, "s"), (MOMENT + 1, None), (MOMENT + 1, "other")]
)
def test_what_did_not_come_of_a_list_is_not_wanted(log: Log, time: int, set_id: str | None) -> None:
    log.happened("purchase", "a", time, set_id, "ann")
    assert the_list(log).bought.tolist() == [0, 1, 1]


def test_a_list_is_judged_again_when_it_is_shown(log: Log) -> None:
    shown = MOMENT + 100_000
    for name, after in (("a", 0), ("b", BATCH_MS - 1)):
        log.happened("impression", name, shown + after, "s", "ann")
    first, second = log.lists().lists
    assert (first.time_ms, second.time_ms) == (MOMENT, shown)
    assert (first.bought.tolist(), second.bought.tolist()) == ([0, 1, 0], [0, 0, 1])
    assert second.numeric[:, CLICKS].tolist() == [0, 2, 0], "the click on b is visible by then"
    assert second.numeric[:, VIEWS].tolist() == [0, 0, 0], "nobody has seen yet that it is shown"


def test_later_impressions_are_another_batch(log: Log) -> None:
    log.happened("impression", "a", MOMENT + 10_000, "s")
    log.happened("impression", "b", MOMENT + 10_000 + BATCH_MS, "s")
    log.happened("click", "a", MOMENT + 10_500, "s")
    assert [one.time_ms for one in log.lists().lists] == [MOMENT + 10_000, MOMENT + 10_000 + BATCH_MS]


def test_a_set_that_is_registered_again_has_other_candidates(log: Log) -> None:
    log.registered("s", MOMENT + 90_000, "ca", user="ann")
    first, second = log.lists().lists
    assert (len(first.items), len(second.items)) == (3, 2)
    assert (first.bought.tolist(), second.bought.tolist()) == ([0, 1, 0], [0, 1])


def test_lists_that_say_nothing_about_an_order_are_left_out(log: Log) -> None:
    log.registered("ignored", MOMENT + 1, "ab")
    log.registered("all", MOMENT + 2, "b")
    log.happened("click", "b", MOMENT + 3, "all")
    log.happened("click", "b", MOMENT + 3, "never registered")
    assert [one.time_ms for one in log.lists().lists] == [MOMENT]


def test_what_was_delisted_is_not_in_the_list(log: Log) -> None:
    log.product("b", MOMENT - HOUR_MS, delisted=True)
    log.product("c", MOMENT + HOUR_MS, delisted=True)
    assert the_list(log).bought.tolist() == [0, 1]


def test_a_product_that_nobody_described_has_no_content() -> None:
    log = Log()
    log.registered("s", MOMENT, "ab")
    log.happened("click", "a", MOMENT + 1, "s")
    shop = log.lists()
    (one,) = shop.lists
    assert one.numeric[:, : len(PRICE_FIELDS)].tolist() == [[-1] * len(PRICE_FIELDS)] * 2
    assert shop.prepared.mask.sum() == 0


# --- no look into the future ---------------------------------------------------------------------------------------


def test_a_change_between_two_lists_is_another_product_row(log: Log) -> None:
    log.product("b", MOMENT + HOUR_MS, title="dear mug", price=900)
    log.registered("t", MOMENT + 2 * HOUR_MS, "ab", user="bob")
    log.happened("click", "a", MOMENT + 2 * HOUR_MS, "t", "bob")
    shop = log.lists()
    first, second = shop.lists
    assert [shop.products[row].title for row in first.items] == ["mug a", "mug b", "mug c"]
    assert [shop.products[row].title for row in second.items] == ["mug a", "dear mug"]
    assert first.numeric[:, PRICE].tolist() == [100, 100, 100]
    assert second.numeric[:, PRICE].tolist() == [100, 900]
    (event,) = second.history
    assert event[1] == shop.products[second.items[1]].product_id, "as it looks now"


def planted(log: Log, happened_ms: int, visible_ms: int) -> None:
    """All that could tell of a purchase of a: counts, a price, a title, what ann did."""
    for kind in ("impression", "click", "cart", "purchase"):
        event = Behavior(type=kind, event_id=f"leak {kind}", product_id="a", event_time=happened_ms, user_id="ann")
        log.add(event, visible_ms)
    log.add(Product(product_id="a", event_time=happened_ms, title="bought by ann", price=1, image=b"ann"), visible_ms)
    log.add(Product(product_id="b", event_time=happened_ms, delisted=True), visible_ms)


@pytest.mark.parametrize(
    ("happened_ms", "visible_ms"),
    [
        (MOMENT + 1, MOMENT + 1),  # what comes
        (MOMENT, MOMENT),  # what comes in the same millisecond
        (MOMENT - 1, MOMENT),  # what had happened, and was not visible yet
        (MOMENT - HOUR_MS, MOMENT + 1),
        (MOMENT - HOUR_MS, MOMENT + HOUR_MS),
    ],
)
def test_a_planted_leak_changes_nothing(log: Log, happened_ms: int, visible_ms: int) -> None:
    before = log.lists()
    planted(log, happened_ms, visible_ms)
    after = log.lists()
    assert_same(before, after)


def test_the_leak_would_be_seen_if_it_were_visible(log: Log) -> None:
    """The test above can fail."""
    before = the_list(log)
    planted(log, MOMENT - HOUR_MS, MOMENT - 1)
    shop = log.lists()
    (after,) = shop.lists
    assert len(after.items) < len(before.items)
    assert after.numeric[0].tolist() != before.numeric[0].tolist()
    assert shop.products[after.items[0]].title == "bought by ann"
    assert len(after.history) > len(before.history)


def assert_same(one: Shop, other: Shop) -> None:
    """The same lists, as the model sees them."""
    assert one.click_rates == other.click_rates
    for first, second in zip(one.lists, other.lists, strict=True):
        assert seen(one, first) == seen(other, second)


def seen(shop: Shop, one: RankedList) -> tuple[object, ...]:
    """All that a net learns of a list, whatever rows its products have."""
    looks = {product.product_id: replace(product, product_id="") for product in shop.products}
    return (
        one.query,
        one.time_ms,
        [looks[shop.products[row].product_id] for row in one.items],
        one.numeric.tolist(),
        one.retrieval.tolist(),
        one.relevance.tolist(),
        [(kind, looks[name], position, time) for kind, name, position, time in one.history],
    )


names = st.sampled_from("abcd")
times = st.integers(0, 40)  # so few that much happens in one millisecond
users = st.sampled_from(["ann", "bob", None])
sets = st.sampled_from(["s", "t", None])
products = st.builds(
    Product, product_id=names, event_time=times, price=st.integers(1, 9), title=st.sampled_from(["x", "y", None])
)
events = st.builds(
    Behavior,
    type=st.sampled_from(["impression", "click", "cart", "purchase", "return"]),
    event_id=st.uuids().map(str),
    product_id=names,
    event_time=times,
    user_id=users,
    result_set_id=sets,
)
registrations = st.builds(
    ResultSet,
    result_set_id=sets.filter(bool),
    event_time=times,
    kind=st.just("search"),
    candidates=st.lists(names, min_size=2, unique=True).map(lambda found: [(name, 1.0) for name in found]),
    user_id=users,
)
logs = st.lists(st.tuples(st.one_of(products, events, registrations), st.integers(0, 10)), min_size=5, max_size=60).map(
    lambda found: [
        Told(record, record.event_time + late, (offset, 0, 0)) for offset, (record, late) in enumerate(found)
    ]
)


@given(logs, st.randoms(use_true_random=False))
def test_the_order_in_which_a_log_comes_does_not_matter(told: list[Told], random: Random) -> None:
    mixed = told.copy()
    random.shuffle(mixed)
    assert_same(log_lists(told, nothing, 20, TESTED), log_lists(mixed, nothing, 20, TESTED))


@given(logs)
def test_a_list_is_the_same_in_a_log_that_ends_at_its_moment(told: list[Told]) -> None:
    """All that becomes visible later is cut off, but for what says that there was a list and what came of it: the
    features are those of the whole log."""
    whole = log_lists(told, nothing, 20, TESTED)
    for one in whole.lists:
        left = [record for record in told if record.visible_ms < one.time_ms or _says_what_came(record)]
        cut = log_lists(left, nothing, 20, TESTED)
        assert seen(whole, one) in [seen(cut, other) for other in cut.lists]


def _says_what_came(told: Told) -> bool:
    """A registration, or an event of a set."""
    record = told.record
    return isinstance(record, ResultSet) or (isinstance(record, Behavior) and record.result_set_id is not None)


def test_click_rates_are_those_of_the_lists_that_are_learned_from(log: Log) -> None:
    assert log.lists().click_rates == (), "nobody says where anything was shown"
    for number, name in enumerate("ab"):
        log.registered(name, MOMENT + number * HOUR_MS, "abc")
        for place, shown in enumerate("abc"):
            event = Behavior(
                type="impression",
                event_id=f"{name}{shown}",
                product_id=shown,
                event_time=MOMENT + number * HOUR_MS,
                result_set_id=name,
                position=place,
            )
            log.add(event)
        log.happened("click", name, MOMENT + number * HOUR_MS + 1, name)
    shop = log.lists()
    assert [one.time_ms for one in shop.lists] == [MOMENT, MOMENT, MOMENT + HOUR_MS]
    learned = [one.record for one in log.told if one.visible_ms < MOMENT + HOUR_MS]
    assert shop.click_rates == click_rates_of([event for event in learned if isinstance(event, Behavior)])
    assert shop.click_rates[0] > shop.click_rates[1] == shop.click_rates[2]


def test_what_is_visible_before_it_happened_is_refused() -> None:
    with pytest.raises(ValueError, match="visible at 4, before it happened at 5"):
        Told(Product(product_id="a", event_time=5), 4, (0, 0, 0))
