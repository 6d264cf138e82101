"""A row is a function of the events in it: their order, their batches, doubles, flushes and restarts leave no trace."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.events import Behavior, Product
from feature_repo.row import join_row
from feature_repo.row_store import unpack_stored
from streams.folding import BehaviorFolding, CatalogFolding, Entry, Folding, UserFolding
from streams.writing import RowWriter
from tests.streams.bench import HOUR, MINUTE, Bench
from tests.streams.loops import VirtualLoop, settle

FEW = settings(max_examples=40, deadline=None)
FOLDINGS = [BehaviorFolding(), CatalogFolding(), UserFolding()]

kinds: st.SearchStrategy[Literal["impression", "click", "cart", "purchase", "return"]] = st.sampled_from(
    ["impression", "click", "cart", "purchase", "return"]
)
# within the ten minutes of remembered ids, over the edges of minutes and of an hour
times = st.integers(0, 10 * MINUTE - 1).map(lambda after: HOUR + 55 * MINUTE + after)


@st.composite
def told(draw: st.DrawFn, folding: Folding[Any]) -> list[Entry]:
    """Messages of one partition that tell of one entity, in their order there; some hold an event a second time."""
    entries: list[Entry] = []
    events: list[Behavior | Product] = []
    for offset in range(draw(st.integers(1, 12))):
        records = []
        for place in range(draw(st.integers(1, 3))):
            time = draw(times)
            if isinstance(folding, CatalogFolding):
                price, stock = draw(st.one_of(st.none(), st.integers(1, 9))), draw(st.integers(0, 3))
                events.append(Product(product_id="a", event_time=time, price=price, stock=stock, title=str(offset % 3)))
            else:
                kind, quantity = draw(kinds), draw(st.integers(1, 700))
                event_id = f"e{offset}-{place}"
                events.append(
                    Behavior(type=kind, event_id=event_id, product_id="a", event_time=time, quantity=quantity)
                )
            records.append((place, events[-1]))
        if not isinstance(folding, CatalogFolding) and draw(st.booleans()):
            records.append((len(records), draw(st.sampled_from(events))))
        entries.append(Entry("a", {0: offset}, offset, HOUR + offset, tuple(records)))
    return entries


def row_bytes(folding: Folding[Any], entries: Sequence[Entry], together: int = 1) -> tuple[bytes, bytes]:
    """The packed state and the blob of a row after these entries, so many of them folded together."""
    state, stamps = folding.empty(), {0: max(entry.input_offset for entry in entries)}
    for start in range(0, len(entries), together):
        folding.fold(state, entries[start : start + together])
    as_of = folding.newest(state)
    values = folding.values(state, as_of)
    return folding.pack(state), join_row(values, as_of=as_of, event_time=as_of, kafka_time=HOUR, stamps=stamps)


@pytest.mark.parametrize("folding", FOLDINGS, ids=lambda folding: folding.view.name)
@given(data=st.data(), rng=st.randoms(use_true_random=False))
@FEW
def test_the_order_of_messages_leaves_no_trace(folding: Folding[Any], data: st.DataObject, rng: random.Random) -> None:
    entries = data.draw(told(folding))
    if isinstance(folding, UserFolding):
        # which of two doubles is kept tells its place in the log: the history shows the first that came
        entries = [Entry(e.entity, e.stamps, e.input_offset, e.kafka_time, _without_doubles(e)) for e in entries]
    shuffled = list(entries)
    rng.shuffle(shuffled)
    assert row_bytes(folding, shuffled) == row_bytes(folding, entries)
    assert row_bytes(folding, shuffled, rng.randint(2, 9)) == row_bytes(folding, entries)


def _without_doubles(entry: Entry) -> tuple[tuple[int, Behavior], ...]:
    own = f"e{entry.input_offset}-"
    return tuple((place, event) for place, event in entry.records if event.event_id == f"{own}{place}")


async def stored_after(folding: Folding[Any], entries: Sequence[Entry], random: random.Random | None) -> bytes:
    """What Redis holds of the row at the end: in one batch, or in random ones with flushes and restarts between."""
    bench = Bench()
    writer = bench.writer(folding)

    async def write_all(writer: RowWriter) -> None:
        await settle()
        await writer.flush()

    rest = list(entries)
    while rest:
        size = len(rest) if random is None else random.randint(1, len(rest))
        await bench.take(writer, *rest[:size])
        rest = rest[size:]
        if random is not None and random.random() < 0.5:
            await write_all(writer)
        if random is not None and random.random() < 0.3:
            # a new owner reads again what was not written
            marker = await bench.marker(writer)
            writer = bench.writer(folding, marker=marker)
            rest = list(entries[0 if marker is None else marker.offset :])
    await write_all(writer)
    blob, state = (bench.redis.keys[key.encode()][b"a"] for key in (writer.space.blobs, writer.space.states))
    assert bench.stop() == []
    stored = unpack_stored(state)
    assert stored.stamps == {0: len(entries) - 1}
    return bytes(blob + state)


@pytest.mark.parametrize("folding", FOLDINGS, ids=lambda folding: folding.view.name)
@given(data=st.data(), rng=st.randoms(use_true_random=False))
@FEW
def test_batches_flushes_and_restarts_leave_no_trace(
    folding: Folding[Any], data: st.DataObject, rng: random.Random
) -> None:
    entries = data.draw(told(folding))
    loop = VirtualLoop()
    try:
        straight = loop.run_until_complete(stored_after(folding, entries, None))
        broken = loop.run_until_complete(stored_after(folding, entries, rng))
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert broken == straight
