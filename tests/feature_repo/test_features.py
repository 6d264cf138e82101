"""State and windows against brute force: any order of the same events gives the same bits and the right numbers."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from feature_repo import features
from feature_repo.events import Attribute, Behavior, Product
from feature_repo.features import BehaviorState, CatalogState, ContentState, Order, UserState, counting, repeats
from feature_repo.views import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    PRODUCT_CONTENT,
    UNKNOWN,
    USER_BEHAVIOR,
)

BASE = 1_300_000_000_000
FEW = settings(max_examples=40, deadline=None)
Kind = Literal["impression", "click", "cart", "purchase", "return"]

kinds: st.SearchStrategy[Kind] = st.sampled_from(["impression", "click", "cart", "purchase", "return"])
# bursts within minutes, hours and days: all windows have edges to get wrong
times = st.one_of(
    st.integers(0, 20 * MINUTE_MS), st.integers(0, 30 * HOUR_MS), st.integers(0, 9 * DAY_MS)
).map(lambda after: BASE + after)  # fmt: skip


@st.composite
def behaviors(draw: st.DrawFn, max_size: int = 30) -> list[Behavior]:
    """Events of one product, each with an id of its own."""
    drawn = draw(st.lists(st.tuples(kinds, times, st.integers(1, 2000)), min_size=1, max_size=max_size))
    return [
        Behavior(type=kind, event_id=f"e{n}", product_id="p", event_time=time, quantity=quantity, position=n)
        for n, (kind, time, quantity) in enumerate(drawn)
    ]


def folded(events: Sequence[Behavior]) -> BehaviorState:
    state = BehaviorState()
    for event in events:
        features.fold_behavior(state, event)
    return state


def newest_of(events: Sequence[Behavior]) -> int:
    return max(event.event_time for event in events)


@given(behaviors(), st.lists(st.integers(0, 29), max_size=10), st.integers(1, 31))
@FEW
def test_events_that_are_folded_together_leave_what_they_leave_one_by_one(
    events: list[Behavior], again: list[int], size: int
) -> None:
    told = events + [events[place] for place in again if place < len(events)]
    state = BehaviorState()
    for start in range(0, len(told), size):
        features.fold_behaviors(state, told[start : start + size])
        features.pack_behavior(state)
    assert features.pack_behavior(state) == features.pack_behavior(folded(told))
    assert state.totals == folded(told).totals
    as_of = newest_of(events)
    assert features.behavior_values(state, as_of) == features.behavior_values(folded(told), as_of)


@given(behaviors(max_size=6), times)
@FEW
def test_counts_that_every_window_holds_are_told_apart_from_those_that_only_some_hold(
    events: list[Behavior], as_of: int
) -> None:
    state = folded(events)
    found = features.only_counts(state, as_of)
    if found is not None:
        assert features.values_of_counts(found) == brute_values(events, as_of)


def test_a_product_that_was_met_in_one_minute_has_the_same_counts_in_every_window() -> None:
    event = Behavior(type="purchase", event_id="e", product_id="p", event_time=BASE, quantity=2)
    state = folded([event])
    assert features.only_counts(state, BASE + 1) == (0, 0, 0, 1, 2, 0)
    assert features.only_counts(state, BASE + 10 * MINUTE_MS) is None, "ten minutes later one window lacks it"
    later = folded([event, structs.replace(event, event_id="f", event_time=BASE + MINUTE_MS)])
    assert features.only_counts(later, BASE + MINUTE_MS) is None, "two minutes have counts"


# --- rounding ------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1e12))
@FEW
def test_rounding_keeps_three_digits_half_to_even(value: float) -> None:
    exact = Context(prec=3, rounding=ROUND_HALF_EVEN).create_decimal(Decimal(value))
    assert features.three_digits([value]) == [float(exact)]


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.0, 0.0), (999.0, 999.0), (1225.0, 1220.0), (1235.0, 1240.0), (999.5, 1000.0), (2 / 21, 0.0952), (7.0, 7.0)],
)
def test_rounding_of_known_numbers(value: float, rounded: float) -> None:
    assert features.three_digits([value]) == [rounded]


# --- windows -------------------------------------------------------------------------------------------------------


def brute_values(events: Sequence[Behavior], as_of: int) -> list[float]:
    """Every event looked at again for every feature; no buckets, no pruning, no state."""

    def within(unit_ms: int, length: int, *kinds: str, pieces: bool = False) -> int:
        now = as_of // unit_ms
        found = [e for e in events if e.type in kinds and now - length < e.event_time // unit_ms <= now]
        return sum(e.quantity for e in found) if pieces else len(found)

    def sales(unit_ms: int, length: int) -> int:
        bought, back = (within(unit_ms, length, kind, pieces=True) for kind in ("purchase", "return"))
        return max(0, bought - back)

    ever = as_of // DAY_MS + 1
    clicks, views = within(HOUR_MS, 24, "click"), within(HOUR_MS, 24, "impression")
    values = {
        "sales_10m": sales(MINUTE_MS, 10),
        "sales_1h": sales(MINUTE_MS, 60),
        "sales_24h": sales(HOUR_MS, 24),
        "sales_7d": sales(HOUR_MS, 168),
        "orders_24h": within(HOUR_MS, 24, "purchase"),
        "orders_7d": within(HOUR_MS, 168, "purchase"),
        "returns_7d": within(HOUR_MS, 168, "return", pieces=True),
        "views_24h": views,
        "clicks_1h": within(MINUTE_MS, 60, "click"),
        "clicks_24h": clicks,
        "carts_24h": within(HOUR_MS, 24, "cart"),
        "ctr_24h": (clicks + 1) / (views + 20),
        "sales_total": sales(DAY_MS, ever),
        "orders_total": within(DAY_MS, ever, "purchase"),
    }
    return [float(f"{values[field.name]:.3g}") for field in PRODUCT_BEHAVIOR.floats]


@given(behaviors(), st.integers(0, 9 * DAY_MS))
@FEW
def test_windows_equal_brute_force_at_any_as_of(events: list[Behavior], later: int) -> None:
    state = folded(events)
    for as_of in (newest_of(events), newest_of(events) + later):
        assert features.behavior_values(state, as_of) == brute_values(events, as_of)


@pytest.mark.parametrize(("unit", "length"), [(MINUTE_MS, 10), (MINUTE_MS, 60), (HOUR_MS, 24), (HOUR_MS, 168)])
@pytest.mark.parametrize("order", [1, -1])
def test_the_oldest_bucket_of_a_window_counts_and_the_one_before_does_not(unit: int, length: int, order: int) -> None:
    newest = BASE - BASE % HOUR_MS
    events = [
        Behavior(type="purchase", event_id=f"e{age}", product_id="p", event_time=newest - age * unit, quantity=10 + age)
        for age in (0, length - 1, length)
    ]
    assert features.behavior_values(folded(events[::order]), newest) == brute_values(events, newest)


def test_windows_begin_and_end_with_whole_buckets() -> None:
    time = BASE - BASE % HOUR_MS + 30 * MINUTE_MS + 59_999
    state = folded([Behavior(type="purchase", event_id="e", product_id="p", event_time=time, quantity=3)])

    def sales(as_of: int) -> list[float]:
        return features.behavior_values(state, as_of)[:4]

    minute, hour = time - time % MINUTE_MS, time - time % HOUR_MS
    assert sales(time) == [3, 3, 3, 3]
    assert sales(minute + 10 * MINUTE_MS - 1) == [3, 3, 3, 3]
    assert sales(minute + 10 * MINUTE_MS) == [0, 3, 3, 3]
    assert sales(minute + HOUR_MS) == [0, 0, 3, 3]
    assert sales(hour + DAY_MS - 1) == [0, 0, 3, 3]
    assert sales(hour + DAY_MS) == [0, 0, 0, 3]
    assert sales(hour + 7 * DAY_MS) == [0, 0, 0, 0]


@given(behaviors(), st.randoms(use_true_random=False))
@FEW
def test_any_order_with_doubles_gives_the_same_bits(events: list[Behavior], rng: random.Random) -> None:
    """What a publisher sent twice is caught while its event time is within ten minutes of the newest."""
    newest = newest_of(events)
    doubled = [event for event in events if event.event_time > newest - features.REMEMBER_MS]
    shuffled = [*events, *rng.choices(doubled, k=5)]
    rng.shuffle(shuffled)
    assert features.pack_behavior(folded(shuffled)) == features.pack_behavior(folded(events))


def test_a_double_is_told_by_the_state_after_it_was_packed_and_read_again() -> None:
    event = Behavior(type="click", event_id="e", product_id="p", event_time=BASE)
    state = features.unpack_behavior(features.pack_behavior(folded([event])))
    assert not features.fold_behavior(state, event)
    assert state.totals[counting.CLICKED] == 1


def test_a_double_long_after_ten_minutes_cannot_be_told() -> None:
    event = Behavior(type="click", event_id="e", product_id="p", event_time=BASE)
    forgotten = features.REMEMBER_MS + repeats.SLICE_MS
    later = Behavior(type="click", event_id="f", product_id="p", event_time=BASE + forgotten)
    state = folded([event, later])
    assert features.fold_behavior(state, event)
    assert state.totals[counting.CLICKED] == 3


@given(behaviors())
@FEW
def test_a_look_at_nothing_leaves_no_trace(events: list[Behavior]) -> None:
    state, as_of = BehaviorState(), newest_of(events)
    features.behavior_values(state, as_of)
    for event in events:
        features.fold_behavior(state, event)
    assert features.behavior_values(state, as_of) == brute_values(events, as_of)


@given(behaviors(), st.data())
@FEW
def test_running_sums_and_packed_parts_are_those_of_a_state_made_anew(
    events: list[Behavior], data: st.DataObject
) -> None:
    """Looked at and packed at any moment between: what is kept up with the events is what the events alone say."""
    state, as_of = BehaviorState(), 0
    for n, event in enumerate(events, 1):
        features.fold_behavior(state, event)
        look = data.draw(st.sets(st.sampled_from(["values", "next", "pack", "unpack"])))
        as_of = max(as_of, newest_of(events[:n])) + data.draw(
            st.sampled_from([0, 0, MINUTE_MS, 61 * MINUTE_MS, DAY_MS])
        )
        fresh = folded(events[:n])
        if "values" in look:
            assert features.behavior_values(state, as_of) == brute_values(events[:n], as_of)
        if "next" in look:
            assert features.next_change(state, as_of) == features.next_change(fresh, as_of)
        if "pack" in look:
            assert features.pack_behavior(state) == features.pack_behavior(fresh)
        if "unpack" in look:
            state = features.unpack_behavior(features.pack_behavior(state))
    assert features.pack_behavior(state) == features.pack_behavior(folded(events))


def test_an_event_of_the_newest_bucket_after_the_windows_have_left_it() -> None:
    events = [
        Behavior(type="purchase", event_id=f"e{n}", product_id="p", event_time=BASE - ago, quantity=3)
        for n, ago in enumerate((5 * MINUTE_MS, 0, 0, 0))
    ]
    state = folded(events[:2])
    for told, later in ((2, 0), (3, 0), (3, 11), (4, 11), (4, 61), (4, 24 * 60)):
        for event in events[len(state.repeats) : told]:
            features.fold_behavior(state, event)
        as_of = BASE + later * MINUTE_MS
        assert features.behavior_values(state, as_of) == brute_values(events[:told], as_of)


def test_a_state_from_before_ids_were_kept_in_slices() -> None:
    key = features.event_key("e")
    buckets = [[[BASE // unit, 0, 1, 0, 0, 0, 0]] for unit in (MINUTE_MS, HOUR_MS)]
    old = msgpack.packb([BASE, *buckets, [0, 1, 0, 0, 0, 0], [[key, BASE]]])
    click = Behavior(type="click", event_id="e", product_id="p", event_time=BASE)
    state = features.unpack_behavior(old)
    assert state == folded([click])
    assert not features.fold_behavior(state, click)


@given(behaviors())
@FEW
def test_next_change_is_the_first_moment_at_which_a_bucket_leaves(events: list[Behavior]) -> None:
    state, as_of = folded(events), newest_of(events)
    leaving = sorted(
        {
            (event.event_time // unit + length) * unit
            for event in events
            for unit, length in ((MINUTE_MS, 10), (MINUTE_MS, 60), (HOUR_MS, 24), (HOUR_MS, 168))
        }
    )
    while (due := features.next_change(state, as_of)) is not None:
        assert due == next(time for time in leaving if time > as_of)
        assert due % MINUTE_MS == 0
        # nothing changes before it: a visit at each of these moments sees every value there ever is
        assert features.behavior_values(state, due - 1) == features.behavior_values(state, as_of)
        assert features.behavior_values(state, due) == brute_values(events, due)
        as_of = due
    assert as_of == max(*leaving, newest_of(events))


@given(behaviors())
@FEW
def test_buckets_that_no_window_can_reach_are_gone(events: list[Behavior]) -> None:
    state, newest = folded(events), newest_of(events)
    assert all(newest // MINUTE_MS - 60 < minute <= newest // MINUTE_MS for minute in state.minutes)
    assert all(newest // HOUR_MS - 168 < hour <= newest // HOUR_MS for hour in state.hours)
    assert len(state.repeats) == sum(e.event_time // 10_000 >= newest // 10_000 - 60 for e in events)


@given(behaviors())
@FEW
def test_behavior_state_survives_packing(events: list[Behavior]) -> None:
    state = folded(events)
    read = features.unpack_behavior(features.pack_behavior(state))
    assert read == state
    as_of = newest_of(events)
    assert features.behavior_values(read, as_of) == features.behavior_values(state, as_of)


def test_returns_never_make_sales_negative() -> None:
    state = folded([Behavior(type="return", event_id="e", product_id="p", event_time=BASE, quantity=5)])
    values = dict(
        zip([field.name for field in PRODUCT_BEHAVIOR.floats], features.behavior_values(state, BASE), strict=True)
    )
    assert (values["sales_24h"], values["sales_total"], values["returns_7d"]) == (0, 0, 5)


# --- catalog -------------------------------------------------------------------------------------------------------

attributes: st.SearchStrategy[dict[str, Attribute]] = st.dictionaries(
    st.text(max_size=5),
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5)),
    max_size=3,
)
patches = st.builds(
    Product,
    product_id=st.just("p"),
    event_time=st.integers(BASE, BASE + 3),
    title=st.one_of(st.just(UNSET), st.none(), st.text(max_size=5)),
    category=st.one_of(st.just(UNSET), st.none(), st.lists(st.text(max_size=3), max_size=2)),
    attributes=st.one_of(st.just(UNSET), st.none(), attributes),
    price=st.one_of(st.just(UNSET), st.none(), st.integers(0, 2**53)),
    currency=st.one_of(st.just(UNSET), st.none(), st.sampled_from(("GBP", "EUR"))),
    stock=st.one_of(st.just(UNSET), st.none(), st.integers(0, 5)),
    image=st.one_of(st.just(UNSET), st.none(), st.binary(max_size=4)),
    delisted=st.one_of(st.just(UNSET), st.none(), st.booleans()),
)


@given(st.lists(patches, max_size=25), st.randoms(use_true_random=False))
@FEW
def test_the_latest_patch_wins_each_field_in_any_order(found: list[Product], rng: random.Random) -> None:
    ordered: list[tuple[Order, Product]] = [
        ((patch.event_time, n // 3, n % 2, n % 3), patch) for n, patch in enumerate(found)
    ]
    shuffled = [*ordered, *ordered[:3]]
    rng.shuffle(shuffled)
    state, straight = CatalogState(), CatalogState()
    for order, patch in shuffled:
        features.fold_product(state, patch, order)
        features.catalog_texts(state)
    for order, patch in ordered:
        features.fold_product(straight, patch, order)
    for name in features.PATCH_FIELDS:
        named = [(order, getattr(patch, name)) for order, patch in ordered if getattr(patch, name) is not UNSET]
        assert features.current(state, name) == (max(named, key=lambda one: one[0])[1] if named else None)
    priced = sorted((order, patch.price) for order, patch in ordered if isinstance(patch.price, int))
    usual = [price for _, price in priced[-9:]]
    assert features.usual_price(state) == (statistics.median_low(usual) if usual else UNKNOWN)
    assert features.pack_catalog(state) == features.pack_catalog(straight)
    assert msgpack.unpackb(features.catalog_texts(state)) == features.catalog_strings(straight)
    assert features.unpack_catalog(features.pack_catalog(state)) == state


@given(st.lists(patches, max_size=40), st.lists(st.integers(0, 20), max_size=6), st.randoms(use_true_random=False))
@FEW
def test_patches_folded_together_are_those_folded_one_by_one(
    found: list[Product], sizes: list[int], rng: random.Random
) -> None:
    """Whatever their order, doubles among them, and however often the state was packed in between."""
    ordered = [((patch.event_time, n // 3, n % 2, n % 3), patch) for n, patch in enumerate(found)]
    shuffled = [*ordered, *ordered[:9]]
    rng.shuffle(shuffled)
    state, straight = CatalogState(), CatalogState()
    for size in (*sizes, len(shuffled)):
        together, shuffled = shuffled[:size], shuffled[size:]
        changes = [features.fold_product(straight, patch, order) for order, patch in together]
        assert features.fold_products(state, together) == any(changes)
        assert features.pack_catalog(state) == features.pack_catalog(features.unpack_catalog(pack_anew(straight)))
        assert features.catalog_ints(state) == features.catalog_ints(straight)
        assert msgpack.unpackb(features.catalog_texts(state)) == features.catalog_strings(straight)
    assert state == straight


def pack_anew(state: CatalogState) -> bytes:
    """The packed form of a state of which nothing was packed before."""
    return features.pack_catalog(CatalogState(state.fields, state.newest, state.prices))


@pytest.mark.parametrize("name", features.PATCH_FIELDS)
def test_every_field_is_folded_whether_alone_or_together(name: str) -> None:
    values: dict[str, object] = {
        "category": ["mugs"], "attributes": {"colour": "red"}, "price": 5, "stock": 5, "image": b"i", "video": b"v",
        "audio": b"a", "delisted": True,
    }  # fmt: skip
    patch = structs.replace(Product(product_id="p", event_time=BASE), **{name: values.get(name, "text")})
    alone, together = CatalogState(), CatalogState()
    assert features.brings_content(patch) == (name in features.CONTENT_FIELDS)
    assert features.fold_product(alone, patch, (BASE, 0, 0, 0)) == (name in features.CONTENT_FIELDS)
    other = Product(product_id="p", event_time=BASE)
    found: list[tuple[Order, Product]] = [((BASE, 0, 0, 0), patch), ((BASE, 1, 0, 0), other)]
    assert features.fold_products(together, found) == (name in features.CONTENT_FIELDS)
    assert features.current(together, name) == values.get(name, "text")
    assert alone == together


@pytest.mark.parametrize("place", range(4))
def test_order_is_event_time_then_offset_then_partition_then_place(place: int) -> None:
    early: list[int] = [BASE, 5, 1, 0]
    late = list(early)
    late[place] += 1
    late[place + 1 :] = [0] * (3 - place)
    state = CatalogState()
    for title, (time, offset, partition, at) in (("late", late), ("early", early)):
        features.fold_product(
            state, Product(product_id="p", event_time=time, title=title), (time, offset, partition, at)
        )
    assert features.current(state, "title") == "late"


def test_fold_product_tells_whether_content_changed() -> None:
    state = CatalogState()
    first = Product(product_id="p", event_time=BASE, title="shirt", price=100)
    assert features.fold_product(state, first, (BASE, 0, 0, 0))
    assert not features.fold_product(state, first, (BASE, 1, 0, 0)), "the same title again"
    assert not features.fold_product(state, Product(product_id="p", event_time=BASE, price=90), (BASE, 2, 0, 0))
    assert features.fold_product(state, Product(product_id="p", event_time=BASE, title=None), (BASE, 3, 0, 0))


def priced(*prices: int | None) -> CatalogState:
    state = CatalogState()
    for offset, price in enumerate(prices):
        features.fold_product(state, Product(product_id="p", event_time=BASE, price=price), (BASE, offset, 0, 0))
    return state


@pytest.mark.parametrize(
    ("prices", "usual"),
    [
        ([], UNKNOWN),
        ([None], UNKNOWN),
        ([500], 500),
        ([500, 400], 400),
        ([500, 400, 450], 450),
        ([500, 500, 500, 100, None], 500),
        ([1, 1, 1, 1, 1, 9, 9, 9, 9, 9], 9),
    ],
    ids=str,
)
def test_the_usual_price_is_the_lower_median_of_the_last_nine_set(prices: list[int | None], usual: int) -> None:
    state = priced(*prices)
    assert features.usual_price(state) == usual
    price = prices[-1] if prices and prices[-1] is not None else UNKNOWN
    assert features.catalog_ints(state)[:2] == [price, usual]


def test_a_state_from_before_prices_were_remembered_knows_the_last() -> None:
    old = msgpack.packb([BASE, [["price", [BASE, 7, 0, 0], 425], ["title", [BASE, 7, 0, 0], "shirt"]]])
    state = features.unpack_catalog(old)
    assert features.catalog_ints(state) == [425, 425, UNKNOWN, 0]
    assert features.unpack_catalog(features.pack_catalog(state)) == state
    cleared = msgpack.packb([BASE, [["price", [BASE, 7, 0, 0], None]]])
    assert features.usual_price(features.unpack_catalog(cleared)) == UNKNOWN


def test_catalog_values_of_an_empty_and_of_a_full_state() -> None:
    state = CatalogState()
    assert features.catalog_ints(state) == [UNKNOWN, UNKNOWN, UNKNOWN, 0]
    assert features.catalog_strings(state) == ["", "", "", ""]
    patch = Product(
        product_id="p", event_time=BASE, title="T恤", brand="b", category=["men", "shirts"],
        price=425, stock=0, currency="GBP", delisted=True,
    )  # fmt: skip
    features.fold_product(state, patch, (BASE, 0, 0, 0))
    assert features.catalog_ints(state) == [425, 425, 0, 1]
    assert features.catalog_strings(state) == ["T恤", "b", "men > shirts", "GBP"]
    assert features.content_of(state) == {"title": "T恤", "brand": "b", "category": ["men", "shirts"]}
    assert len(features.catalog_ints(state)) == len(PRODUCT_CATALOG.ints)
    assert len(features.catalog_strings(state)) == len(PRODUCT_CATALOG.strings)


def test_a_deleted_product_is_a_patch_like_any_other() -> None:
    state = CatalogState()
    features.fold_product(state, features.delisting("p", BASE + 1), (BASE + 1, 1, 0, 0))
    features.fold_product(state, Product(product_id="p", event_time=BASE, delisted=False), (BASE, 0, 0, 0))
    assert features.catalog_ints(state) == [UNKNOWN, UNKNOWN, UNKNOWN, 1]


# --- users ---------------------------------------------------------------------------------------------------------


@given(behaviors(max_size=150), st.randoms(use_true_random=False))
@FEW
def test_a_user_keeps_the_last_events_in_any_order(events: list[Behavior], rng: random.Random) -> None:
    newest = newest_of(events)
    placed = [(event, n % 2, n // 6, n % 3) for n, event in enumerate(events)]
    shuffled = [*placed, *[one for one in placed if one[0].event_time > newest - features.REMEMBER_MS]]
    rng.shuffle(shuffled)
    state = UserState()
    for event, partition, offset, place in shuffled:
        features.fold_user(state, event, partition, offset, place)

    last = sorted((e.event_time, partition, offset, place, e) for e, partition, offset, place in placed)[-128:]
    assert msgpack.unpackb(features.user_history(state)) == [
        [e.type, "p", e.position, e.event_time] for _, _, _, _, e in last
    ]
    totals = [sum(e.type == kind for e in events) for kind in ("impression", "click", "cart", "purchase")]
    assert features.user_values(state) == features.three_digits(totals)
    assert len(features.user_values(state)) == len(USER_BEHAVIOR.floats)
    packed = features.pack_user(state)
    assert features.pack_user(features.unpack_user(packed)) == packed


def test_a_users_state_from_before_events_were_kept_packed() -> None:
    event = [BASE, 1, 7, 0, "click", "p", 3]
    old = msgpack.packb([[event], [0, 1, 0, 0, 0, 0], [[1, BASE, [[features.event_key("e"), BASE]]]]])
    click = Behavior(type="click", event_id="e", product_id="p", event_time=BASE, position=3)
    state = UserState()
    features.fold_user(state, click, 1, 7, 0)
    assert features.unpack_user(old) == state
    assert not features.fold_user(features.unpack_user(old), click, 1, 9, 0)


def test_a_user_event_without_a_position_says_unknown() -> None:
    state = UserState()
    features.fold_user(state, Behavior(type="click", event_id="e", product_id="p", event_time=BASE), 0, 0, 0)
    assert msgpack.unpackb(features.user_history(state)) == [["click", "p", UNKNOWN, BASE]]
    assert features.unpack_user(features.pack_user(state)) == state


# --- content -------------------------------------------------------------------------------------------------------


def test_content_state_survives_packing() -> None:
    numbers = np.linspace(0, 1, PRODUCT_CONTENT.float_width, dtype="<f4")
    state = ContentState(7, BASE, "3", "ab" * 32, numbers.tobytes())
    read = features.unpack_content(features.pack_content(state))
    assert read == state
    assert features.content_values(read) == numbers.tolist()
