"""How good the result of a training is, beside the floors."""

import json
from dataclasses import asdict, dataclass

from serving.model.evaluate import Quality


@dataclass(frozen=True)
class TrainReport:
    """What came out. Each of `shops` is measured on lists that were not learned from, the real one first; `best_epoch`
    is the one whose weights were kept."""

    shops: tuple[Quality, ...]
    trained_lists: int
    epochs: int
    best_epoch: int
    price_weight: float
    silent_features: list[str]
    seconds: float

    def rows(self) -> list[tuple[str, tuple[float, ...]]]:
        """(what is ranked by, NDCG@10 on each shop), floors first, then one part masked each."""
        floors = [
            ("popularity (sales_7d)", tuple(one.popularity for one in self.shops)),
            ("text retrieval", tuple(one.retrieval for one in self.shops)),
            ("model", tuple(one.model for one in self.shops)),
        ]
        parts = self.shops[0].without
        return floors + [(f"model without {part}", tuple(one.without[part] for one in self.shops)) for part in parts]

    def metrics(self) -> dict[str, float]:
        """What a bundle says of its quality."""
        first, *others = self.shops
        found = {"ndcg10": first.model, "ndcg10_popularity": first.popularity}
        return found | {f"ndcg10_{one.shop}": one.model for one in others}

    def to_json(self) -> str:
        """One object; each shop stands under its own name."""
        whole = asdict(self)
        shops = {one["shop"]: one for one in whole.pop("shops")}
        return json.dumps({**shops, **whole}, indent=2)
