"""Rows of Online Retail become events by the documented rules."""

import gzip
from pathlib import Path

import pytest

from feature_repo.events import Behavior, Product
from feature_repo.views import DAY_MS
from serving.datasets.online_retail import DatasetError, History, load

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
DAY_1, DAY_2, DAY_9 = 1318118400000, 1318204800000, 1318809600000
SALES = (
    "1,85123a,WHITE  HEART ,6,2011-10-09 08:26:00,2.55,17850.0,France\n"
    "1,71053,RED MUG,2,2011-10-09 08:26:00,3.385,17850.0,France\n"
    "2,85123A,WHITE HEART,1,2011-10-10 09:00:00,2.10,,France\n"
    "3,85123A,WHITE HEART,1,2011-10-10 10:00:00,2.95,12345,France\n"
    "4,85123A,WHITE HEART,1,2011-10-10 11:00:00,2.95,12345,France\n"
    "C5,85123A,WHITE HEART,-4,2011-10-17 09:30:00,2.55,17850.0,France\n"
)


def history(tmp_path: Path, rows: str = SALES, header: str = HEADER) -> History:
    path = tmp_path / "retail.csv"
    path.write_text(header + rows, encoding="utf-8")
    return load(path)


def test_invoices_become_purchases_and_returns(tmp_path: Path) -> None:
    behavior = history(tmp_path).behavior
    assert behavior[0] == Behavior(
        type="purchase",
        event_id="1",
        product_id="85123A",
        event_time=1318148760000,
        user_id="17850",
        session_id="1",
        quantity=6,
        price=255,
    )
    assert behavior[2].user_id is None
    assert (behavior[-1].type, behavior[-1].quantity, behavior[-1].event_id) == ("return", 4, "6")


def test_products_come_whole_at_their_first_sale(tmp_path: Path) -> None:
    first, second = history(tmp_path).products
    assert first == Product(
        product_id="85123A", event_time=1318148760000, title="White Heart", price=255, currency="GBP"
    )
    assert (second.title, second.price) == ("Red Mug", 338)


def test_price_of_a_day_is_its_most_frequent_and_comes_with_its_first_sale(tmp_path: Path) -> None:
    assert history(tmp_path).patches == (Product(product_id="85123A", event_time=DAY_2 + 9 * 3_600_000, price=295),)


def test_equally_frequent_prices_give_the_higher(tmp_path: Path) -> None:
    rows = "1,71053,MUG,1,2011-10-09 08:00:00,1.00,,X\n2,71053,MUG,1,2011-10-09 09:00:00,1.20,,X\n"
    assert history(tmp_path, rows).products[0].price == 120


@pytest.mark.parametrize(
    "row",
    [
        "1,POST,POSTAGE,1,2011-10-09 08:00:00,18.00,1,X",
        "1,M,Manual,1,2011-10-09 08:00:00,1.00,1,X",
        "1,gift_0001_20,VOUCHER,1,2011-10-09 08:00:00,16.00,1,X",
        "1,71053, ,1,2011-10-09 08:00:00,1.00,1,X",
        "1,71053,damaged,-10,2011-10-09 08:00:00,0.0,,X",
        "1,71053,MUG,1,2011-10-09 08:00:00,0.001,1,X",
    ],
)
def test_rows_that_are_no_sale_of_a_product_are_left_out(tmp_path: Path, row: str) -> None:
    assert len(history(tmp_path, SALES + row + "\n").behavior) == 6


def test_rows_are_ordered_by_time_and_keep_their_order_within_a_minute(tmp_path: Path) -> None:
    lines = SALES.splitlines(keepends=True)
    shuffled = history(tmp_path, "".join(lines[2:] + lines[:2])).behavior
    assert [event.product_id for event in shuffled[:2]] == ["85123A", "71053"]
    assert [event.event_time for event in shuffled] == sorted(event.event_time for event in shuffled)


def test_the_last_week_is_replayed(tmp_path: Path) -> None:
    told = history(tmp_path)
    assert (told.start_ms, told.split_ms, told.end_ms) == (DAY_1, DAY_9 + DAY_MS - 7 * DAY_MS, DAY_9 + DAY_MS)


def test_catalog_at_a_moment_has_the_price_of_that_moment(tmp_path: Path) -> None:
    told = history(tmp_path)
    before = {product.product_id: product.price for product in told.catalog_at(DAY_2)}
    after = {product.product_id: product.price for product in told.catalog_at(DAY_9)}
    assert (before, after) == ({"85123A": 255, "71053": 338}, {"85123A": 295, "71053": 338})
    assert told.catalog_at(DAY_9)[0].title == "White Heart"


def test_events_between_two_times_put_the_catalog_before_the_sale(tmp_path: Path) -> None:
    told = history(tmp_path)
    events = list(told.events(DAY_2, DAY_2 + DAY_MS))
    assert [type(event) for event in events] == [Product, Behavior, Behavior, Behavior]
    assert list(told.events(told.start_ms, told.end_ms))[:2] == [told.products[0], told.products[1]]


def test_row_numbers_of_a_slice_are_the_event_ids(tmp_path: Path) -> None:
    told = history(tmp_path, "77,1,71053,MUG,1,2011-10-09 08:00:00,1.00,,X\n", "Row," + HEADER)
    assert told.behavior[0].event_id == "77"


def test_gzip_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "retail.csv"
    path.write_bytes(gzip.compress((HEADER + SALES).encode()))
    assert len(load(path).behavior) == 6


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a,b\n1,2\n", "not an Online Retail file, it has no column InvoiceNo"),
        (HEADER.encode() + b"1,71053,MUG,six,2011-10-09 08:00:00,1.00,,X\n", "row 1 is malformed"),
        (HEADER.encode() + b"1,71053,MUG,6\n", "row 1 is malformed"),
        (HEADER.encode(), "no row is a sale"),
        (b"\x1f\x8bgarbage", "cannot be read"),
        (b"\xff\xfe\xff", "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=text):
        load(path)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path / "none.csv")


def test_the_slice() -> None:
    told = load()
    assert len(told.products) == 2000
    assert told.end_ms - told.start_ms == 55 * DAY_MS
    assert len(told.behavior) == 131_010
    assert len({event.event_id for event in told.behavior}) == len(told.behavior)
    assert {event.product_id for event in told.behavior} == {product.product_id for product in told.products}
