"""The parts of a row -> one vector each: every content modality, price, sales, clicks, retrieval.

N rows, Q queries, D = EMBEDDING_DIM, U = USER_DIM, M modalities, S = len(SLOTS), T = len(TASTE_SLOTS),
F = len(NUMERIC_FIELDS), K = len(PARTS), H = PART_DIM.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM, MODALITIES, SLOTS, TASTE_SLOTS, TASTES
from serving.model.config import ModelConfig
from serving.model.live_numbers import Numbers, inputs_of, priced
from serving.requests import PARTS

PART_DIM: Final = 48
HIDDEN: Final = 32
#: hidden units for how well a modality matches query and user
MATCH_HIDDEN: Final = 8
#: the last numbers of a user vector: how much is known of the user, and which way the residuals lean
USER_FACTS: Final = 2
#: what the newest batch counts in a running mean
MEASURED: Final = 0.02
NUMBER_PARTS: Final = PARTS[len(MODALITIES) :]
CLICKS: Final = NUMBER_PARTS.index("clicks")
#: the parts whose numbers a joint taste is read with
COUNTERS: Final = ("sales", "clicks", "retrieval")


class Parts(nn.Module):
    """What a row has to say, part by part: unit vectors, zeros where a part is missing.

    A direction tells what a part says; how much that matters is for the fusion.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.part_dropout
        self.content = ContentParts(config.own_content)
        self.numbers = Numbers(config.relative)
        parts = [part for part, _ in inputs_of(config.relative)]
        self.figures = NumberParts(parts)
        self.taste = JointTaste(parts) if config.joint_taste else None

    def forward(
        self,
        query: Tensor,
        user: Tensor,
        content: Tensor,
        mask: Tensor,
        numeric: Tensor,
        retrieval: Tensor,
        set_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """query [Q, D], user [Q, U], content [N, S, D], mask [N, M], numeric [N, F] raw, retrieval [N], set_index [N]
        int64 -> vectors [N, K, H], there [N, K] 1 or 0"""
        always = torch.ones_like(retrieval)
        there = torch.cat((mask, torch.stack((priced(numeric), always, always, always), 1)), 1)
        if self.training and self.dropout:
            there = there * (torch.rand_like(there) >= self.dropout)
        inputs = self.numbers(numeric, retrieval, set_index, query.shape[0])
        figures = self.figures(inputs)
        if self.taste is None:
            media = self.content(query, user, content, mask, set_index)
        else:
            media = self.content(query, torch.zeros_like(user), content, mask, set_index)
            taste = self.taste(user, content, mask, inputs, set_index)
            figures = torch.cat((figures[:CLICKS], (figures[CLICKS] + taste).unsqueeze(0), figures[CLICKS + 1 :]))
        vectors = torch.cat((media, figures)).transpose(0, 1)
        length = torch.linalg.vector_norm(vectors, dim=2).clamp(min=1e-9)
        return vectors * (there / length).unsqueeze(2), there


class ContentParts(nn.Module):
    """Content vectors, and how well they match what was asked for and the taste of who asks."""

    tasted: Tensor
    whose: Tensor

    def __init__(self, own: bool = True) -> None:
        """`own`: vectors speak by themselves; else by their matches only."""
        super().__init__()
        modalities, matches = len(MODALITIES), 2
        self.own = own
        self.register_buffer("tasted", torch.tensor(TASTE_SLOTS), persistent=False)
        self.register_buffer("whose", _whose(MODALITIES), persistent=False)
        if own:
            self.project = nn.Parameter(torch.randn(modalities, EMBEDDING_DIM, PART_DIM) / EMBEDDING_DIM**0.5)
        self.usual = UsualSize(modalities, matches)
        self.match_hidden = nn.Parameter(torch.randn(modalities, matches, MATCH_HIDDEN))
        self.match_user = nn.Linear(USER_FACTS, modalities * MATCH_HIDDEN)
        self.match_out = nn.Parameter(torch.randn(modalities, MATCH_HIDDEN, PART_DIM) / MATCH_HIDDEN)

    def forward(self, query: Tensor, user: Tensor, content: Tensor, mask: Tensor, set_index: Tensor) -> Tensor:
        """[M, N, H]; what `mask` hides is as it comes"""
        known = self.match_user(user[:, -USER_FACTS:]).view(user.shape[0], len(MODALITIES), MATCH_HIDDEN)
        matches = self.usual(self._matches(query, user, content, set_index) * mask.unsqueeze(2)).transpose(0, 1)
        hidden = F.gelu(torch.baddbmm(known.index_select(0, set_index).transpose(0, 1), matches, self.match_hidden))
        if not self.own:
            return torch.bmm(hidden, self.match_out)
        vectors = torch.bmm(content.transpose(0, 1)[: len(MODALITIES)], self.project)
        return torch.baddbmm(vectors, hidden, self.match_out)

    def _matches(self, query: Tensor, user: Tensor, content: Tensor, set_index: Tensor) -> Tensor:
        """[N, M, 2] <query, content> and <taste, content>, 0 in what users have no taste in."""
        asked = (content[:, : len(MODALITIES)] @ query.index_select(0, set_index).unsqueeze(2)).squeeze(2)
        liked = _liked(user, content.index_select(1, self.tasted), set_index) @ self.whose
        return torch.stack((asked, liked), 2)


class UsualSize(nn.Module):
    """Numbers in units of their usual size. A taste is a mean of much that cancels out, so that its matches may be a
    thousand times smaller than those of a query; what is usual is measured in training and kept with the weights.

    The root of a running mean of squares, of those that are not nil; as they are before anything was measured.
    """

    square: Tensor
    weight: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("square", torch.zeros(shape))
        self.register_buffer("weight", torch.zeros(shape))

    def forward(self, values: Tensor) -> Tensor:
        """values [N, *shape] -> [N, *shape]"""
        if self.training:
            self._measure(values.detach().float())
        usual = torch.where(self.weight > 0, self.square / self.weight.clamp(min=1e-9), 1.0).sqrt()
        return values / usual.clamp(min=1e-6)

    def _measure(self, values: Tensor) -> None:
        count = (values != 0).sum(0)
        step = MEASURED * (count > 0)
        self.square.lerp_(values.square().sum(0) / count.clamp(min=1), step)
        self.weight.lerp_(torch.ones_like(self.weight), step)


class NumberParts(nn.Module):
    """Numbers -> a vector for each of NUMBER_PARTS, which reads its own inputs only; `parts` says whose each one is."""

    own: Tensor

    def __init__(self, parts: list[str]) -> None:
        super().__init__()
        own = torch.tensor([[float(part == name) for part in parts] for name in NUMBER_PARTS])
        self.register_buffer("own", own.repeat_interleave(HIDDEN, 0), persistent=False)
        reach = self.own.sum(1, keepdim=True).rsqrt()
        self.hidden = nn.Parameter((torch.rand(self.own.shape) * 2 - 1) * reach)
        self.hidden_bias = nn.Parameter((torch.rand(len(self.own)) * 2 - 1) * reach.squeeze(1))
        self.out = nn.Parameter((torch.rand(len(NUMBER_PARTS), HIDDEN, PART_DIM) * 2 - 1) / HIDDEN**0.5)
        self.out_bias = nn.Parameter((torch.rand(len(NUMBER_PARTS), 1, PART_DIM) * 2 - 1) / HIDDEN**0.5)

    def silence(self, inputs: Tensor) -> Tensor:
        """Take out the inputs that are the same in all rows [N, I]: nothing can be learned about them. Their constant
        goes into the bias, so that these rows keep their vectors. Returns which they are [I]."""
        constant = inputs.amax(0) == inputs.amin(0)
        with torch.no_grad():
            self.hidden_bias.add_((self.hidden * self.own)[:, constant] @ inputs[0, constant])
            self.hidden[:, constant] = 0
        return constant

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, I] -> [len(NUMBER_PARTS), N, H]"""
        hidden = F.gelu(F.linear(inputs, self.hidden * self.own, self.hidden_bias))
        by_part = hidden.view(inputs.shape[0], len(NUMBER_PARTS), HIDDEN).transpose(0, 1)
        return torch.baddbmm(self.out_bias, by_part, self.out)


class JointTaste(nn.Module):
    """How a row meets the taste of its user, read together with how it sells and is clicked: what everybody likes takes
    less taste to be liked.

    It reads content as it is: vectors that learned to please the users they were made of would know these by heart.
    """

    tasted: Tensor
    whose: Tensor
    there: Tensor
    counters: Tensor

    def __init__(self, parts: list[str]) -> None:
        super().__init__()
        counters = [column for column, part in enumerate(parts) if part in COUNTERS]
        self.register_buffer("tasted", torch.tensor(TASTE_SLOTS), persistent=False)
        self.register_buffer("whose", _whose(TASTES), persistent=False)
        self.register_buffer("there", torch.tensor([MODALITIES.index(name) for name in TASTES]), persistent=False)
        self.register_buffer("counters", torch.tensor(counters), persistent=False)
        self.usual = UsualSize(len(TASTES))
        self.matched = nn.Linear(len(TASTES) + USER_FACTS, HIDDEN)
        self.counted = nn.Linear(len(counters), HIDDEN, bias=False)
        self.out = nn.Linear(HIDDEN, PART_DIM)

    def forward(self, user: Tensor, content: Tensor, mask: Tensor, inputs: Tensor, set_index: Tensor) -> Tensor:
        """inputs [N, I] as `live_numbers` makes them -> [N, H]"""
        matches = self.usual(self._matches(user, content, mask, set_index))
        known = torch.cat((matches, user[:, -USER_FACTS:].index_select(0, set_index)), 1)
        hidden = F.gelu(self.matched(known) + self.counted(inputs.index_select(1, self.counters)))
        found: Tensor = self.out(hidden)
        return found

    def silence(self, inputs: Tensor) -> None:
        """Take out the counters that are the same in all rows [N, I], as `NumberParts.silence` does."""
        counted = inputs[:, self.counters]
        constant = counted.amax(0) == counted.amin(0)
        with torch.no_grad():
            self.matched.bias.add_(self.counted.weight[:, constant] @ counted[0, constant])
            self.counted.weight[:, constant] = 0

    def _matches(self, user: Tensor, content: Tensor, mask: Tensor, set_index: Tensor) -> Tensor:
        """[N, len(TASTES)] <taste, content>, 0 where a modality is missing."""
        liked = _liked(user, content.detach().index_select(1, self.tasted), set_index)
        return liked @ self.whose * mask.index_select(1, self.there)


def _liked(user: Tensor, vectors: Tensor, set_index: Tensor) -> Tensor:
    """vectors [N, T, D] of TASTE_SLOTS -> [N, T] <taste, vector>, slot by slot"""
    tastes = user[:, :-USER_FACTS].reshape(user.shape[0], len(TASTE_SLOTS), EMBEDDING_DIM)
    return (vectors * tastes.index_select(0, set_index)).sum(2)


def _whose(modalities: Sequence[str]) -> Tensor:
    """[T, len(modalities)] 1 where a slot of TASTE_SLOTS belongs to a modality, 0 elsewhere."""
    return torch.tensor([[float(SLOTS[slot] == name) for name in modalities] for slot in TASTE_SLOTS])
