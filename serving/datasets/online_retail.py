"""UCI Online Retail as events: products, price changes, purchases and returns in their real order and time.

A row is left out when its stock code is not a product's (postage, manual, bank charges, vouchers: everything that
is not five digits and letters), when its description is empty, or when its price is below a penny (the source's
stock corrections). Prices become pence. The source tells no stock, brand or category, so neither do the events.
Its times carry no zone and are read as UTC.
"""

import csv
import gzip
import re
import string
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from heapq import merge
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import msgspec

from feature_repo.events import Behavior, Product
from feature_repo.views import DAY_MS

SLICE = Path(__file__).resolve().parents[2] / "examples" / "online_retail" / "online_retail_slice.csv.gz"
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
#: the slice carries the row numbers of the whole, so that an event has the same id in both
ROW_COLUMN = "Row"
CURRENCY = "GBP"
REPLAYED_DAYS = 7

PRODUCT_CODE = re.compile(r"\d{5}[A-Z]*")
GZIP_MAGIC = b"\x1f\x8b"


class DatasetError(ValueError):
    """The file is not there or is not an Online Retail file; the text says which row or column."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an invoice: `number` counts the source's rows from 1, `quantity` < 0 is a return, price in pence."""

    number: int
    invoice: str
    code: str
    description: str
    quantity: int
    time_ms: int
    price: int
    customer: str | None


@dataclass(frozen=True)
class History:
    """Events of one shop in order of event time. Products are complete, patches are price changes.

    [start_ms, split_ms) is there to learn from, [split_ms, end_ms) to be replayed; all in ms UTC.
    """

    products: tuple[Product, ...]
    patches: tuple[Product, ...]
    behavior: tuple[Behavior, ...]
    start_ms: int
    split_ms: int
    end_ms: int

    def catalog_at(self, when_ms: int) -> list[Product]:
        """Each product that was known before `when_ms`, whole, with the price it had and that price's time."""
        known = {product.product_id: product for product in self.products if product.event_time < when_ms}
        for patch in self.patches:
            if patch.event_time < when_ms:
                product = known[patch.product_id]
                known[patch.product_id] = msgspec.structs.replace(
                    product, price=patch.price, event_time=patch.event_time
                )
        return list(known.values())

    def behavior_between(self, since_ms: int, until_ms: int) -> tuple[Behavior, ...]:
        """Purchases and returns of [since_ms, until_ms)."""
        first = bisect_left(self.behavior, since_ms, key=_event_time)
        return self.behavior[first : bisect_left(self.behavior, until_ms, key=_event_time)]

    def catalog_between(self, since_ms: int, until_ms: int) -> Iterator[Product]:
        """New products and price changes of [since_ms, until_ms)."""
        news = merge(self.products, self.patches, key=_event_time)
        return (product for product in news if since_ms <= product.event_time < until_ms)

    def events(self, since_ms: int, until_ms: int) -> Iterator[Product | Behavior]:
        """Everything of [since_ms, until_ms) in order; within a minute the catalog goes first."""
        return merge(
            self.catalog_between(since_ms, until_ms), self.behavior_between(since_ms, until_ms), key=_event_time
        )


def load(path: Path | None = None) -> History:
    """History of a file in the source's format, plain or gzip; None is the project's own slice."""
    rows = list(read_rows(path or SLICE))
    if not any(row.quantity > 0 for row in rows):
        raise DatasetError(f"{path or SLICE}: no row is a sale of a product")
    products, patches = _catalog(rows)
    end_ms = (rows[-1].time_ms // DAY_MS + 1) * DAY_MS
    return History(
        products=products,
        patches=patches,
        behavior=tuple(_behavior(row) for row in rows),
        start_ms=rows[0].time_ms // DAY_MS * DAY_MS,
        split_ms=end_ms - REPLAYED_DAYS * DAY_MS,
        end_ms=end_ms,
    )


def read_rows(path: Path) -> Iterator[Row]:
    """The rows that are sales or returns of products, by time (and the source's order within a minute)."""
    with _opened(path) as lines:
        reader = csv.DictReader(lines, restval="")
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise DatasetError(f"{path}: not an Online Retail file, it has no column {', '.join(missing)}")
        rows = [row for line, fields in enumerate(reader, 1) if (row := _row(path, line, fields)) is not None]
    yield from sorted(rows, key=lambda row: (row.time_ms, row.number))


def clean_title(description: str) -> str:
    """`"  RED  RETROSPOT MUG "` -> `"Red Retrospot Mug"`."""
    return string.capwords(description)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            with TextIOWrapper(gzip.open(raw) if zipped else raw, encoding="utf-8", newline="") as lines:
                yield lines
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error


def _row(path: Path, line: int, fields: dict[str, str]) -> Row | None:
    code = fields["StockCode"].strip().upper()
    if not PRODUCT_CODE.fullmatch(code) or not fields["Description"].strip():
        return None
    try:
        quantity = int(fields["Quantity"])
        price = round(Decimal(fields["UnitPrice"]) * 100)
        time = datetime.fromisoformat(fields["InvoiceDate"]).replace(tzinfo=UTC)
        number = int(fields.get(ROW_COLUMN) or line)
    except (ValueError, InvalidOperation) as error:
        raise DatasetError(f"{path}: row {line} is malformed: {error}") from error
    if price < 1 or quantity == 0:
        return None
    return Row(
        number=number,
        invoice=fields["InvoiceNo"],
        code=code,
        description=fields["Description"],
        quantity=quantity,
        time_ms=round(time.timestamp()) * 1000,
        price=price,
        customer=fields["CustomerID"].removesuffix(".0") or None,
    )


def _behavior(row: Row) -> Behavior:
    return Behavior(
        type="purchase" if row.quantity > 0 else "return",
        event_id=str(row.number),
        product_id=row.code,
        event_time=row.time_ms,
        user_id=row.customer,
        session_id=row.invoice,
        quantity=abs(row.quantity),
        price=row.price,
    )


def _catalog(rows: list[Row]) -> tuple[tuple[Product, ...], tuple[Product, ...]]:
    """Products at their first row, and a patch at the first sale of each day that has another price than before."""
    titles = _titles(rows)
    day_prices = _day_prices(rows)
    products: list[Product] = []
    patches: list[Product] = []
    prices: dict[str, int] = {}
    for row in rows:
        price = day_prices.get((row.code, row.time_ms // DAY_MS), row.price)
        if row.code not in prices:
            products.append(
                Product(
                    product_id=row.code,
                    event_time=row.time_ms,
                    title=titles[row.code],
                    price=price,
                    currency=CURRENCY,
                )
            )
        elif row.quantity < 0 or price == prices[row.code]:
            continue
        else:
            patches.append(Product(product_id=row.code, event_time=row.time_ms, price=price))
        prices[row.code] = price
    return tuple(products), tuple(patches)


def _titles(rows: Iterable[Row]) -> dict[str, str]:
    """The most frequent title of each product."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.code][row.description] += 1
    return {code: clean_title(min(count, key=lambda text: (-count[text], text))) for code, count in counts.items()}


def _day_prices(rows: Iterable[Row]) -> dict[tuple[str, int], int]:
    """The most frequent price of each product and day of sales; of equals the higher, for discounts go down."""
    counts: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    for row in rows:
        if row.quantity > 0:
            counts[row.code, row.time_ms // DAY_MS][row.price] += 1
    return {key: max(count, key=lambda price: (count[price], price)) for key, count in counts.items()}


def _event_time(event: Product | Behavior) -> int:
    return event.event_time
