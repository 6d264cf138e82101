"""Scoring: rows of the ranker through Triton, beside the same net in this process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.rows import Finding, Row, Sample
from benchmarks.surroundings import Surroundings, running
from serving.model.bundle import REPOSITORY
from serving.requests import Scorer, ScoreRequest
from serving.scorer import LANES, SCORED_ROWS, TritonScorer
from streams.local.engine import copy_repository
from streams.local.triton_server import TritonServer

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
    from serving.model.suites.scoring import CANDIDATES

    return (
        f"one call, rows of sets of {CANDIDATES}; more than {SCORED_ROWS:,} go in several requests, {LANES} under way "
        "at once; in shared memory as workers beside their Triton hand them over, or all by gRPC",
        "floor: the same net in this process, on one thread as Triton's",
    )


async def _measure(around: Surroundings, plan: Plan, address: str) -> list[Row]:
    # torch takes seconds to import
    import torch

    from serving.model.backend import THREADS
    from serving.model.inprocess import InProcessScorer
    from serving.model.suites.scoring import request_of

    torch.set_num_threads(THREADS)
    ways = {
        "": TritonScorer(address, score_timeout_s=CALL_S, shared_memory=True),
        " by gRPC": TritonScorer(address, score_timeout_s=CALL_S),
    }
    net = InProcessScorer()
    rows: list[Row] = []
    for size, calls in plan.calls.items():
        request = request_of(size)
        sides: tuple[Scorer, ...] = (*ways.values(), net)
        for scorer in sides:
            await scorer.score(request)
        samples: dict[str, list[Sample]] = {way: [] for way in ways}
        for repeat in range(around.repeats):
            taken = [[await _ms(scorer, request) for scorer in sides] for _ in range(calls)]
            *ours, floor = (median(times) for times in zip(*taken, strict=True))
            for way, ms in zip(ways, ours, strict=True):
                samples[way].append(Sample(ms, floor))
            around.say(f"scoring: {size:,} rows, run {repeat + 1} of {around.repeats}: {ours[0]:.1f} ms")
        for way, of_way in samples.items():
            rows.append(Row(f"{size:,} rows{way}", "ms", tuple(of_way)))
            rates = tuple(Sample(_rate(size, sample.value), _rate(size, sample.floor)) for sample in of_way)
            rows.append(Row(f"{size:,} rows{way}, rows a second", "rows/s", rates))
    for triton in ways.values():
        await triton.close()
    return rows


def _rate(rows: int, ms: float | None) -> float:
    assert ms is not None
    return rows / ms * 1000


async def _ms(scorer: Scorer, request: ScoreRequest) -> float:
    began = time.perf_counter()
    await scorer.score(request)
    return (time.perf_counter() - began) * 1000
