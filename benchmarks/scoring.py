"""Scoring: rows of the ranker through Triton, beside the same net in this process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.rows import Finding, Row, Sample
from benchmarks.surroundings import Surroundings, running
from serving.model.bundle import REPOSITORY
from serving.requests import Scorer, ScoreRequest, empty_request
from serving.scorer import LANES, SCORED_ROWS, TritonScorer
from streams.local.engine import copy_repository
from streams.local.triton_server import TritonServer

CANDIDATES = 100
TRITON_READY_S = 180.0
CALL_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of a call -> calls of each side in a run."""

    calls: dict[int, int]


FULL = Plan({100: 50, 1_000: 30, 10_000: 10, 100_000: 3})
QUICK = Plan({100: 5, 1_000: 3})


def run(around: Surroundings) -> Finding:
    """A Triton with the ranker alone."""
    plan = QUICK if around.quick else FULL
    folder = around.folder / "scoring"
    repository = folder / "model_repository"
    folder.mkdir(parents=True, exist_ok=True)
    copy_repository(REPOSITORY, repository)
    triton = TritonServer(repository, ["ranker"], folder)
    around.say("scoring: starting Triton")
    with running(triton, TRITON_READY_S):
        rows = asyncio.run(_measure(around, plan, triton.address))
    return Finding("scoring", tuple(rows), _about())


def _about() -> tuple[str, ...]:
    return (
        f"one call by gRPC, rows of sets of {CANDIDATES}; more than {SCORED_ROWS:,} go in several requests, "
        f"{LANES} under way at once",
        "floor: the same net in this process, on one thread as Triton's",
    )


async def _measure(around: Surroundings, plan: Plan, address: str) -> list[Row]:
    # torch takes seconds to import
    import torch

    from serving.model.backend import THREADS
    from serving.model.inprocess import InProcessScorer

    torch.set_num_threads(THREADS)
    triton = TritonScorer(address, score_timeout_s=CALL_S)
    net = InProcessScorer()
    rows: list[Row] = []
    for size, calls in plan.calls.items():
        request = _request(size)
        for scorer in (triton, net):
            await scorer.score(request)
        samples = []
        for repeat in range(around.repeats):
            taken = [(await _ms(triton, request), await _ms(net, request)) for _ in range(calls)]
            samples.append(Sample(*(median(times) for times in zip(*taken, strict=True))))
            around.say(f"scoring: {size:,} rows, run {repeat + 1} of {around.repeats}: {samples[-1].value:.1f} ms")
        rows.append(Row(f"{size:,} rows", "ms", tuple(samples)))
        rates = tuple(Sample(_rate(size, sample.value), _rate(size, sample.floor)) for sample in samples)
        rows.append(Row(f"{size:,} rows, rows a second", "rows/s", rates))
    await triton.close()
    return rows


def _rate(rows: int, ms: float | None) -> float:
    assert ms is not None
    return rows / ms * 1000


async def _ms(scorer: Scorer, request: ScoreRequest) -> float:
    began = time.perf_counter()
    await scorer.score(request)
    return (time.perf_counter() - began) * 1000


def _request(rows: int) -> ScoreRequest:
    """Known products: every modality there, numbers as shops have them."""
    rng = np.random.default_rng(rows)
    request = empty_request(max(1, rows // CANDIDATES), rows)
    request.query[:] = rng.standard_normal(request.query.shape)
    request.content[:] = rng.standard_normal(request.content.shape)
    request.mask[:] = 1
    request.numeric[:] = rng.integers(0, 5_000, request.numeric.shape)
    request.retrieval[:] = rng.random(rows)
    request.set_index[:] = np.minimum(np.arange(rows) // CANDIDATES, len(request.query) - 1)
    return request
