"""A child's side: what its parent asks for, and lines of JSON for it. Imports nothing of the engine."""

import json
import sys
from typing import Any


def arguments() -> Any:
    """What the parent of this child asks for."""
    return json.loads(sys.argv[1])


def tell(**facts: object) -> None:
    """A line for the parent of this child."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
