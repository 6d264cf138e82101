"""A Triton that stops for a while and goes on, with requests of every model under way."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from serving.errors import ScorerUnavailable
from serving.model.export import copy_repository
from serving.requests import MODELS, ProductContent
from serving.scorer import TritonScorer
from streams.local.triton_server import TritonServer
from tests.parts import TRITON_READY_TIMEOUT_S, running
from tests.serving.rankers import a_request

pytestmark = pytest.mark.parts

#: the server lets stubs go that give no sign of life for a second
FROZEN_S = 1.5
FREEZES = 3


@pytest.mark.parametrize("shared_memory", [True, False])
async def test_a_frozen_server_wakes_as_it_was(tmp_path: Path, shared_memory: bool) -> None:
    copy_repository(tmp_path / "models")
    with running(TritonServer(tmp_path / "models", MODELS, tmp_path), TRITON_READY_TIMEOUT_S) as server:
        scorer = TritonScorer(server.address, score_timeout_s=1, shared_memory=shared_memory)
        calls = (
            lambda: scorer.score(a_request(100)),
            lambda: scorer.encode_queries(["white shirt"]),
            lambda: scorer.encode_products([ProductContent("p", title="white shirt")]),
        )
        answers = [0] * len(calls)
        callers = [asyncio.create_task(call_for_ever(call, answers, n)) for n, call in enumerate(calls)]
        for _ in range(FREEZES):
            await all_answer(answers)
            server.freeze()
            await asyncio.sleep(FROZEN_S)
            server.thaw()
        await all_answer(answers)
        assert server.alive()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await scorer.close()


async def call_for_ever(call: Callable[[], Awaitable[object]], answers: list[int], number: int) -> None:
    """One request after the other, so that one is nearly always under way."""
    while True:
        with suppress(ScorerUnavailable):
            await call()
            answers[number] += 1
        await asyncio.sleep(0)


async def all_answer(answers: list[int]) -> None:
    """Each model answers again."""
    before = list(answers)
    async with asyncio.timeout(TRITON_READY_TIMEOUT_S):
        while not all(now > then + 1 for now, then in zip(answers, before, strict=True)):
            await asyncio.sleep(0.05)
