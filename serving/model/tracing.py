"""The ranker as one graph of tensor operations, for requests as small as those of an event.

Of 40 rows half the time is Python's, between one operation and the next. The graph has the same operations in the same
order, with what depends on weights alone computed once: its scores are the net's, but for the last bit of attention's.
"""

import logging
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import astuple

import numpy as np
import torch
from torch import Tensor

from serving.model.blocks import BLOCK_ROWS
from serving.model.ranker import Ranker
from serving.requests import empty_request

log = logging.getLogger(__name__)

#: queries and rows of the request that is traced, and of those by which the graph is compared with the net
TRACED = (3, 7)
COMPARED = ((1, 1), (2, 5), (40, 40), (5, BLOCK_ROWS))
#: greatest difference of two scores that are the same but for rounding
CLOSE = 1e-5


def traced(net: Ranker) -> Callable[..., Tensor]:
    """`net.forward`, by a graph where rows are one block and depend on no other rows.

    The net itself on a GPU, whose compiler would begin anew for each number of rows, and where the graph that torch
    makes cannot answer as the net does.
    """
    if net.config.scope == "list" or next(net.parameters()).is_cuda:
        return net
    try:
        graph = _graph_of(net)
        off = _difference(graph, net)
    except (AttributeError, RuntimeError) as error:
        log.warning("the ranker runs without a graph: %s", error)
        return net
    if not off <= CLOSE:
        log.warning("the ranker runs without a graph: its scores would be off by %g", off)
        return net

    def score(*tensors: Tensor) -> Tensor:
        rows = tensors[-1].shape[0]
        found: Tensor = (graph if 0 < rows <= BLOCK_ROWS else net)(*tensors)
        return found

    return score


def _graph_of(net: Ranker) -> Callable[..., Tensor]:
    """A frozen graph: weights are constants in it."""
    constant = deepcopy(net).requires_grad_(False)
    # deprecated for torch.compile, which needs a C++ compiler wherever the model runs
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(constant, tuple(_example(*TRACED)), check_trace=False)  # type: ignore[no-untyped-call]
        frozen: Callable[..., Tensor] = torch.jit.freeze(graph)
    return frozen


def _difference(graph: Callable[..., Tensor], net: Ranker) -> float:
    """The greatest difference between scores of the two; not a number where one of them is none."""
    with torch.inference_mode():
        # twice: the first call of a graph is not as those that follow
        examples = [_example(*sizes) for sizes in COMPARED * 2]
        return float(torch.stack([(graph(*some) - net(*some)).abs().max() for some in examples]).max())


def _example(queries: int, rows: int) -> list[Tensor]:
    """Random numbers in every tensor of a request."""
    request, random = empty_request(queries, rows), np.random.default_rng(rows)
    *given, set_index = astuple(request)
    for tensor in given:
        tensor[:] = random.random(tensor.shape)
    request.numeric[:] = (request.numeric * 100).round() - 1
    set_index[:] = np.sort(random.integers(0, queries, rows))
    return [torch.from_numpy(tensor) for tensor in (*given, set_index)]
