"""Libraries that only benchmarks need: imported when they are used, and named when they are not there."""

import importlib
from typing import Any, Final

from serving.errors import ServingError

EXTRA: Final = "freshrank[bench]"


def benchmark_library(name: str) -> Any:
    """The module. Raises ServingError that says what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ServingError(f"{name.partition('.')[0]} is not installed: pip install '{EXTRA}'") from error
