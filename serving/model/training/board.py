"""The course of a training as files that TensorBoard reads. The one door to tensorboardX."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from serving.errors import ServingError
from serving.model.training.fitting import Progress


class NoTensorBoard(ServingError):
    """The package that writes the files is not installed."""


class Board:
    """Losses and learning rate a step; losses, NDCG@10 and fusion weights an epoch. `after` is the number of steps of
    the checkpoint that the training goes on from: what was written beyond it is taken back."""

    def __init__(self, folder: Path, after: int | None = None) -> None:
        self._folder = folder
        self._after = after
        self._writer: Any = None

    def __enter__(self) -> Self:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise NoTensorBoard("TensorBoard's files need tensorboardX: pip install 'freshrank[train]'") from error
        purged = None if self._after is None else self._after + 1
        self._writer = SummaryWriter(str(self._folder), purge_step=purged)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def __call__(self, at: Progress) -> None:
        """A listener of `fit`."""
        if at.ended is not None:
            whole = {**at.ended.losses, **({} if at.ended.ndcg is None else {"ndcg10": at.ended.ndcg})}
            self._write("epoch", whole, at.ended.epoch)
            self._write("fusion_weight", at.ended.fusion_weights, at.ended.epoch)
        elif at.step is not None:
            self._write("step", {**at.step.losses, "learning_rate": at.step.learning_rate}, at.done)

    def _write(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
