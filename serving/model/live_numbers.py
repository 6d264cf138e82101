"""Live numbers as the nets read them: logarithms, and ratios to the product's own past.

N rows, Q lists, F = len(NUMERIC_FIELDS), I inputs. Columns of `numeric` are addressed by name. With list features a
number also says how it stands in its list.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from feature_repo.views import BEHAVIOR_COLUMNS, FAMILIARITY, NUMERIC_FIELDS
from serving.model.relative import ranks, z_scores

COLUMN: Final = {name: column for column, name in enumerate(NUMERIC_FIELDS)}
#: the part that a behaviour field belongs to, by how its name begins
PART_OF: Final[Mapping[str, str]] = {
    "sales": "sales",
    "orders": "sales",
    "returns": "sales",
    "carts": "sales",
    "views": "clicks",
    "clicks": "clicks",
    "ctr": "clicks",
    "familiarity": "clicks",
}
#: (short window, long window, how many short ones make a long one): what happens more often than it used to
PACES: Final = (
    ("sales_10m", "sales_1h", 6.0),
    ("sales_1h", "sales_24h", 24.0),
    ("sales_24h", "sales_7d", 7.0),
    ("clicks_1h", "clicks_24h", 24.0),
)
#: (clicks, impressions) over the same time, whatever times there are
RATES: Final = tuple(
    (f"clicks_{time}", f"views_{time}")
    for kind, _, time in (name.partition("_") for name in NUMERIC_FIELDS)
    if kind == "clicks" and f"views_{time}" in NUMERIC_FIELDS
)
#: what a rate starts from before it is learned: this many clicks of this many impressions
FIRST_RATE: Final = (1.0, 20.0)
#: inputs that, with list features, also say how far they are from their list's mean
COMPARED: Final = ("price", "sales_24h", "sales_7d", *(f"{clicks}_rate" for clicks, _ in RATES))
#: a thousand minor units, ten units of a usual currency, are in the middle of the logarithms of prices
USUAL_LOG_PRICE: Final = 6.9
#: ctr is a ratio; times this it is as wide as the logarithms of the counts
CTR_SCALE: Final = 20.0


def inputs_of(relative: bool) -> list[tuple[str, str]]:
    """(part, name) of every input in order."""
    inputs = [("price", name) for name in ("price_known", "price", "price_usual_known", "price_to_usual")]
    inputs += [(_part(name), name) for name in NUMERIC_FIELDS[BEHAVIOR_COLUMNS]]
    inputs += [(_part(short), f"{short}_pace") for short, _, _ in PACES]
    inputs += [(_part(clicks), f"{clicks}_rate") for clicks, _ in RATES]
    inputs.append((_part(NUMERIC_FIELDS[FAMILIARITY]), NUMERIC_FIELDS[FAMILIARITY]))
    inputs.append(("retrieval", "retrieval"))
    if relative:
        parts = {name: part for part, name in inputs}
        inputs += [(parts[name], f"{name}_in_list") for name in COMPARED]
        inputs.append(("price", "price_rank_in_list"))
    return inputs


class Numbers(nn.Module):
    """Raw numbers -> inputs [N, I] of the parts price, sales, clicks and retrieval, in the order of `inputs_of`."""

    scale: Tensor
    short: Tensor
    long: Tensor
    ratio: Tensor
    clicks: Tensor
    views: Tensor
    compared: Tensor

    def __init__(self, relative: bool) -> None:
        super().__init__()
        self.relative = relative
        #: logarithms of the clicks and the impressions that every product starts with
        self.prior = nn.Parameter(torch.tensor(FIRST_RATE).log().unsqueeze(1).repeat(1, len(RATES)))
        names = [name for _, name in inputs_of(relative)]
        behavior = NUMERIC_FIELDS[BEHAVIOR_COLUMNS]
        self._constant("scale", torch.tensor([CTR_SCALE if name.startswith("ctr") else 1.0 for name in behavior]))
        self._constant("short", _columns([short for short, _, _ in PACES]))
        self._constant("long", _columns([long for _, long, _ in PACES]))
        self._constant("ratio", torch.tensor([ratio for _, _, ratio in PACES]))
        self._constant("clicks", _columns([clicks for clicks, _ in RATES]))
        self._constant("views", _columns([views for _, views in RATES]))
        self._constant("compared", torch.tensor([names.index(name) for name in COMPARED]))

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def forward(self, numeric: Tensor, retrieval: Tensor, set_index: Tensor, sets: int) -> Tensor:
        """numeric [N, F] raw, retrieval [N], set_index [N] < sets -> [N, I]"""
        counts = numeric.clamp(min=0)
        inputs = torch.cat(
            (
                price_inputs(numeric),
                torch.log1p(counts[:, BEHAVIOR_COLUMNS] * self.scale),
                torch.log1p(counts[:, self.short] * self.ratio) - torch.log1p(counts[:, self.long]),
                self._rates(counts),
                _familiarity(numeric).unsqueeze(1),
                torch.log1p(retrieval.clamp(min=0)).unsqueeze(1),
            ),
            1,
        )
        return torch.cat((inputs, self._in_list(inputs, set_index, sets)), 1) if self.relative else inputs

    def _rates(self, counts: Tensor) -> Tensor:
        """[N, len(RATES)] log((clicks + a) / (impressions + b)), 0 for a product that nobody has seen."""
        clicks, views = self.prior.exp()
        rate = torch.log1p(counts[:, self.clicks] / clicks) - torch.log1p(counts[:, self.views] / views)
        return rate

    def _in_list(self, inputs: Tensor, set_index: Tensor, sets: int) -> Tensor:
        """[N, len(COMPARED) + 1]; a price that is unknown stands nowhere."""
        compared = inputs[:, self.compared]
        known = torch.ones_like(compared)
        known[:, 0] = inputs[:, 0]
        rank = ranks(compared[:, 0], known[:, 0], set_index, sets)
        return torch.cat((z_scores(compared, known, set_index, sets), rank.unsqueeze(1)), 1)


def priced(numeric: Tensor) -> Tensor:
    """[N] 1 where the price is known, else 0."""
    return (numeric[:, COLUMN["price"]] >= 0).to(numeric.dtype)


def price_inputs(numeric: Tensor) -> Tensor:
    """[N, 4]: whether the price is known, and its logarithm about that of ten units of a usual currency; whether it is
    known what the product usually costs, and the logarithm of the price about that."""
    both = numeric[:, [COLUMN["price"], COLUMN["price_usual"]]]
    known = (both >= 0).to(numeric.dtype)
    price, usual = torch.log1p(both.clamp(min=0)).unbind(1)
    compared = known[:, 0] * known[:, 1]
    return torch.stack((known[:, 0], known[:, 0] * (price - USUAL_LOG_PRICE), compared, compared * (price - usual)), 1)


def _familiarity(numeric: Tensor) -> Tensor:
    """[N] logarithm, with its sign, of what was done less expected: who buys ten times as often does not like it ten
    times as much."""
    familiarity = numeric[:, FAMILIARITY]
    return familiarity.sign() * torch.log1p(familiarity.abs())


def _part(field: str) -> str:
    """Raises KeyError, when this file is imported, for a field that is of no part."""
    return PART_OF[field.partition("_")[0]]


def _columns(names: Sequence[str]) -> Tensor:
    return torch.tensor([COLUMN[name] for name in names])
