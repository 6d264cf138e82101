"""Where a training stands after an epoch, in one file: tensors as safetensors, the rest as JSON in its header.

No pickle: reading a checkpoint runs nothing. The file appears whole or not at all.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from serving.errors import ServingError

FILE: Final = "checkpoint.safetensors"
#: the one field of the header
FACTS: Final = "facts"


class NoCheckpoint(ServingError):
    """There is nothing to go on with."""


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` by name; `facts` are what JSON can say."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Put it in place of the one that is there."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{FILE}.new"
        # nets share tensors, which a file may hold only once
        own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.tensors.items()}
        save_file(own, draft, {FACTS: json.dumps(self.facts)})
        os.replace(draft, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint":
        """Raises NoCheckpoint, and ServingError for a file that is none."""
        file = folder / FILE
        if not file.is_file():
            raise NoCheckpoint(f"no checkpoint in {folder}: nothing to go on with")
        try:
            with safe_open(file, framework="pt") as opened:
                facts = json.loads((opened.metadata() or {})[FACTS])
                return cls({name: opened.get_tensor(name) for name in opened.keys()}, facts)  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise ServingError(f"{file} is no checkpoint: {error}") from error


def discard(folder: Path) -> None:
    """The training is done; there is nothing left to go on with."""
    (folder / FILE).unlink(missing_ok=True)
