"""What a reader of `rankings` gets is what a ranking is, whatever it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.dirty import Since
from streams.packed_ids import PackedIds
from streams.packing import pack_rankings
from streams.records import Cause, Ranking, decode_ranking
from streams.reordering import Reordered
from streams.result_sets import LiveSet

IDS = ["a", "b" * 31, "ü" * 16, "x" * 128, "日本", "p-1", "p-2", "p-3"]


def packed_ids(ids: Sequence[str]) -> PackedIds:
    found = PackedIds(2)
    for slot, name in enumerate(ids):
        found.put(slot, name)
    return found


PACKED = packed_ids(IDS)
NOW = 1_790_000_000_000
VIEWS = ("product_catalog", "product_behavior", "product_content")

causes = st.none() | st.builds(
    Cause, st.sampled_from(VIEWS), st.text(max_size=9), st.integers(0, 2**62), st.integers(0, 2**62)
)
ages = st.just((-1, -1)) | st.tuples(st.integers(0, 2**40), st.integers(0, 2**62))


@st.composite
def wanted(draw: st.DrawFn, width: int = 6) -> Ranking:
    ids = draw(st.permutations(IDS))[: draw(st.integers(0, width))]
    scores = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=len(ids), max_size=len(ids)))
    previous = draw(st.lists(st.integers(-1, 999), min_size=len(ids), max_size=len(ids)))
    found = {view: draw(ages) for view in VIEWS}
    explained = draw(st.booleans())
    return Ranking(
        result_set_id=draw(st.text(min_size=1, max_size=40)),
        version=draw(st.integers(0, 2**62)),
        product_ids=tuple(ids),
        scores=np.array(scores, np.float32),
        previous_ranks=np.array(previous, np.int16),
        contributions=np.arange(len(ids) * 3, dtype=np.float32).reshape(len(ids), 3) if explained and ids else None,
        model_version="default/7",
        caused_by=draw(causes),
        feature_age_ms={view: pair for view, pair in found.items() if pair[0] >= 0},
        scored_at=draw(st.integers(0, 2**62)),
        published_at=NOW,
        degraded=draw(st.booleans()),
        cause_kafka_time=draw(st.integers(0, 2**62)),
    )


def reordered(rankings: Sequence[Ranking], width: int = 6) -> Reordered:
    """The columns that hold these rankings."""

    def padded(values: Sequence[int] | np.ndarray, kind: type) -> np.ndarray:
        return np.pad(np.array(values, kind), (0, width - len(values)), constant_values=3)

    def column(edge: int) -> np.ndarray:
        found = [[one.feature_age_ms.get(view, (-1, -1))[edge] for one in rankings] for view in VIEWS]
        return np.array(found, np.int64)

    kinds = np.full(len(rankings), None, object)
    kinds[:] = [one.caused_by for one in rankings]
    return Reordered(
        sets=tuple(LiveSet(n, one.result_set_id, 0, b"", None, None, None) for n, one in enumerate(rankings)),
        partitions=np.zeros(len(rankings), np.int32),
        counts=np.array([len(one.product_ids) for one in rankings]),
        slots=np.stack([padded([IDS.index(name) for name in one.product_ids], np.int64) for one in rankings]),
        scores=np.stack([padded(one.scores, np.float32) for one in rankings]),
        previous_ranks=np.stack([padded(one.previous_ranks, np.int16) for one in rankings]),
        contributions={n: one.contributions for n, one in enumerate(rankings) if one.contributions is not None},
        model_version="default/7",
        degraded=np.array([one.degraded for one in rankings]),
        causes=kinds,
        cause_times=np.array([Since(one.cause_kafka_time) for one in rankings]),
        scored_at=np.array([one.scored_at for one in rankings]),
        youngest=column(0),
        oldest=column(1),
    )


def assert_equal(one: Ranking, other: Ranking) -> None:
    for name in Ranking.__slots__:
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype
            assert mine.shape == theirs.shape
            assert mine.tobytes() == theirs.tobytes()
        else:
            assert mine == theirs, name


@given(st.lists(wanted(), min_size=1, max_size=5))
def test_a_reader_gets_what_was_packed(rankings: list[Ranking]) -> None:
    versions = np.array([one.version for one in rankings])
    keys = [one.result_set_id.encode() for one in rankings]
    values = pack_rankings(reordered(rankings), keys, PACKED, versions, NOW)
    assert len(values) == len(rankings)
    for value, one in zip(values, rankings, strict=True):
        assert_equal(decode_ranking(value), one)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 63, 64, 127, 128, 300, 1000])
def test_lists_of_any_length(count: int) -> None:
    """Lengths around which msgpack's headers change."""
    ids = [f"product-{number}" for number in range(1000)]
    empty = Ranking(
        result_set_id="s",
        version=1,
        product_ids=(),
        scores=np.empty(0, np.float32),
        previous_ranks=np.empty(0, np.int16),
        contributions=None,
        model_version="default/7",
        caused_by=None,
        feature_age_ms={},
        scored_at=2,
        published_at=NOW,
        degraded=False,
        cause_kafka_time=3,
    )
    one = replace(
        empty,
        product_ids=tuple(ids[:count]),
        scores=np.arange(count, dtype=np.float32),
        previous_ranks=np.arange(count, dtype=np.int16),
    )
    full = replace(
        reordered([empty]),
        counts=np.array([count]),
        slots=np.arange(1000)[None],
        scores=np.arange(1000, dtype=np.float32)[None],
        previous_ranks=np.arange(1000, dtype=np.int16)[None],
    )
    (value,) = pack_rankings(full, [b"s"], packed_ids(ids), np.array([1]), NOW)
    assert_equal(decode_ranking(value), one)
