"""What export, rollback and models have in common: whose repository, and which bundle is in force."""

from pathlib import Path
from typing import TYPE_CHECKING

from streams.commands.connecting import local_engine, settings

if TYPE_CHECKING:
    from feature_repo.events import Bundle
    from serving.settings import ServingSettings


def repository_or_that_of_the_engine(repository: Path | None) -> Path:
    """The one that is named, else the running engine's. Raises Problem."""
    from streams.cli import Problem

    engine = local_engine()
    if repository is None and engine is None:
        raise Problem("which repository? no engine runs in this folder (freshrank up); name one by --repository DIR")
    return repository or Path(engine.repository)  # type: ignore[union-attr]


def put_in_force(repository: Path, bundle: "Bundle") -> None:
    """On the Triton and the Kafka of the environment, or of the engine that runs here."""
    from streams import models
    from streams.show import stages, terminal

    with stages(terminal(stderr=True)) as tell:
        models.put_in_force(
            settings(),
            serving_settings(),
            repository,
            bundle,
            lambda done, total: tell("contents encoded by the new product_encoder", done, total),
        )


def serving_settings() -> "ServingSettings":
    """Those of the environment; with a local engine its Triton in place of what the environment leaves open."""
    import os

    from serving.settings import ServingSettings

    engine = local_engine()
    if engine is None or "FRESHRANK_TRITON" in os.environ:
        return ServingSettings()
    return ServingSettings(triton=engine.environment["FRESHRANK_TRITON"])
