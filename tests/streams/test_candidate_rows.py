"""Slots of products: shared, grown, given back; and what a row that was put changes."""

from __future__ import annotations

import numpy as np

from feature_repo.views import MODALITIES, NUMERIC_FIELDS, PRICE_COLUMNS, PRICE_FIELDS
from streams.candidate_rows import CandidateRows, Effect
from streams.records import Change
from tests.streams.fakes import word_vector
from tests.streams.lists import behavior_row, catalog_row, content_row

UNKNOWN_NUMBERS = [-1.0 if name in PRICE_FIELDS else 0.0 for name in NUMERIC_FIELDS]


def put(rows: CandidateRows, change: Change) -> Effect:
    return rows.put(change.view, rows.slots[change.entity], change.blob)


def rows_of(*products: str, capacity: int = 4) -> CandidateRows:
    rows = CandidateRows(capacity)
    for product in products:
        rows.acquire(product)
    return rows


def test_a_product_that_nobody_knows() -> None:
    rows = rows_of("a")
    assert (rows.price[0], rows.stock[0], rows.is_delisted(0)) == (-1, -1, False)
    assert rows.numeric[0].tolist() == UNKNOWN_NUMBERS
    assert not rows.mask[0].any()
    assert not rows.content[0].any()


def test_a_slot_is_shared_and_given_back_by_its_last_user() -> None:
    rows = rows_of("a", "b")
    assert rows.acquire("a") == (0, False)
    assert not rows.release(0)
    put(rows, catalog_row("a", 5, price=7, stock=3, delisted=True))
    put(rows, content_row("a", 5, text="red"))
    put(rows, behavior_row("a", 5, sales_1h=2))
    assert rows.release(0)
    assert "a" not in rows.slots
    assert rows.acquire("c") == (0, True), "the slot is used again"
    assert rows.ids[0] == "c"
    assert (rows.price[0], rows.stock[0], rows.is_delisted(0), rows.mask[0].any()) == (-1, -1, False, False)
    assert rows.numeric[0].tolist() == UNKNOWN_NUMBERS
    assert put(rows, catalog_row("c", 0, price=9)) is Effect.SCORE, "the old row's version is gone, too"


def test_slots_grow_and_what_is_there_keeps_its_place() -> None:
    rows = rows_of("a", capacity=1)
    put(rows, catalog_row("a", 5, price=7, stock=0))
    put(rows, content_row("a", 6, text="red"))
    put(rows, behavior_row("a", 7, sales_1h=2))
    for number in range(20):
        assert rows.acquire(f"p{number}") == (number + 1, True)
    assert (rows.price[0], rows.stock[0], rows.users[0]) == (7, 0, 1)
    assert rows.versions[:, 0].tolist() == [6, 8, 7]
    text = MODALITIES.index("text")
    assert np.array_equal(rows.content[0, text], word_vector("red"))
    assert rows.price[20] == -1
    assert put(rows, catalog_row("a", 4, price=1)) is Effect.NONE, "an older row is still older"


def test_what_a_catalog_row_changes() -> None:
    rows = rows_of("a")
    steps = [
        (catalog_row("a", 0, price=100, stock=5), Effect.SCORE),
        (catalog_row("a", 1, price=100, stock=4), Effect.NONE),
        (catalog_row("a", 2, price=100, stock=0), Effect.ORDER),
        (catalog_row("a", 3, price=100, stock=0, delisted=True), Effect.ORDER),
        (catalog_row("a", 4, price=100, stock=-1), Effect.ORDER),
        (catalog_row("a", 5, price=99, stock=0), Effect.SCORE),
        (catalog_row("a", 6, price=99, stock=0), Effect.NONE),
        (catalog_row("a", 7, price=99, usual=90, stock=0), Effect.SCORE),
    ]
    assert [put(rows, change) for change, _ in steps] == [effect for _, effect in steps]
    assert (rows.price[0], rows.stock[0], rows.is_delisted(0)) == (99, 0, False)
    assert rows.numeric[0, PRICE_COLUMNS].tolist() == [99.0, 90.0]


def test_what_the_other_views_change() -> None:
    rows = rows_of("a")
    assert put(rows, behavior_row("a", 0, sales_1h=3)) is Effect.SCORE
    assert put(rows, behavior_row("a", 1, sales_1h=3)) is Effect.NONE
    assert put(rows, content_row("a", 0, text="red")) is Effect.SCORE
    assert put(rows, content_row("a", 1, text="red")) is Effect.NONE
    assert put(rows, content_row("a", 2)) is Effect.SCORE
    assert rows.numeric[0, NUMERIC_FIELDS.index("sales_1h")] == 3.0
    assert rows.numeric[0, 0] == -1.0, "the price is the catalog's"


def test_an_equal_or_newer_row_is_taken_by_version_then_as_of() -> None:
    rows = rows_of("a")
    put(rows, behavior_row("a", 5, sales_1h=3, as_of=100))
    assert put(rows, behavior_row("a", 5, sales_1h=1, as_of=99)) is Effect.NONE
    assert put(rows, behavior_row("a", 4, sales_1h=1, as_of=200)) is Effect.NONE
    assert put(rows, behavior_row("a", 5, sales_1h=2, as_of=100)) is Effect.SCORE
    assert put(rows, behavior_row("a", 5, sales_1h=1, as_of=101)) is Effect.SCORE
    assert put(rows, behavior_row("a", 6, sales_1h=0, as_of=0)) is Effect.SCORE


def test_a_version_is_the_sum_over_partitions() -> None:
    rows = rows_of("a")
    put(rows, catalog_row("a", 0, price=1, stamps={0: 10, 1: 10}))
    assert put(rows, catalog_row("a", 0, price=2, stamps={0: 20})) is Effect.NONE
    assert put(rows, catalog_row("a", 0, price=3, stamps={0: 10, 1: 11})) is Effect.SCORE


def test_large_prices_are_exact() -> None:
    rows = rows_of("a")
    put(rows, catalog_row("a", 0, price=2**53 - 1))
    assert rows.price[0] == 2**53 - 1
