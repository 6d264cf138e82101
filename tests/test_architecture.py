"""The maps in the package docstrings are true: every module that is there is named, and every name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: packages whose docstring is a map; the other ones say what their files have in common
MAPPED = (
    "feature_repo",
    "feature_repo/features",
    "serving",
    "serving/model",
    "serving/model/encoders",
    "serving/model/fusion",
    "serving/model/suites",
    "serving/model/training",
    "serving/preprocess",
    "streams",
    "streams/local",
    "streams/oracle",
)
UNMAPPED = {"serving/datasets", "streams/commands"}
#: a line of a map: names first, then two spaces, then what stands there
LINE = re.compile(r"^ *((?:\w+(?:\.py|/) ?)+) {1,}\S", re.MULTILINE)


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""


def named(package: str) -> list[str]:
    """Modules (`x.py`) and packages (`x/`) that the map of a package names."""
    text = docstring(ROOT / package / "__init__.py")
    return [name for names in LINE.findall(text) for name in names.split()]


def present(package: str) -> set[str]:
    folder = ROOT / package
    modules = {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
    return modules | {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize("package", MAPPED)
def test_a_map_names_what_is_there(package: str) -> None:
    names = named(package)
    assert len(names) == len(set(names)), "each once"
    assert set(names) == present(package)


def test_every_package_has_a_map() -> None:
    packages = {
        str(path.parent.relative_to(ROOT))
        for top in ("feature_repo", "serving", "streams")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert packages == {*MAPPED, *UNMAPPED}


@pytest.mark.parametrize("package", sorted({*MAPPED, *UNMAPPED}))
def test_every_module_says_what_it_is(package: str) -> None:
    silent = [path.name for path in (ROOT / package).glob("*.py") if not docstring(path)]
    assert silent == []


def test_pure_modules_wait_for_nothing_and_read_no_clock() -> None:
    """What the map calls pure imports neither asyncio nor a clock nor a client of anything."""
    impure = {"asyncio", "time", "datetime", "random", "redis", "aiokafka", "faust", "tritonclient", "fsspec"}
    text = docstring(ROOT / "streams" / "__init__.py")
    pure = re.findall(r"^ *(\w+\.py) .*\(pure\)$", text, re.MULTILINE)
    assert len(pure) >= 6
    for name in pure:
        tree = ast.parse((ROOT / "streams" / name).read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {module.partition(".")[0] for module in imported} & impure, name
