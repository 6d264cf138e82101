"""Orders that any model must beat: what costs nothing to know, and a gradient-boosted ranker on plain features."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.model.suites.bench import benchmark_library

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]
Numbers = NDArray[np.float32] | Doubles

TREES: Final = 100
LEAVES: Final = 15
LEARNING_RATE: Final = 0.05
LEAST_IN_LEAF: Final = 50
#: grades of relevance that the booster learns from
GRADES: Final = 10


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of lists one after the other: `features` [N, P], `gains` [N] in [0, 1], `sizes` [L] rows of each list."""

    features: Numbers
    gains: Numbers
    sizes: Counts


def random_scores(rows: int, seed: int) -> Doubles:
    """[N] of no meaning."""
    return np.random.default_rng(seed).random(rows)


def boosted(learned: Table, asked: Numbers, seed: int, trees: int = TREES) -> Doubles:
    """[N] scores of LightGBM's LambdaRank. Raises ServingError when LightGBM is not installed."""
    lightgbm = benchmark_library("lightgbm")
    settings = {
        "objective": "lambdarank",
        "label_gain": list(range(GRADES + 1)),
        "learning_rate": LEARNING_RATE,
        "num_leaves": LEAVES,
        "min_data_in_leaf": LEAST_IN_LEAF,
        "num_threads": 1,
        "deterministic": True,
        "seed": seed,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(learned.features, np.rint(learned.gains * GRADES), group=learned.sizes)
    scores: Doubles = lightgbm.train(settings, data, num_boost_round=trees).predict(asked)
    return scores
