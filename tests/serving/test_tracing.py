"""The graph that scores small requests gives what the net gives."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from serving.model.blocks import BLOCK_ROWS
from serving.model.config import ModelConfig
from serving.model.ranker import Ranker
from serving.model.tracing import CLOSE, traced
from serving.requests import ScoreRequest
from tests.serving.rankers import (
    JOINT,
    LIST_CONFIGS,
    ROW_CONFIGS,
    a_request,
    an_untrained,
    name_of,
    score,
    some_rows,
    tensors_of,
)

FORMS = [*ROW_CONFIGS, JOINT]
requests = st.builds(
    a_request, rows=st.integers(1, BLOCK_ROWS + 3), sets=st.integers(1, 60), seed=st.integers(0, 10**6)
)


@pytest.mark.parametrize("config", FORMS, ids=[*map(name_of, ROW_CONFIGS), "joint"])
def test_scores_are_those_of_the_net(config: ModelConfig) -> None:
    net = an_untrained(config)
    scoring = traced(net)
    assert scoring is not net

    @settings(max_examples=15, deadline=None)
    @given(request=requests)
    def same(request: ScoreRequest) -> None:
        with torch.inference_mode():
            off = np.abs(scoring(*tensors_of(request)).numpy() - score(net, request)).max()
        assert off <= (CLOSE if config.fusion == "attention" else 0)

    same()


def test_nothing_to_score_is_answered() -> None:
    net = an_untrained(ROW_CONFIGS[0])
    nothing = some_rows(a_request(5), np.empty(0, np.int64))
    with torch.inference_mode():
        assert traced(net)(*tensors_of(nothing)).shape == (0,)


@pytest.mark.parametrize("config", LIST_CONFIGS, ids=name_of)
def test_where_rows_depend_on_each_other_there_is_no_graph(config: ModelConfig) -> None:
    net = an_untrained(config)
    assert traced(net) is net


def test_weights_stay_as_they_are_and_can_be_trained_on() -> None:
    net = an_untrained(ROW_CONFIGS[0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    traced(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


class OfNumbers(Ranker):
    """What it answers depends on the number of rows, in Python: a graph knows only the number that was traced."""

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().forward(*tensors) + len(tensors[-1])
        return found


class OfShapes(Ranker):
    """A graph of it takes requests of one size."""

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().forward(*tensors).view(int(tensors[-1].shape[0]))
        return found


@pytest.mark.parametrize("kind", [OfNumbers, OfShapes])
def test_a_graph_that_answers_otherwise_is_not_used(kind: type[Ranker], caplog: pytest.LogCaptureFixture) -> None:
    net = kind(ROW_CONFIGS[0]).eval()
    with caplog.at_level(logging.WARNING):
        assert traced(net) is net
    assert "without a graph" in caplog.text


def test_scores_that_are_no_numbers_are_no_reason_to_trust_a_graph() -> None:
    net = an_untrained(ROW_CONFIGS[0])
    nn.init.constant_(net.heads.linear.bias, float("nan"))
    assert traced(net) is net
