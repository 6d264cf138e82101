"""Rows and pictures per second: the ranker through Triton beside the same net in process, and both nets on a GPU beside
what its memory and its arithmetic allow."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

import numpy as np
import torch

from serving.errors import ServingError
from serving.model.backend import THREADS
from serving.model.bundle import REPOSITORY
from serving.model.inprocess import InProcessScorer
from serving.model.suites.asking import Asking
from serving.model.suites.device import on_device
from serving.model.suites.learning import served
from serving.model.suites.rows import Finding, Row, Target
from serving.requests import Scorer, ScoreRequest, empty_request
from serving.scorer import TritonScorer

SUITE: Final = "scoring"
#: rows of a call -> calls of each side in a run
CALLS: Final[Mapping[int, int]] = {100: 60, 1_000: 40, 5_000: 20, 10_000: 15, 20_000: 10}
RUNS: Final = 5
CANDIDATES: Final = 100
JUDGED_ROWS: Final = 10_000
SHARE: Final = Target(0.6)
CALL_TIMEOUT_S: Final = 60.0


def measure(asking: Asking) -> Finding:
    """Interleaved calls of both sides; on a GPU, where there is one, both nets in every form."""
    if asking.triton is None:
        raise ServingError("where is Triton? the suite scoring takes the address of one that serves the ranker")
    torch.set_num_threads(THREADS)
    rows = asyncio.run(_through_triton(asking, asking.triton))
    about = [
        f"One call, sets of {CANDIDATES} rows, which Triton reads in shared memory, or all by gRPC; calls of all sides "
        f"take turns; median of {asking.fewer(RUNS)} runs (least – greatest). Peer: the same net in this process, on "
        f"as many threads as Triton's ({THREADS}).",
    ]
    if torch.cuda.is_available():
        rows += on_device(served(asking.weights), asking)
        about.append(
            f"On {torch.cuda.get_device_name()}: peer is the roofline, the less of what the measured bandwidth lets "
            "inputs and outputs through and what the measured arithmetic computes; floor is the eager net."
        )
    else:
        about.append("No GPU here: nothing was measured on one.")
    return Finding(SUITE, "Scoring: rows and pictures per second", tuple(rows), tuple(about))


async def _through_triton(asking: Asking, address: str) -> list[Row]:
    ways = {
        "": TritonScorer(address, score_timeout_s=CALL_TIMEOUT_S, shared_memory=True),
        ", all by gRPC": TritonScorer(address, score_timeout_s=CALL_TIMEOUT_S),
    }
    here = InProcessScorer(REPOSITORY)
    rows: list[Row] = []
    for size, calls in CALLS.items():
        request = request_of(size)
        sides: tuple[Scorer, ...] = (*ways.values(), here)
        for scorer in sides:
            await scorer.score(request)
        rates: list[list[float]] = []
        for run in range(asking.fewer(RUNS)):
            asking.tell(f"{size:,} rows a call", run, asking.fewer(RUNS))
            taken = [[await _seconds(scorer, request) for scorer in sides] for _ in range(asking.fewer(calls))]
            rates.append([size / median(times) for times in zip(*taken, strict=True)])
        *through, beside = zip(*rates, strict=True)
        for way, ours in zip(ways, through, strict=True):
            rows += _rows(f"ranker through Triton, {size:,} rows a call{way}", size, ours, beside)
    for triton in ways.values():
        await triton.close()
    return rows


def _rows(name: str, size: int, ours: Sequence[float], beside: Sequence[float]) -> list[Row]:
    """Rows a second of every run, and what share they are of those in process."""
    shares = [one / other for one, other in zip(ours, beside, strict=True)]
    target = SHARE if size == JUDGED_ROWS else None
    return [
        Row(name, median(ours), "rows/s", peer=median(beside), spread=(min(ours), max(ours))),
        Row(f"{name}: share of in process", median(shares), spread=(min(shares), max(shares)), target=target),
    ]


async def _seconds(scorer: Scorer, request: ScoreRequest) -> float:
    began = time.perf_counter()
    await scorer.score(request)
    return time.perf_counter() - began


def request_of(rows: int) -> ScoreRequest:
    """Known products: every modality there, numbers as shops have them."""
    random = np.random.default_rng(rows)
    asked = empty_request(max(1, rows // CANDIDATES), rows)
    filled: dict[str, Any] = {
        "query": random.standard_normal(asked.query.shape),
        "user": random.standard_normal(asked.user.shape),
        "content": random.standard_normal(asked.content.shape),
        "mask": 1,
        "numeric": random.integers(0, 5_000, asked.numeric.shape),
        "retrieval": random.random(rows),
        "set_index": np.minimum(np.arange(rows) // CANDIDATES, len(asked.query) - 1),
    }
    for name, values in filled.items():
        getattr(asked, name)[:] = values
    return asked
