"""The losses beside their definitions, worked out list by list, and calibration on drawn clicks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from serving.model.calibration import fit
from serving.model.config import LossWeights
from serving.model.losses import Targets, lambdarank_loss, loss, padded, softmax_loss
from serving.model.ranker import Answers


def lists(seed: int, rows: int = 30, sets: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """score, grade, set_index; the last list has no grade."""
    draw = torch.Generator().manual_seed(seed)
    set_index = torch.randint(sets, (rows,), generator=draw)
    set_index[:sets] = torch.arange(sets)
    grade = torch.randint(3, (rows,), generator=draw) / 2
    grade[set_index == sets - 1] = 0
    return torch.randn(rows, generator=draw), grade, set_index


def one_by_one(score: Tensor, grade: Tensor, set_index: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Score and grade of each list that has a grade."""
    both = [(score[set_index == one], grade[set_index == one]) for one in range(int(set_index.max()) + 1)]
    return [(own, wanted) for own, wanted in both if wanted.any()]


def ndcg(score: Tensor, grade: Tensor) -> float:
    discount = 1 / np.log2(np.arange(2, len(score) + 2))
    order = np.argsort(-score.numpy(), kind="stable")
    return float((grade.numpy()[order] * discount).sum() / (np.sort(grade.numpy())[::-1] * discount).sum())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_softmax_is_the_cross_entropy_of_each_list(seed: int) -> None:
    score, grade, set_index = lists(seed)
    known = one_by_one(score, grade, set_index)
    expected = torch.stack([-(own.log_softmax(0) * wanted / wanted.sum()).sum() for own, wanted in known]).mean()
    torch.testing.assert_close(softmax_loss(score, grade, set_index, 4), expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_lambdarank_weighs_a_pair_by_what_changing_places_would_cost(seed: int) -> None:
    score, grade, set_index = lists(seed)
    total = 0.0
    known = one_by_one(score, grade, set_index)
    for own, wanted in known:
        for i, j in ((i, j) for i in range(len(own)) for j in range(len(own)) if wanted[i] > wanted[j]):
            swapped = own.clone()
            swapped[[i, j]] = own[[j, i]]
            cost = abs(ndcg(own, wanted) - ndcg(swapped, wanted))
            total += cost * float(np.log2(1 + np.exp(-float(own[i] - own[j]))))
    assert float(lambdarank_loss(score, grade, set_index, 4)) == pytest.approx(total / len(known), rel=1e-4)


@pytest.mark.parametrize("listwise", [softmax_loss, lambdarank_loss])
def test_lists_in_which_nothing_was_wanted_teach_no_order(listwise: object) -> None:
    assert callable(listwise)
    score, _, set_index = lists(1)
    score.requires_grad_()
    wrong = listwise(score, torch.zeros(len(score)), set_index, 4)
    wrong.backward()
    assert float(wrong.detach()) == 0
    assert score.grad is not None
    assert not score.grad.any()


@pytest.mark.parametrize("listwise", [softmax_loss, lambdarank_loss])
def test_a_step_down_the_loss_brings_an_order_nearer_to_the_grades(listwise: object) -> None:
    assert callable(listwise)
    score, grade, set_index = lists(5)
    learned = score.clone().requires_grad_()
    optimizer = torch.optim.SGD([learned], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        listwise(learned, grade, set_index, 4).backward()
        optimizer.step()
    before, after = (
        np.mean([ndcg(own, wanted) for own, wanted in one_by_one(some, grade, set_index)])
        for some in (score, learned.detach())
    )
    assert before < 0.9
    assert after > 0.999


def test_losses_are_added_as_they_are_weighed() -> None:
    score, grade, set_index = lists(2)
    answers = Answers(score, {"click": score + 1, "relevance": score - 1})
    targets = Targets((grade > 0).float(), grade)

    def of(**weights: float) -> float:
        zeros = dict.fromkeys(("click", "relevance", "softmax", "lambdarank"), 0.0)
        return float(loss(LossWeights(**{**zeros, **weights}), answers, targets, set_index))

    click = torch.nn.functional.binary_cross_entropy_with_logits(score + 1, targets.clicked)
    relevance = ((score - 1).sigmoid() - grade).square().mean()
    assert of(click=1) == pytest.approx(float(click))
    assert of(relevance=1) == pytest.approx(float(relevance))
    together = 0.5 * of(click=1) + 2 * of(relevance=1) + 3 * of(softmax=1) + 0.25 * of(lambdarank=1)
    assert of(click=0.5, relevance=2, softmax=3, lambdarank=0.25) == pytest.approx(together)


def test_rows_of_lists_as_a_table() -> None:
    table, there = padded(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2, 0, 2, 2]), 3)
    assert table.tolist() == [[2, 0, 0], [0, 0, 0], [1, 3, 4]]
    assert there.tolist() == [[True, False, False], [False] * 3, [True] * 3]


# --- calibration ------------------------------------------------------------------------------------------------------


def test_calibration_finds_the_probability_of_a_click() -> None:
    draw = torch.Generator().manual_seed(0)
    score = 4 * torch.randn(20_000, generator=draw)
    clicked = (torch.rand(20_000, generator=draw) < torch.sigmoid(0.5 * score - 2)).float()
    found = fit(score, clicked)
    assert found.scale == pytest.approx(0.5, rel=0.05)
    assert found.shift == pytest.approx(-2, rel=0.05)


def test_a_perfect_order_does_not_ask_for_an_endless_scale() -> None:
    found = fit(torch.tensor([-1.0, -1, -1, 1]), torch.tensor([0.0, 0, 0, 1]))
    assert 0 < found.scale < 10


def test_an_order_is_never_turned_around() -> None:
    found = fit(torch.tensor([-1.0, -1, -1, 1, 1]), torch.tensor([1.0, 1, 0, 0, 0]))
    assert found.scale > 0


@pytest.mark.parametrize("clicked", [torch.zeros(3), torch.ones(3)])
def test_clicks_that_say_nothing_are_refused(clicked: Tensor) -> None:
    with pytest.raises(ValueError, match="of 3 rows were clicked, expected some and not all"):
        fit(torch.zeros(3), clicked)
