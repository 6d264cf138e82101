"""Trained weights -> a new version in a model repository, complete or not at all."""

import shutil
from filecmp import cmp
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from serving.errors import ServingError
from serving.model.bundle import REPOSITORY, WEIGHTS, check_header, newest_version, read_header, weights_file
from serving.model.versions import CONFIG
from serving.requests import MODELS

CODE: Final = "model.py"


def export(weights: Path, repository: Path) -> dict[str, int]:
    """Put the weights of a folder (one `<model>.safetensors` each) into a repository; returns the newest versions.

    A model whose weights are those of its newest version gets no other one: nobody need encode anything anew for a
    ranker trained on frozen towers. A version appears by one rename of a complete folder, so a server never reads half
    of it; nothing that is there is touched. The tracked repository is refused: commands serve a copy of it, `adopt`
    changes it.
    """
    if repository.resolve() == REPOSITORY:
        raise ServingError(f"{repository} is the tracked model repository; export to a copy of it")
    _check(weights)
    newest = {model: newest_version(repository, model) for model in MODELS}
    number = 1 + max(newest.values())
    for model, version in newest.items():
        if version == 0 or not _is_same(weights, repository, model, version):
            _add(weights, repository, model, number)
            newest[model] = number
    return newest


def _is_same(weights: Path, repository: Path, model: str, version: int) -> bool:
    return cmp(weights / f"{model}.safetensors", weights_file(repository, model, version), shallow=False)


def _add(weights: Path, repository: Path, model: str, version: int) -> None:
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
