"""Rounding of derived features: what the model can tell apart, and no more."""

from collections.abc import Sequence


def three_digits(values: Sequence[float]) -> list[float]:
    """Round derived features to 3 significant digits, half to even, in float64: what the model can tell apart.

    A count of up to three digits is one already: most are, and the text of a number costs ten times the comparison.
    """
    return [value if isinstance(value, int) and -1000 < value < 1000 else float(f"{value:.3g}") for value in values]
