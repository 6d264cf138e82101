"""Trained weights -> a new version in a model repository, complete or not at all."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from serving.errors import ServingError
from serving.model.bundle import REPOSITORY, WEIGHTS, check_header, newest_version, read_header
from serving.requests import MODELS

CONFIG: Final = "config.pbtxt"
CODE: Final = "model.py"


def export(weights: Path, repository: Path) -> dict[str, int]:
    """Put the weights of a folder (one `<model>.safetensors` each) into a repository; returns the new versions.

    A version appears by one rename of a complete folder, so a server never reads half of it; nothing that is there
    is touched. The tracked repository is refused: commands serve a copy of it, `adopt` changes it.
    """
    if repository.resolve() == REPOSITORY:
        raise ServingError(f"{repository} is the tracked model repository; export to a copy of it")
    _check(weights)
    version = 1 + max(newest_version(repository, model) for model in MODELS)
    for model in MODELS:
        folder = repository / model
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / CONFIG).is_file():
            shutil.copy(REPOSITORY / model / CONFIG, folder)
        with TemporaryDirectory(dir=repository.parent, prefix=f"{model}-") as made:
            complete = Path(made) / str(version)
            complete.mkdir()
            shutil.copy(_code(model), complete / CODE)
            shutil.copy(weights / f"{model}.safetensors", complete / WEIGHTS)
            complete.rename(folder / str(version))
    return dict.fromkeys(MODELS, version)


def adopt(weights: Path, repository: Path = REPOSITORY) -> dict[str, int]:
    """Replace the weights of version 1 in the tracked repository: for maintainers, who commit them."""
    _check(weights)
    for model in MODELS:
        shutil.copyfile(weights / f"{model}.safetensors", repository / model / "1" / WEIGHTS)
    return dict.fromkeys(MODELS, 1)


def copy_repository(target: Path) -> None:
    """Make a run-time copy of the tracked repository, unless there is one already."""
    if not target.exists():
        shutil.copytree(REPOSITORY, target, ignore=shutil.ignore_patterns("__pycache__"))


def _check(weights: Path) -> None:
    """Raise unless all models are there and belong to this code's order of inputs."""
    for model in MODELS:
        file = weights / f"{model}.safetensors"
        if not file.is_file():
            raise ServingError(f"no weights of {model} in {weights}; `freshrank train` makes them")
        check_header(read_header(file), file)


def _code(model: str) -> Path:
    return REPOSITORY / model / str(newest_version(REPOSITORY, model)) / CODE
