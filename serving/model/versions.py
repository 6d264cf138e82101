"""Which versions a model repository has, which of them belong together, and which of them the server is to hold.

A bundle has the number of the export that made it. An export adds a version only of the models that changed, so
bundle N is of each model the newest version that is not above N.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from feature_repo.events import Bundle
from serving.errors import ServingError
from serving.model.bundle import BUNDLE_NAME, bundle_from, check_header, read_header, weights_file
from serving.requests import MODELS

CONFIG: Final = "config.pbtxt"
_POLICY: Final = re.compile(r"^version_policy:.*$", re.MULTILINE)


def versions(repository: Path, model: str) -> list[int]:
    """All versions of a model that are there, rising."""
    folder = repository / model
    found = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(name) for name in found if name.isdecimal())


def bundles(repository: Path) -> list[int]:
    """The bundles of a repository, rising: those that each model has a version for."""
    found = [versions(repository, model) for model in MODELS]
    if not all(found):
        return []
    first = max(of_model[0] for of_model in found)
    return sorted({number for of_model in found for number in of_model if number >= first})


def bundle_at(repository: Path, number: int, name: str = BUNDLE_NAME) -> Bundle:
    """Bundle `number` of a repository. Raises ServingError when there is none, BundleMismatch for other inputs."""
    if number not in bundles(repository):
        there = ", ".join(map(str, bundles(repository))) or "none"
        raise ServingError(f"no bundle {number} in {repository}; there: {there}")
    models = {model: max(v for v in versions(repository, model) if v <= number) for model in MODELS}
    file = weights_file(repository, "ranker", models["ranker"])
    header = read_header(file)
    check_header(header, file)
    return bundle_from(header, models, number, name)


def hold(repository: Path, model: str, wanted: Collection[int]) -> None:
    """Tell the server by the model's configuration which versions to hold from its next load on, after a restart, too.

    The file is replaced by one rename, so the server never reads half of it.
    """
    missing = sorted(set(wanted) - set(versions(repository, model)))
    if missing:
        raise ServingError(f"{repository / model} has no version {', '.join(map(str, missing))}")
    policy = f"version_policy: {{ specific {{ versions: [ {', '.join(map(str, sorted(wanted)))} ] }} }}"
    file = repository / model / CONFIG
    text = file.read_text("utf-8")
    changed = _POLICY.sub(policy, text) if _POLICY.search(text) else f"{text.rstrip()}\n{policy}\n"
    if changed != text:
        # beside the folder of models: nothing but models may lie in a repository
        new = repository.parent / f".{model}-{os.getpid()}.{CONFIG}"
        new.write_text(changed, "utf-8")
        new.replace(file)
