"""Rounding of derived features: what the model can tell apart, and no more."""

from collections.abc import Sequence


def three_digits(values: Sequence[float]) -> list[float]:
    """Round derived features to 3 significant digits, half to even, in float64: what the model can tell apart."""
    return [float(f"{value:.3g}") for value in values]
