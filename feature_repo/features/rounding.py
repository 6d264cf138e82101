"""Rounding of derived features: what the model can tell apart, and no more."""

from collections.abc import Sequence

#: counts that are their own rounding: most are, and to write a number as text costs ten times a look here
_SHORT = frozenset(range(1000))


def three_digits(values: Sequence[float]) -> list[float]:
    """Round derived features to 3 significant digits, half to even, in float64: what the model can tell apart."""
    return [value if value in _SHORT else float(f"{value:.3g}") for value in values]
