"""The four fusions beside the formulas that they are."""

import pytest
import torch
from torch import Tensor

from serving.model.fusion import Fusion, fusion_of
from serving.model.fusion.interface import FIRST_WEIGHT
from tests.serving.rankers import FUSIONS

PARTS, WIDTH, CONTEXT = 4, 8, 6


def a_fusion(form: str) -> Fusion:
    torch.manual_seed(2)
    fusion = fusion_of(form, PARTS, WIDTH, CONTEXT)  # type: ignore[arg-type]
    for weights in fusion.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    return fusion.eval()


def inputs(rows: int = 20) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """parts, there, context, set_index"""
    torch.manual_seed(3)
    there = (torch.rand(rows, PARTS) > 0.3).float()
    return torch.randn(rows, PARTS, WIDTH) * there.unsqueeze(2), there, torch.randn(2, CONTEXT), torch.arange(rows) % 2


def test_a_sum_is_the_sum_of_weighed_parts() -> None:
    fusion, (parts, there, context, rows) = a_fusion("sum"), inputs()
    weights = next(iter(fusion.parameters()))
    expected = sum(weights[k] * parts[:, k] for k in range(PARTS))
    torch.testing.assert_close(fusion.fuse(parts, there, context, rows), expected)


def test_a_concatenation_is_the_parts_one_after_another() -> None:
    fusion, (parts, there, context, rows) = a_fusion("concatenation"), inputs()
    assert fusion.width == PARTS * WIDTH
    fused = fusion.fuse(parts, there, context, rows)
    torch.testing.assert_close(fused, torch.cat([parts[:, k] for k in range(PARTS)], 1) * FIRST_WEIGHT)


@pytest.mark.parametrize("form", ["sum", "concatenation"])
def test_exact_contributions_are_what_the_score_loses_without_the_part(form: str) -> None:
    fusion, given = a_fusion(form), inputs()
    direction = torch.randn(20, fusion.width)
    exact = fusion.contributions(*given, direction)
    torch.testing.assert_close(exact, Fusion.contributions(fusion, *given, direction), atol=1e-4, rtol=0)
    score = (fusion.fuse(*given) * direction).sum(1)
    torch.testing.assert_close(exact.sum(1), score, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["attention", "gated"])
def test_contributions_by_ablation_are_what_the_score_loses_without_the_part(form: str) -> None:
    fusion, (parts, there, context, rows) = a_fusion(form), inputs()
    direction = torch.randn(20, fusion.width)
    lost = fusion.contributions(parts, there, context, rows, direction)
    left, still = parts.clone(), there.clone()
    left[:, 2], still[:, 2] = 0, 0
    whole, without = (
        (fusion.fuse(*some, context, rows) * direction).sum(1) for some in ((parts, there), (left, still))
    )
    torch.testing.assert_close(lost[:, 2], whole - without)
    assert not lost[there == 0].any()


@pytest.mark.parametrize("form", ["attention", "gated"])
def test_what_a_part_is_worth_depends_on_the_others_and_on_the_query(form: str) -> None:
    fusion, (parts, there, context, rows) = a_fusion(form), inputs()
    direction = torch.randn(20, fusion.width)
    price = fusion.contributions(parts, torch.ones_like(there), context, rows, direction)[:, 3]
    others = parts.clone()
    others[:, :3] = torch.randn(20, 3, WIDTH)
    beside_others = fusion.contributions(others, torch.ones_like(there), context, rows, direction)[:, 3]
    asked_else = fusion.contributions(parts, torch.ones_like(there), context + 1, rows, direction)[:, 3]
    assert (price - beside_others).abs().max() > 1e-3
    assert (price - asked_else).abs().max() > 1e-3


@pytest.mark.parametrize("form", FUSIONS)
def test_a_missing_part_is_not_looked_at(form: str) -> None:
    fusion, (parts, there, context, rows) = a_fusion(form), inputs()
    if form == "attention":  # the mask alone keeps a token from being attended to
        other = torch.where(there.unsqueeze(2) > 0, parts, 7.0)
        torch.testing.assert_close(fusion.fuse(other, there, context, rows), fusion.fuse(parts, there, context, rows))
    nothing = torch.zeros_like(parts)
    assert fusion.fuse(nothing, torch.zeros_like(there), context, rows).isfinite().all()
