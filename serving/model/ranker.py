"""The ranker: cached vectors and live numbers -> a click-through logit. All that a price change costs.

N rows, Q queries, D = EMBEDDING_DIM, U = USER_DIM, M modalities, F = len(NUMERIC_FIELDS),
K = len(CONTRIBUTIONS), H = FUSED_DIM.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import BEHAVIOR_COLUMNS, EMBEDDING_DIM, MODALITIES, NUMERIC_FIELDS, PRODUCT_BEHAVIOR, USER_DIM
from serving.model.config import DEFAULT, ModelConfig

FUSED_DIM = 48
HIDDEN = 32
#: where the fusion's weights start: summands are unit vectors, and a list is told apart by logits of this size
FIRST_WEIGHT = 10.0
PRICE, PRICE_USUAL = NUMERIC_FIELDS.index("price"), NUMERIC_FIELDS.index("price_usual")
CTR = NUMERIC_FIELDS.index("ctr_24h")
#: ctr is a ratio; times this it is as wide as the logarithms of the counts
CTR_SCALE = 20.0


class UnitVector(nn.Module):
    """Numbers -> a unit vector [H]: the direction tells the value, how much it matters is the fusion's weight."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, HIDDEN)
        self.out = nn.Linear(HIDDEN, FUSED_DIM)

    def forward(self, values: Tensor) -> Tensor:
        return F.normalize(self.out(F.gelu(self.hidden(values))), dim=-1)


class Ranker(nn.Module):
    """Fusion by a learned weighted sum, f = a_text f_text + a_image f_image + ... + a_price f_price + ..., and the
    click-through head <h(query, user), f>.

    The head is linear in f, so the part that each summand has in the logit is exact. Row scope: no row sees another.
    """

    def __init__(self, config: ModelConfig = DEFAULT) -> None:
        super().__init__()
        self.content = nn.Parameter(torch.randn(len(MODALITIES), EMBEDDING_DIM, FUSED_DIM) / EMBEDDING_DIM**0.5)
        self.price = UnitVector(4)
        self.sales = UnitVector(len(PRODUCT_BEHAVIOR.fields))
        self.retrieval = UnitVector(1)
        self.weights = nn.Parameter(torch.full((len(MODALITIES) + 3,), FIRST_WEIGHT))
        self.context = nn.Linear(EMBEDDING_DIM + USER_DIM, FUSED_DIM)
        self.context_hidden = nn.Linear(EMBEDDING_DIM + USER_DIM, HIDDEN)
        self.context_out = nn.Linear(HIDDEN, FUSED_DIM, bias=False)

    def forward(
        self,
        query: Tensor,
        user: Tensor,
        content: Tensor,
        mask: Tensor,
        numeric: Tensor,
        retrieval: Tensor,
        set_index: Tensor,
    ) -> Tensor:
        """query [Q, D], user [Q, U], content [N, M, D], mask [N, M], numeric [N, F] raw, retrieval [N],
        set_index [N] -> logit [N]"""
        return self.explain(query, user, content, mask, numeric, retrieval, set_index)[0]

    def explain(
        self,
        query: Tensor,
        user: Tensor,
        content: Tensor,
        mask: Tensor,
        numeric: Tensor,
        retrieval: Tensor,
        set_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `forward` -> logit [N], contributions [N, K]"""
        head = self.head(query, user).index_select(0, set_index.long())
        parts = self.parts(content, mask, numeric, retrieval)
        contributions = torch.einsum("nkh,nh->nk", parts, head) * self.weights
        logit = contributions.sum(1)
        nothing = torch.zeros_like(logit)
        return logit, torch.stack((*contributions.T[:-1], nothing, contributions[:, -1], nothing), 1)

    def head(self, query: Tensor, user: Tensor) -> Tensor:
        """The direction [Q, H] in which this query and user like a fused vector to point."""
        context = torch.cat((query, user), 1)
        direction: Tensor = self.context(context) + self.context_out(F.gelu(self.context_hidden(context)))
        return direction

    def parts(self, content: Tensor, mask: Tensor, numeric: Tensor, retrieval: Tensor) -> Tensor:
        """The summands [N, K, H] before their weights: unit vectors, zeros where a modality is missing."""
        media = F.normalize(torch.einsum("nmd,mdh->nmh", content, self.content), dim=-1) * mask.unsqueeze(-1)
        numbers = torch.stack(
            (
                self.price(price_inputs(numeric)),
                self.sales(sales_inputs(numeric)),
                self.retrieval(torch.log1p(retrieval.clamp(min=0)).unsqueeze(1)),
            ),
            1,
        )
        return torch.cat((media, numbers), 1)


def price_inputs(numeric: Tensor) -> Tensor:
    """[N, 4]: whether the price is known, and its logarithm about that of ten units of a usual currency; whether it is
    known what the product usually costs, and the logarithm of the price about that."""
    price, usual = numeric[:, PRICE], numeric[:, PRICE_USUAL]
    known = (price >= 0).float()
    compared = known * (usual >= 0).float()
    price, usual = torch.log1p(price.clamp(min=0)), torch.log1p(usual.clamp(min=0))
    return torch.stack((known, known * (price - 6.9), compared, compared * (price - usual)), 1)


def sales_inputs(numeric: Tensor) -> Tensor:
    """[N, behaviour features]: logarithms of the window counts, and of the scaled ctr."""
    scale = torch.ones(numeric.shape[1], dtype=numeric.dtype)
    scale[CTR] = CTR_SCALE
    return torch.log1p(numeric.clamp(min=0) * scale)[:, BEHAVIOR_COLUMNS]
