"""What holds for every ranker, whatever it was trained on: all fusions, with and without list features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from feature_repo.views import EMBEDDING_DIM, LIKENESS, MODALITIES, NUMERIC_FIELDS, SLOTS, TASTE_SLOTS, TASTES, USER_DIM
from serving.errors import BundleMismatch
from serving.model import blocks
from serving.model.bundle import load, save
from serving.model.calibration import Calibration, fold
from serving.model.config import ModelConfig, config_from_header, config_of
from serving.model.live_numbers import Numbers, inputs_of
from serving.model.parts import USER_FACTS, ContentParts, JointTaste, NumberParts, UsualSize
from serving.model.ranker import Ranker, context_of
from serving.model.relative import ranks, z_scores
from serving.requests import CONTRIBUTIONS, PARTS, ScoreRequest, empty_request
from tests.serving.rankers import (
    CONFIGS,
    JOINT,
    LIST_CONFIGS,
    ROW_CONFIGS,
    a_request,
    an_untrained,
    explain,
    name_of,
    score,
    some_rows,
    tensors_of,
    with_rubbish,
)

PRICE = NUMERIC_FIELDS.index("price")
every_form = pytest.mark.parametrize("config", CONFIGS, ids=name_of)
row_forms = pytest.mark.parametrize("config", ROW_CONFIGS, ids=name_of)
list_forms = pytest.mark.parametrize("config", LIST_CONFIGS, ids=name_of)
#: whose each input is
INPUT_PARTS = [part for part, _ in inputs_of(relative=False)]
few_requests = settings(max_examples=5, deadline=None)
requests = st.builds(a_request, rows=st.integers(1, 60), sets=st.integers(1, 5), seed=st.integers(0, 10**6))


@every_form
@few_requests
@given(request=requests)
def test_contributions_sum_to_the_score(config: ModelConfig, request: ScoreRequest) -> None:
    logit, contributions = explain(an_untrained(config), request)
    assert contributions.shape == (len(logit), len(CONTRIBUTIONS))
    np.testing.assert_allclose(contributions.sum(1), logit, atol=1e-5)
    np.testing.assert_allclose(score(an_untrained(config), request), logit, atol=1e-5)


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.fusion in ("sum", "concatenation")], ids=name_of)
@few_requests
@given(request=requests)
def test_where_the_score_is_linear_in_the_parts_nothing_is_left_over(
    config: ModelConfig, request: ScoreRequest
) -> None:
    net = an_untrained(config)
    _, contributions = explain(net, request)
    with torch.inference_mode():
        context = context_of(*tensors_of(request)[:2])
        bias = net.heads.combined(net.heads(context))[:, -1].numpy()[request.set_index]
    if not config.list_attention:  # which has a bias for each row
        np.testing.assert_allclose(contributions[:, -1], bias, atol=1e-5)


@every_form
@few_requests
@given(request=requests)
def test_what_is_masked_has_no_part(config: ModelConfig, request: ScoreRequest) -> None:
    net = an_untrained(config)
    _, contributions = explain(net, request)
    assert not contributions[:, : len(MODALITIES)][request.mask == 0].any()
    assert not contributions[request.numeric[:, PRICE] < 0, CONTRIBUTIONS.index("price")].any()
    hidden = with_rubbish(request)
    np.testing.assert_array_equal(score(net, hidden), score(net, request))


@few_requests
@given(request=requests)
def test_with_a_joint_taste_contributions_sum_to_the_score_and_nothing_is_left_over(request: ScoreRequest) -> None:
    net = an_untrained(JOINT)
    logit, contributions = explain(net, request)
    np.testing.assert_allclose(contributions.sum(1), logit, atol=1e-5)
    without_parts = explain(net, replace(request, mask=np.zeros_like(request.mask)))[1]
    np.testing.assert_allclose(contributions[:, -1], without_parts[:, -1], atol=1e-5)


def test_with_a_joint_taste_which_taste_it_is_belongs_to_the_clicks() -> None:
    net, request = an_untrained(JOINT), a_request(30)
    other = request.user.copy()
    other[:, :-USER_FACTS] *= -1
    (_, one), (_, moved) = (explain(net, replace(request, user=user)) for user in (request.user, other))
    (changed,) = np.nonzero(np.abs(one - moved).max(0) > 1e-4)
    assert [CONTRIBUTIONS[column] for column in changed] == ["clicks"]


def test_without_content_of_its_own_a_product_counts_by_its_matches() -> None:
    net, request = an_untrained(JOINT), a_request(30)
    stranger = replace(request, mask=np.ones_like(request.mask), user=np.zeros_like(request.user))
    others = request.content[::-1].copy()
    unasked = replace(stranger, query=np.zeros_like(request.query))
    np.testing.assert_array_equal(score(net, replace(unasked, content=others)), score(net, unasked))
    assert np.abs(score(net, replace(stranger, content=others)) - score(net, stranger)).max() > 1e-3


def test_a_joint_taste_moves_no_tower() -> None:
    request = a_request(30)
    content = torch.from_numpy(request.content).requires_grad_()
    query, user, _, mask, *numbers = tensors_of(request)
    an_untrained(JOINT)(torch.zeros_like(query), user, content, mask, *numbers).sum().backward()
    assert content.grad is not None
    assert not content.grad.any()


@every_form
@few_requests
@given(request=requests, seed=st.integers(0, 10**6))
def test_the_order_of_the_rows_makes_no_difference(config: ModelConfig, request: ScoreRequest, seed: int) -> None:
    net = an_untrained(config)
    order = np.random.default_rng(seed).permutation(request.rows)
    np.testing.assert_allclose(score(net, some_rows(request, order)), score(net, request)[order], atol=1e-5)


@every_form
@few_requests
@given(request=requests)
def test_a_set_depends_on_no_other_set(config: ModelConfig, request: ScoreRequest) -> None:
    net = an_untrained(config)
    whole = score(net, request)
    for one in np.unique(request.set_index):
        rows = np.flatnonzero(request.set_index == one)
        np.testing.assert_allclose(score(net, some_rows(request, rows)), whole[rows], atol=1e-5)


@row_forms
@few_requests
@given(request=requests)
def test_with_row_scope_a_row_depends_on_no_other_row(config: ModelConfig, request: ScoreRequest) -> None:
    net = an_untrained(config)
    rows = np.arange(0, request.rows, 3)
    np.testing.assert_allclose(score(net, some_rows(request, rows)), score(net, request)[rows], atol=1e-5)


@list_forms
def test_with_list_scope_it_does(config: ModelConfig) -> None:
    net, request = an_untrained(config), a_request(40, sets=1)
    rows = np.arange(20)
    assert np.abs(score(net, some_rows(request, rows)) - score(net, request)[rows]).max() > 1e-3


@pytest.mark.parametrize("config", [c for c in ROW_CONFIGS if c.fusion in ("attention", "gated")], ids=name_of)
def test_a_score_that_moved_by_one_part_moved_by_its_contribution(config: ModelConfig) -> None:
    net, request = an_untrained(config), a_request(50)
    dearer = replace(request, numeric=request.numeric.copy())
    dearer.numeric[:, PRICE] = np.where(request.numeric[:, PRICE] > 0, request.numeric[:, PRICE] * 3, -1)
    (before, parts_before), (after, parts_after) = explain(net, request), explain(net, dearer)
    price = CONTRIBUTIONS.index("price")
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(parts_after[:, price] - parts_before[:, price], after - before, atol=1e-5)


@every_form
def test_unknown_products_and_no_rows_at_all(config: ModelConfig) -> None:
    net = an_untrained(config)
    logit, contributions = explain(net, empty_request(queries=2, rows=3))
    assert np.isfinite(logit).all()
    assert np.isfinite(contributions).all()
    logit, contributions = explain(net, empty_request(queries=0, rows=0))
    assert (logit.shape, contributions.shape) == ((0,), (0, len(CONTRIBUTIONS)))


@every_form
@pytest.mark.parametrize("order", ["together", "scattered"])
def test_blocks_of_rows_make_no_difference(config: ModelConfig, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, request = an_untrained(config), a_request(200, sets=9)
    if order == "together":
        request = some_rows(request, np.argsort(request.set_index, kind="stable"))
    whole, parts = explain(net, request)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 30)
    few, few_parts = explain(net, request)
    np.testing.assert_allclose(few, whole, atol=1e-5)
    np.testing.assert_allclose(few_parts, parts, atol=1e-5)


def test_whole_sets_are_cut_between_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 5)
    cuts = blocks.blocks(torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3]), whole_sets=True)
    assert cuts == [slice(0, 5), slice(5, 12), slice(12, 13)]
    assert blocks.blocks(torch.tensor([0, 1, 0, 1, 0, 1]), whole_sets=True) == [slice(0, 6)]
    assert blocks.blocks(torch.zeros(12), whole_sets=False) == [slice(0, 5), slice(5, 10), slice(10, 15)]


@every_form
def test_calibration_is_part_of_the_weights(config: ModelConfig) -> None:
    net, request = an_untrained(config), a_request(30)
    before = score(net, request)
    fold(net.heads, Calibration(scale=0.5, shift=-2.0))
    np.testing.assert_allclose(score(net, request), 0.5 * before - 2, atol=1e-5)


@every_form
def test_the_answers_that_are_learned_from_are_those_that_are_given(config: ModelConfig) -> None:
    net, request = an_untrained(config), a_request(30)
    answers = net.answers(*tensors_of(request))
    assert set(answers.heads) == {"click", "relevance"}
    np.testing.assert_allclose(answers.score.detach().numpy(), score(net, request), atol=1e-5)
    both = answers.heads["click"] + answers.heads["relevance"]
    torch.testing.assert_close(net.heads.scale * both + net.heads.shift, answers.score, atol=1e-5, rtol=0)


@every_form
def test_parts_are_dropped_in_training_only(config: ModelConfig) -> None:
    net, request = an_untrained(config), a_request(30)
    net.train()
    with torch.no_grad():
        once, again = net(*tensors_of(request)), net(*tensors_of(request))
    assert not torch.equal(once, again)


@every_form
def test_all_weights_learn(config: ModelConfig) -> None:
    net, request = an_untrained(config).train(), a_request(60)
    net.answers(*tensors_of(request)).score.square().sum().backward()  # type: ignore[no-untyped-call]
    still = [name for name, weights in net.named_parameters() if weights.grad is None or not weights.grad.any()]
    assert still == []


# --- configuration ---------------------------------------------------------------------------------------------------


def test_the_scope_follows_from_the_configuration() -> None:
    assert ModelConfig().scope == "row"
    assert {config.scope for config in LIST_CONFIGS} == {"list"}


@every_form
def test_weights_bring_their_configuration(config: ModelConfig, tmp_path: Path) -> None:
    net, file = an_untrained(config), tmp_path / "ranker.safetensors"
    save(net, file, config, {})
    again = load("ranker", file)
    assert isinstance(again, Ranker)
    np.testing.assert_array_equal(score(again, a_request(20)), score(net, a_request(20)))
    assert config_from_header({"config": config.to_json()}) == config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"fusion": "x"}, r"Invalid enum value 'x' - at `\$\.fusion`"),
        ({"image_size": 32}, r">= 64 - at `\$\.image_size`"),
        ({"fusoin": "sum"}, "unknown field fusoin, expected text, image_size"),
        ({"losses": {"bce": 1}}, r"unknown field losses\.bce, expected click"),
        ({"losses": 3}, r"Expected `object`, got `int` - at `\$\.losses`"),
        ({"heads": []}, "heads are .*, expected click, relevance or both"),
        ({"losses": {"relevance": 1}}, r"losses\.relevance is 1\.0, but heads are"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        config_of(values)


def test_weights_of_a_net_that_is_not_there_are_refused() -> None:
    with pytest.raises(BundleMismatch, match="a model that this code does not have"):
        config_from_header({"config": '{"fusion": "telepathy"}'})


# --- numbers ---------------------------------------------------------------------------------------------------------


def numbers_of(relative: bool = False, **fields: list[float]) -> dict[str, list[float]]:
    """The inputs by name, for products of which only these fields are known."""
    rows = max(map(len, fields.values()))
    request = empty_request(queries=1, rows=rows)
    for name, values in fields.items():
        request.numeric[:, NUMERIC_FIELDS.index(name)] = values
    tensors = tensors_of(request)
    with torch.inference_mode():
        inputs = Numbers(relative)(tensors[4], tensors[5], tensors[6].long(), 1)
    return {name: inputs[:, column].tolist() for column, (_, name) in enumerate(inputs_of(relative))}


def test_every_number_has_a_part() -> None:
    names = [name for _, name in inputs_of(relative=True)]
    assert len(names) == len(set(names))
    assert {part for part, _ in inputs_of(relative=True)} == {*PARTS} - {*MODALITIES}


def test_what_the_user_did_with_a_product_counts_less_and_less() -> None:
    found = numbers_of(familiarity=[0, 1, -1, 10])["familiarity"]
    np.testing.assert_allclose(found, [0, np.log(2), -np.log(2), np.log(11)], rtol=1e-6)


def test_a_price_is_told_beside_what_the_product_usually_costs() -> None:
    found = numbers_of(price=[1000, 500, -1, 999], price_usual=[1000, 1000, 1000, -1])
    assert found["price_known"] == [1, 1, 0, 1]
    assert found["price_usual_known"] == [1, 1, 0, 0]
    assert found["price_to_usual"] == pytest.approx([0, np.log(501 / 1001), 0, 0], abs=1e-5)
    assert found["price"][2] == 0


def test_sales_are_told_beside_the_product_s_own_past() -> None:
    steady, faster, slower, none = numbers_of(sales_1h=[1, 5, 0, 0], sales_24h=[24, 24, 24, 0])["sales_1h_pace"]
    assert (steady, none) == (0, 0)
    assert slower < 0 < faster


def test_a_click_rate_starts_from_what_is_usual() -> None:
    unseen, usual, good, bad = numbers_of(clicks_24h=[0, 5, 20, 0], views_24h=[0, 100, 100, 100])["clicks_24h_rate"]
    assert [unseen, usual] == pytest.approx([0, 0])
    assert bad < 0 < good


def test_list_features_tell_a_price_beside_the_others() -> None:
    found = numbers_of(relative=True, price=[500, 100, -1, 300, 300])
    assert found["price_rank_in_list"] == pytest.approx([1, -1, 0, 0, 0])
    assert found["price_in_list"][2] == 0
    assert found["price_in_list"][1] < found["price_in_list"][3] < found["price_in_list"][0]


def test_z_scores_are_those_of_each_list() -> None:
    values = torch.tensor([[1.0], [10.0], [2.0], [10.0], [6.0], [99.0]])
    known = torch.tensor([[1.0], [1.0], [1.0], [1.0], [1.0], [0.0]])
    lists = torch.tensor([0, 1, 0, 1, 0, 0])
    found = z_scores(values, known, lists, 2).flatten().numpy()
    own = np.array([1, 2, 6])
    np.testing.assert_allclose(found[[0, 2, 4]], (own - own.mean()) / own.std(), atol=1e-3)
    np.testing.assert_array_equal(found[[1, 3, 5]], 0)


def test_what_is_equal_in_a_list_can_be_learned_through() -> None:
    values = torch.tensor([[2.0], [2.0], [1.0], [3.0]], requires_grad=True)
    found = z_scores(values, torch.ones(4, 1), torch.tensor([0, 0, 1, 1]), 2)
    assert not found[:2].any()
    (found * torch.tensor([[1.0], [2.0], [3.0], [4.0]])).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.isfinite().all()


def test_ranks_are_shared_by_equal_values() -> None:
    values = torch.tensor([3.0, 1.0, 1.0, 5.0, 2.0, 9.0])
    known = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    found = ranks(values, known, torch.tensor([0, 0, 0, 0, 0, 1]), 2)
    torch.testing.assert_close(found, torch.tensor([1 / 3, -2 / 3, -2 / 3, 1.0, 0.0, 0.0]))


def test_each_modality_is_matched_with_its_own_taste() -> None:
    torch.manual_seed(0)
    content, own = torch.randn(4, len(SLOTS), EMBEDDING_DIM), torch.randn(2, len(TASTE_SLOTS), EMBEDDING_DIM)
    query, sets = torch.randn(2, EMBEDDING_DIM), torch.tensor([0, 1, 1, 0])
    user = torch.cat((own.flatten(1), torch.rand(2, USER_FACTS)), 1)
    found = ContentParts()._matches(query, user, content, sets)
    for place, modality in enumerate(MODALITIES):
        torch.testing.assert_close(found[:, place, 0], (content[:, place] * query[sets]).sum(1))
        expected = torch.zeros(4)
        if modality in TASTES:
            expected = taste_of(modality, content, own[sets])
        torch.testing.assert_close(found[:, place, 1], expected)


def taste_of(modality: str, content: Tensor, own: Tensor) -> Tensor:
    """[N] products of the slots content [N, S, D] that a taste [N, len(TASTE_SLOTS), D] is for."""
    slots = LIKENESS if modality == "attributes" else (MODALITIES.index(modality),)
    return torch.stack([(content[:, slot] * own[:, TASTE_SLOTS.index(slot)]).sum(1) for slot in slots]).sum(0)


def test_a_joint_taste_is_matched_with_what_is_there() -> None:
    torch.manual_seed(0)
    content, own = torch.randn(4, len(SLOTS), EMBEDDING_DIM), torch.randn(2, len(TASTE_SLOTS), EMBEDDING_DIM)
    mask = torch.ones(4, len(MODALITIES))
    mask[3] = 0
    sets = torch.tensor([0, 1, 1, 0])
    user = torch.cat((own.flatten(1), torch.rand(2, USER_FACTS)), 1)
    found = JointTaste(INPUT_PARTS)._matches(user, content, mask, sets)
    for place, modality in enumerate(TASTES):
        torch.testing.assert_close(found[:, place], taste_of(modality, content, own[sets]) * mask[:, 0])


def test_counters_that_never_varied_are_silenced_in_a_joint_taste_too() -> None:
    torch.manual_seed(0)
    taste = JointTaste(INPUT_PARTS).eval()
    silent = INPUT_PARTS.index("clicks")
    inputs = torch.rand(40, len(INPUT_PARTS))
    inputs[:, silent] = 3
    given = (torch.rand(1, USER_DIM), torch.rand(40, len(SLOTS), EMBEDDING_DIM), torch.ones(40, len(MODALITIES)))
    sets = torch.zeros(40, dtype=torch.long)
    before = taste(*given, inputs, sets)
    taste.silence(inputs)
    inputs[:, silent] = 500
    torch.testing.assert_close(taste(*given, inputs, sets), before)


def test_matches_are_measured_in_training_and_kept_with_the_weights() -> None:
    draw, usual = torch.Generator().manual_seed(0), UsualSize(2)
    values = torch.randn(500, 2, generator=draw) * torch.tensor([0.002, 3.0])
    values[::2] = 0
    torch.testing.assert_close(usual.eval()(values), values)
    usual.train()
    for _ in range(20):
        usual(values)
    found = usual.eval()(values)
    torch.testing.assert_close(found[1::2].square().mean(0), torch.ones(2), rtol=1e-3, atol=0)
    assert not found[::2].any()
    again = UsualSize(2)
    again.load_state_dict(usual.state_dict())
    torch.testing.assert_close(again.eval()(values), found)


def test_what_never_varied_is_silenced_without_changing_a_vector() -> None:
    torch.manual_seed(0)
    parts = NumberParts([part for part, _ in inputs_of(relative=False)])
    inputs = torch.rand(40, len(inputs_of(relative=False)))
    inputs[:, 6] = 3
    before = parts(inputs)
    assert torch.where(parts.silence(inputs))[0].tolist() == [6]
    torch.testing.assert_close(parts(inputs), before)
    inputs[:, 6] = 500
    torch.testing.assert_close(parts(inputs), before)
