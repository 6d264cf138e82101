"""What a suite is told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServingError

#: (stage, done, of how many)
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asking:
    """`data` is the folder that holds a folder for each data set; `seeds` is how many trainings each figure is the mean
    of; `quick` measures little, to see that it runs; `weights` are those of `freshrank train`, None the committed;
    `triton` is the address of a server of the committed models, for who measures it."""

    data: Path | None
    seeds: int
    quick: bool
    tell: Tell
    weights: Path | None = None
    triton: str | None = None

    def folder(self, name: str) -> Path:
        """The folder of a data set. Raises ServingError when nobody said where data is, or it is not there."""
        if self.data is None:
            raise ServingError(
                f"where is the data set {name}? expected --data DIR or FRESHRANK_DATA, a folder with {name}/"
            )
        if not (self.data / name).is_dir():
            raise ServingError(f"{self.data}: expected a folder {name} in it, there is none")
        return self.data / name

    def fewer(self, count: int) -> int:
        """A number of lists or rows; a tenth of it to see that it runs."""
        return max(1, count // 10) if self.quick else count
