"""Rounding of derived features: what the model can tell apart, and no more."""

from collections.abc import Sequence
from functools import lru_cache

#: counts below this are their own rounding: most are
SHORT = 1000
_COUNTS = frozenset(range(SHORT))


def three_digits(values: Sequence[float]) -> list[float]:
    """Round derived features to 3 significant digits, half to even, in float64: what the model can tell apart."""
    return [value if value in _COUNTS else rounded(value) for value in values]


@lru_cache(maxsize=65_536)
def rounded(value: float) -> float:
    """The same of one."""
    # to write a number as text costs ten times a look, and the windows of a row mostly hold the same few numbers
    return float(f"{value:.3g}")
