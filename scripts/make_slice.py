#!/usr/bin/env python3
"""Cut the project's slice out of the whole UCI Online Retail file. The same input gives the same bytes.

    python scripts/make_slice.py --data online_retail.csv.gz

Kept: the rows of whole days [FROM, UNTIL) that serving.datasets.online_retail accepts, of the products with the most
sales in them, with the columns that the loader reads and the row number of the source.
"""

import argparse
import csv
import gzip
import io
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

from serving.datasets import online_retail
from serving.datasets.online_retail import COLUMNS, ROW_COLUMN, SLICE, Row


def main() -> None:
    """Read the whole, write the slice, say what is in it."""
    arguments = parse_arguments()
    since, until = midnight_ms(arguments.since), midnight_ms(arguments.until)
    rows = [row for row in online_retail.read_rows(arguments.data) if since <= row.time_ms < until]
    chosen = most_bought(rows, arguments.products)
    kept = [row for row in rows if row.code in chosen]
    arguments.out.write_bytes(packed(kept))
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {len(kept):,} rows of {len(chosen):,} products, {size:,} bytes")  # noqa: T201


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the whole file, csv or csv.gz")
    parser.add_argument("--out", type=Path, default=SLICE)
    parser.add_argument("--since", type=date.fromisoformat, default="2011-10-09", help="first day")
    parser.add_argument("--until", type=date.fromisoformat, default="2011-12-04", help="day after the last")
    parser.add_argument("--products", type=int, default=2000, help="how many products")
    return parser.parse_args()


def midnight_ms(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def most_bought(rows: list[Row], count: int) -> set[str]:
    """Codes of the products with the most sales rows."""
    sales = Counter(row.code for row in rows if row.quantity > 0)
    return set(sorted(sales, key=lambda code: (-sales[code], code))[:count])


def packed(rows: list[Row]) -> bytes:
    """The rows as gzipped CSV; no file name and no time in the header, so that the bytes repeat."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((ROW_COLUMN, *COLUMNS))
    writer.writerows(map(columns, rows))
    return gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)


def columns(row: Row) -> tuple[int | str, ...]:
    """A row as the source writes it, in the order of the header."""
    time = datetime.fromtimestamp(row.time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    price = f"{row.price // 100}.{row.price % 100:02}"
    description = row.description.strip()
    return (row.number, row.invoice, row.code, description, row.quantity, time, price, row.customer or "")


if __name__ == "__main__":
    main()
