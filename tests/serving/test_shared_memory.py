"""Rows that Triton reads in shared memory: nothing is left behind, nothing is mixed up, and gRPC where it cannot be."""

import asyncio
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from serving import shared_memory
from serving.errors import ScorerUnavailable
from serving.model.export import copy_repository
from serving.model.inprocess import InProcessScorer
from serving.requests import MODELS
from serving.scorer import SCORED_ROWS, TritonScorer
from streams.local.triton_server import TritonServer
from tests.parts import TRITON_READY_TIMEOUT_S, running
from tests.serving.rankers import a_request

pytestmark = pytest.mark.parts


def regions() -> set[str]:
    """Names of this process's regions."""
    return {file.name for file in shared_memory.PLACE.glob(f"freshrank-{os.getpid()}-tensors-*")}


async def test_regions_are_used_again_and_gone_after_close(triton: TritonServer) -> None:
    before = regions()
    scorer = TritonScorer(triton.address, score_timeout_s=10, shared_memory=True)
    await scorer.score(a_request(100))
    made = regions() - before
    await scorer.score(a_request(90))
    assert len(made) == 1
    assert regions() - before == made
    await scorer.close()
    assert regions() == before


async def test_calls_at_once_do_not_disturb_each_other(triton: TritonServer) -> None:
    scorer, net = TritonScorer(triton.address, score_timeout_s=10, shared_memory=True), InProcessScorer()
    requests = [a_request(rows) for rows in (1, 700, 3 * SCORED_ROWS, 40)] * 3
    found = await asyncio.gather(*(scorer.score(request) for request in requests))
    for request, scores in zip(requests, found, strict=True):
        np.testing.assert_allclose(scores.logit, (await net.score(request)).logit, atol=1e-4)
    await scorer.close()


async def test_a_server_that_began_anew_is_told_of_the_regions_again(tmp_path: Path, parts_dir: Path) -> None:
    repository = tmp_path / "models"
    copy_repository(repository)
    request = a_request(100)
    with running(TritonServer(repository, MODELS, parts_dir / "anew"), TRITON_READY_TIMEOUT_S) as server:
        scorer = TritonScorer(server.address, score_timeout_s=10, shared_memory=True)
        first = await scorer.score(request)
        server.kill()
        with pytest.raises(ScorerUnavailable):
            await scorer.score(request)
        with running(server, TRITON_READY_TIMEOUT_S):
            await until_it_is_ready(scorer)
            second = await scorer.score(request)
        np.testing.assert_array_equal(second.logit, first.logit)
        await scorer.close()


async def until_it_is_ready(scorer: TritonScorer) -> None:
    """The client is connected again."""
    async with asyncio.timeout(TRITON_READY_TIMEOUT_S):
        while not await scorer.ready():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("place", ["elsewhere", "elsewhere/there is no such folder"])
async def test_where_it_cannot_be_rows_travel_by_grpc(
    triton: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """The server cannot map the region, or there is no room for one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(shared_memory, "PLACE", tmp_path / place)
    scorer, request = TritonScorer(triton.address, score_timeout_s=10, shared_memory=True), a_request(100)
    with caplog.at_level(logging.WARNING, "serving.scorer"):
        found = [(await scorer.score(request)).logit for _ in range(2)]
    expected = (await InProcessScorer().score(request)).logit
    for logit in found:
        np.testing.assert_allclose(logit, expected, atol=1e-4)
    assert len(caplog.records) == 1
    assert "by gRPC, not in shared memory" in caplog.text
    assert not list((tmp_path / "elsewhere").iterdir())
    await scorer.close()
