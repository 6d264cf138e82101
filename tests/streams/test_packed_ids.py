"""Lists of packed ids, of one length or of many."""

from __future__ import annotations

import msgpack
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.packed_ids import PackedIds

texts = st.text(max_size=40) | st.sampled_from(["aaaa", "bbbb", "cccc"])


@given(
    st.lists(texts, min_size=1, max_size=8) | st.lists(st.sampled_from(["one", "two"]), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_lists_are_packed_as_msgpack_packs_their_ids(ids: list[str], lists: int, width: int) -> None:
    packed = PackedIds(1)
    for slot, name in enumerate(ids):
        packed.put(slot, name)
    slots = np.array([[(7 * row + 3 * rank) % len(ids) for rank in range(width)] for row in range(lists)])
    counts = np.array([(row * 5) % (width + 1) for row in range(lists)])
    expected = [
        b"".join(msgpack.packb(ids[slot]) or b"" for slot in row[:count])
        for row, count in zip(slots.tolist(), counts.tolist(), strict=True)
    ]
    assert packed.lists(slots, counts) == expected


def test_a_slot_that_is_given_to_another_product_is_that_products() -> None:
    packed = PackedIds(4)
    packed.put(2, "a long name of a product")
    packed.put(2, "b")
    assert packed.lists(np.array([[2]]), np.array([1])) == [msgpack.packb("b")]
