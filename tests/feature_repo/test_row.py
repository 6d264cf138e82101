"""The blob of one row: what is packed is what is read, one by one and in bulk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.row import (
    HEADER,
    fixed_dtype,
    kafka_time_of,
    pack_row,
    pack_stamps,
    unpack_fixed,
    unpack_row,
    unpack_stamps,
    version_of,
)
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, VIEWS, View
from tests.feature_repo.rows import BASE, blob_of

int64 = st.integers(-(2**63), 2**63 - 1)
texts: st.SearchStrategy[str | bytes] = st.text()
binaries: st.SearchStrategy[str | bytes] = st.binary()
stamps = st.dictionaries(st.integers(0, 2**31 - 1), st.integers(0, 2**50), max_size=4)


@given(st.sampled_from(VIEWS), st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_packed_is_read(view: View, data: st.DataObject) -> None:
    as_of, event_time, kafka_time = data.draw(st.tuples(int64, int64, int64))
    ints = data.draw(st.lists(int64, min_size=len(view.ints), max_size=len(view.ints)))
    floats = data.draw(st.lists(st.floats(width=32), min_size=4, max_size=4))
    numbers = np.resize(np.array(floats, dtype=np.float32), view.float_width)
    strings = [data.draw(texts if field.dtype == "string" else binaries) for field in view.strings]
    stamped = data.draw(stamps)
    row = unpack_row(
        view,
        pack_row(
            view,
            as_of=as_of,
            event_time=event_time,
            kafka_time=kafka_time,
            ints=ints,
            floats=numbers,
            strings=strings,
            stamps=stamped,
        ),
    )
    assert (row.as_of, row.event_time, row.kafka_time, row.version) == (
        as_of,
        event_time,
        kafka_time,
        version_of(stamped),
    )
    assert (list(row.ints), list(row.strings), row.stamps) == (ints, strings, stamped)
    assert row.floats.tobytes() == numbers.tobytes(), "bit for bit, also what is not a number"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_bulk_equals_one_by_one(view: View) -> None:
    blobs = [blob_of(view, number) if number % 3 else None for number in range(7)]
    fixed = unpack_fixed(view, blobs)
    assert fixed.dtype == fixed_dtype(view)
    for blob, record in zip(blobs, fixed, strict=True):
        if blob is None:
            assert record == np.zeros((), dtype=fixed.dtype), "a missing row is zeros"
        else:
            row = unpack_row(view, blob)
            assert (record["version"], record["as_of"], record["event_time"]) == (
                row.version,
                row.as_of,
                row.event_time,
            )
            assert tuple(record["ints"]) == row.ints
            assert np.array_equal(record["floats"], row.floats)


def test_no_rows_at_all() -> None:
    assert unpack_fixed(PRODUCT_BEHAVIOR, []).shape == (0,)


def test_another_format_is_refused_by_name() -> None:
    blob = blob_of(PRODUCT_CATALOG)
    with pytest.raises(ValueError, match="row of view product_catalog has format 9, expected 1"):
        unpack_row(PRODUCT_CATALOG, b"\x09" + blob[1:])


def test_kafka_time_is_read_without_the_rest() -> None:
    blob = blob_of(PRODUCT_CATALOG, event_time=BASE)
    assert kafka_time_of(blob) == kafka_time_of(blob[: HEADER.size]) == BASE + 7


@given(stamps)
@settings(max_examples=40)
def test_equal_stamps_have_equal_bytes(stamped: dict[int, int]) -> None:
    backwards = dict(reversed(stamped.items()))
    assert pack_stamps(stamped) == pack_stamps(backwards)
    assert unpack_stamps(pack_stamps(stamped)) == stamped


def test_a_version_grows_with_every_offset_and_is_zero_only_for_an_empty_row() -> None:
    assert [version_of(s) for s in ({}, {0: 0}, {0: 1}, {0: 1, 3: 0}, {0: 1, 3: 9})] == [0, 1, 2, 3, 12]
