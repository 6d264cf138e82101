"""The fake Redis keeps the store's contract: the same tests as on the real one, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import pytest

from feature_repo.row_store import RowStore, Space
from tests.feature_repo import test_row_store as contract
from tests.feature_repo.rows import new_space
from tests.streams.fakes import REDIS_EPOCH_MS, FakeRedis, FakeRowStore, loop_ms

#: fixtures that only a real Redis can give
REAL_ONLY = {"raw", "redis_server", "tmp_path"}


def _asks_for_a_store_alone(test: Callable[..., object]) -> bool:
    asked = set(signature(test).parameters)
    return {"store", "space"} <= asked and not asked & REAL_ONLY


_TESTS = {name: test for name, test in vars(contract).items() if name.startswith("test_")}
globals().update({name: test for name, test in _TESTS.items() if _asks_for_a_store_alone(test)})


two_a_script = contract.two_a_script


@pytest.fixture
async def store() -> RowStore:
    return FakeRowStore(FakeRedis(lambda: REDIS_EPOCH_MS + loop_ms()))


@pytest.fixture
def space() -> Space:
    return new_space(contract.VIEW)


def test_the_contract_was_found() -> None:
    assert sum(name.startswith("test_") for name in globals()) > 8
