"""Whatever befalls the engine, once it is quiet every list and row is what an offline replay of the same log says.

The shop trades, processes die or are replaced by successors while they still run, Redis goes away, loses answers or
everything since a snapshot, the model goes away: in any order that hypothesis thinks of. Nothing waits for real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from feature_repo import row_store
from feature_repo.events import Product
from streams.oracle.comparing import compare, compare_row, entities
from streams.oracle.expecting import Expectations
from streams.records import (
    BEHAVIOR,
    CATALOG,
    RANKINGS,
    RESULT_SETS,
    Record,
    decode_headers,
    decode_ranking,
    encode_bulk,
    encode_record,
)
from tests.streams.bench import MINUTE, Kind, behavior
from tests.streams.fakes import FakeRowStore, Scope
from tests.streams.lists import registration
from tests.streams.loops import VirtualLoop
from tests.streams.simulation import Simulation, space_of

#: time for everything that waits for something: 20 s of emissions that grow old, retries, probes, checks
QUIET_S = 90.0
PRODUCTS = [f"p{number}" for number in range(6)]
USERS = ["u", "v"]
SETS = ["s", "t"]


@dataclass(frozen=True, repr=False)
class Step:
    """Something that happens, and what a failing plan says of it. The number makes event ids unique."""

    text: str
    do: Callable[[Simulation, int], Awaitable[None]]

    def __repr__(self) -> str:
        return f"<{self.text}>"


def send(simulation: Simulation, topic: str, record: Record, key: str, bulk_on: int | None) -> None:
    """A single record on its own partition, or a bulk of one on any."""
    if bulk_on is None:
        simulation.log.append(topic, encode_record(record), key.encode(), None)
    else:
        simulation.log.append(topic, encode_bulk([record]), None, bulk_on)


partitions = st.none() | st.integers(0, 1)


@st.composite
def patches(draw: st.DrawFn, products: Sequence[str] = PRODUCTS) -> Step:
    product, bulk_on, late = draw(st.sampled_from(products)), draw(partitions), draw(st.integers(0, 3))
    fields: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "price": st.integers(1, 9_000),
                "stock": st.integers(0, 2),
                "title": st.sampled_from(["red shirt", "blue", "green socks"]),
                "description": st.sampled_from(["warm", "cold"]),
                "delisted": st.booleans(),
            },
        )
    )

    async def step(simulation: Simulation, number: int) -> None:
        patch = Product(product_id=product, event_time=simulation.log.time - late * MINUTE, **fields)
        send(simulation, CATALOG, patch, product, bulk_on)

    return Step(f"patch {product} {fields} on {bulk_on}, {late} min late", step)


@st.composite
def actions(draw: st.DrawFn, products: Sequence[str] = PRODUCTS) -> Step:
    product, late = draw(st.sampled_from(products)), draw(st.sampled_from([0, 0, 1, 9, 70]))
    kind: Kind = draw(st.sampled_from(["impression", "click", "purchase", "return"]))
    user = draw(st.none() | st.sampled_from(USERS))
    # between two partitions there is no order, and whether a late double counts depends on what came before it
    has_two_writers = PRODUCTS.index(product) % 2 == 0
    bulk_on = draw(partitions) if has_two_writers else None
    times = 1 if has_two_writers else draw(st.sampled_from([1, 2]))

    async def step(simulation: Simulation, number: int) -> None:
        time = simulation.log.time - late * MINUTE
        event = behavior(product, number, time=time, kind=kind, user_id=user)
        for _ in range(times):
            send(simulation, BEHAVIOR, event, product, bulk_on)

    return Step(f"{kind} {product} by {user} x{times} on {bulk_on}, {late} min late", step)


@st.composite
def registrations(draw: st.DrawFn) -> Step:
    name, query, user = (
        draw(st.sampled_from(SETS)),
        draw(st.sampled_from([None, "red", "socks"])),
        draw(st.none() | st.sampled_from(USERS)),
    )
    candidates = draw(
        st.lists(
            st.tuples(st.sampled_from(PRODUCTS), st.integers(0, 9).map(float)), min_size=1, unique_by=lambda c: c[0]
        )
    )
    lives = draw(st.none() | st.integers(1, 100))

    async def step(simulation: Simulation, number: int) -> None:
        expires_at = None if lives is None else simulation.log.time + lives * MINUTE
        found = registration(name, candidates, query=query, user_id=user, expires_at=expires_at)
        simulation.log.append(RESULT_SETS, encode_record(found), name.encode(), 0)

    return Step(f"register {name} {candidates} query {query} user {user} for {lives} min", step)


@st.composite
def closings(draw: st.DrawFn) -> Step:
    name = draw(st.sampled_from(SETS))

    async def step(simulation: Simulation, number: int) -> None:
        simulation.log.append(RESULT_SETS, None, name.encode(), 0)

    return Step(f"close {name}", step)


@st.composite
def pauses(draw: st.DrawFn) -> Step:
    seconds = draw(st.sampled_from([0.01, 0.3, 1.0, 30.0]))

    async def step(simulation: Simulation, number: int) -> None:
        await asyncio.sleep(seconds)

    return Step(f"wait {seconds} s", step)


@st.composite
def beats(draw: st.DrawFn) -> Step:
    minutes = draw(st.sampled_from([1, 9, 61]))

    async def step(simulation: Simulation, number: int) -> None:
        simulation.beat(minutes)

    return Step(f"{minutes} min later", step)


@st.composite
def successions(draw: st.DrawFn) -> Step:
    role = draw(st.sampled_from(["product", "content", "ranking"]))
    overlap = draw(st.sampled_from([0.0, 0.0, 0.2, 3.0]))

    async def step(simulation: Simulation, number: int) -> None:
        await simulation.replace(role, overlap)

    return Step(f"another {role}, the old one for {overlap} s", step)


async def redis_is_back(simulation: Simulation) -> None:
    simulation.redis.away = False


async def model_is_back(simulation: Simulation) -> None:
    simulation.scorer.away = False


@st.composite
def troubles(draw: st.DrawFn) -> Step:
    what, lasts = (
        draw(st.sampled_from(["away", "model", "unanswered", "save", "restore", "empty"])),
        draw(st.sampled_from([0.1, 2.0, 30.0])),
    )

    async def step(simulation: Simulation, number: int) -> None:
        redis, scorer = simulation.redis, simulation.scorer
        match what:
            case "away":
                redis.away = True
                simulation.later(lasts, redis_is_back(simulation))
            case "model":
                scorer.away = True
                simulation.later(lasts, model_is_back(simulation))
            case "unanswered":
                redis.unanswered += 3
            case "save":
                simulation.snapshot = redis.save()
            case "restore":
                redis.restore(simulation.snapshot)
            case "empty":
                redis.restore({})

    return Step(f"{what} for {lasts} s", step)


@st.composite
def bursts(draw: st.DrawFn, products: Sequence[str] = PRODUCTS) -> Step:
    trades = draw(st.lists(st.one_of(patches(products), actions(products)), min_size=2, max_size=6))

    async def step(simulation: Simulation, number: int) -> None:
        for place, trade in enumerate(trades):
            await trade.do(simulation, 1_000 * (number + 1) + place)

    return Step(f"{trades}", step)


steps = st.one_of(
    bursts(), bursts(), patches(), actions(), registrations(), closings(), pauses(), beats(), successions(), troubles()
)
#: one product whose events come by both partitions: two writers that take its rows from each other
CONTESTED = PRODUCTS[:1]
contests = st.one_of(
    bursts(CONTESTED), actions(CONTESTED), patches(CONTESTED), pauses(), beats(), beats(), successions(), troubles()
)
#: so that most plans have lists to lose
OPENING = [
    registration("s", [(product, 1.0) for product in PRODUCTS], query="red"),
    registration("t", [(product, 2.0) for product in PRODUCTS[:3]], user_id="u"),
]


async def differences(simulation: Simulation) -> list[str]:
    """What is not as the replay says, in words."""
    replay = simulation.log.replay()
    expected = await Expectations(simulation.scorer, lambda reference: None).of(replay)
    #: the last record of each set, as compaction leaves it, and the one that a client holds, who takes no lower version
    last: dict[str, bytes | None] = {}
    held: dict[str, tuple[int, bytes | None]] = {}
    for entry in simulation.log.places[RANKINGS, 0]:
        name, (_, version) = (entry.key or b"").decode(), decode_headers(entry.headers)
        last[name] = entry.value
        if version >= held.get(name, (0, None))[0]:
            held[name] = version, entry.value
    found = [f"{name}: nobody registered it" for name in last.keys() - expected.keys()]
    for name, expectation in expected.items():
        for whose, value in (("last", last.get(name)), ("client's", held.get(name, (0, None))[1])):
            got = None if value is None else decode_ranking(value)
            found += [f"{name}, {whose}: {text}" for text in compare(expectation, got)]
    store = FakeRowStore(simulation.redis)
    for view, names in entities(replay).items():
        for entity, blob in zip(names, await store.read(space_of(view), names), strict=True):
            found += [f"{view.name} {entity}: {text}" for text in compare_row(replay, view, entity, blob)]
    return found + [f"crashed: {error!r}" for error in simulation.crashes]


async def run(plan: list[Step], scope: Scope) -> list[str]:
    simulation = Simulation(scope)
    simulation.beat(1)
    for opened in OPENING:
        simulation.log.append(RESULT_SETS, encode_record(opened), opened.result_set_id.encode(), 0)
    for number, step in enumerate(plan):
        await step.do(simulation, number)
    await asyncio.sleep(1)
    simulation.beat(1)
    await asyncio.sleep(QUIET_S)
    found = await differences(simulation)
    await simulation.stop()
    return found + [f"crashed: {error!r}" for error in simulation.crashes]


enough = settings(
    max_examples=50,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
scopes = st.sampled_from(get_args(Scope))
rows_per_script = st.sampled_from([1, 2, row_store.ROWS_PER_SCRIPT])


@enough
@given(st.lists(steps, min_size=5, max_size=40), scopes, rows_per_script)
def test_every_list_and_row_is_what_the_log_says(plan: list[Step], scope: Scope, rows_per_script: int) -> None:
    simulate(plan, scope, rows_per_script)


@enough
@given(st.lists(contests, min_size=15, max_size=40), scopes, rows_per_script)
def test_so_it_is_where_two_partitions_contest_a_row(plan: list[Step], scope: Scope, rows_per_script: int) -> None:
    simulate(plan, scope, rows_per_script)


def simulate(plan: list[Step], scope: Scope, rows_per_script: int) -> None:
    loop = VirtualLoop()
    try:
        with patch.object(row_store, "ROWS_PER_SCRIPT", rows_per_script):
            assert loop.run_until_complete(run(plan, scope)) == []
    finally:
        loop.close()
