"""Lists, and every metric of scores for their rows."""

from collections.abc import Sequence

import numpy as np

from serving.model.dataset import RankedList
from serving.model.metrics import Doubles, Interval, auc, interval, mean, mrr, ndcg, reliability
from serving.model.suites.rows import Row
from serving.requests import Floats


class Judged:
    """Lists that scores [N], or [S, N] of S trainings, are judged on. A gain is how much a row was wanted; MRR, AUC and
    calibration ask whether it was."""

    def __init__(self, some: Sequence[RankedList]) -> None:
        self._gains = np.concatenate([one.relevance for one in some])
        self._wanted = np.concatenate([one.bought for one in some])
        self._lists = np.repeat(np.arange(len(some)), [len(one.items) for one in some])

    def ndcg_of(self, scores: Floats | Doubles, top: int | None = 10) -> Doubles:
        """[L] or [S, L]"""
        if scores.ndim == 1:
            return ndcg(scores, self._gains, self._lists, top)
        return np.stack([ndcg(one, self._gains, self._lists, top) for one in scores])

    def ndcg(self, scores: Floats | Doubles) -> Interval:
        """NDCG@10 with its interval."""
        return interval(self.ndcg_of(scores))

    def others(self, name: str, scores: Floats | Doubles) -> list[Row]:
        """The other metrics of logits [S, N], as means over the trainings."""
        together = np.zeros_like(self._lists)
        found = {
            "NDCG@5": mean(self.ndcg_of(scores, 5)),
            "NDCG, whole lists": mean(self.ndcg_of(scores, None)),
            "MRR": mean(np.stack([mrr(one, self._wanted, self._lists) for one in scores])),
            "AUC within lists": mean(np.stack([auc(one, self._wanted, self._lists) for one in scores])),
            "AUC over all rows": mean(np.stack([auc(one, self._wanted, together) for one in scores])),
            "calibration error (ECE)": float(np.mean([self._miscalibrated(one) for one in scores])),
        }
        return [Row(f"{name}, {metric}", value) for metric, value in found.items()]

    def _miscalibrated(self, logit: Floats | Doubles) -> float:
        return reliability(1 / (1 + np.exp(-logit.astype(np.float64))), self._wanted).error
