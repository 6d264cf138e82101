"""The pages keep their word: links, symbols, verbs, settings and dependencies exist, and the README runs."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from serving.settings import ServingSettings
from streams.cli import VERBS
from streams.local.engine import LocalEngine
from streams.settings import Settings
from streams.topics import topics
from tests.parts import kafka_home

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DECISIONS = ROOT / "docs" / "decisions.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: packages that the owner chose; docs/decisions.md accounts for all others
GIVEN = {"kafka-python", "faust-streaming", "torch", "tritonclient", "feast", "numpy", "msgpack"}


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, those inside list items too."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@EVERY_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@EVERY_PAGE
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "streams|serving|feature_repo|tests|docs|examples|benchmarks|model_repository|scripts"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), name


def symbols(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Functions, classes, their members and assigned names, as `Class.member`."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + node.name
                yield from symbols(node, f"{prefix}{node.name}.")
            case ast.Assign():
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(name)):
                yield prefix + name


@EVERY_PAGE
def test_symbols_that_are_named_exist(page: Path) -> None:
    """`file.py`: `Symbol`, `Another.one`"""
    for file, names in re.findall(r"`([\w/]+\.py)`:\s((?:`[\w.]+`(?:,\s)?)+)", page.read_text()):
        known = set(symbols(ast.parse((ROOT / file).read_text())))
        for name in re.findall(r"`([\w.]+)`", names):
            assert name in known, f"{file}: {name}"


def test_the_architecture_names_symbols() -> None:
    """The pattern of the test above finds what it should."""
    assert len(re.findall(r"`[\w/]+\.py`:\s`[\w.]+`", ARCHITECTURE.read_text())) > 50


@EVERY_PAGE
def test_verbs_of_make_exist(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|[`=. ])make ([a-z]+)(?=[` ;,)]|$)", _code(page), re.MULTILINE)) <= verbs


def test_every_verb_of_make_is_explained() -> None:
    help_lines = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = re.findall(r"^\| `make ([a-z]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(set(help_lines) - {"help"})


@EVERY_PAGE
def test_verbs_of_the_command_exist(page: Path) -> None:
    assert set(re.findall(r"freshrank ([a-z][a-z-]*)", _code(page))) <= set(VERBS)


@EVERY_PAGE
def test_settings_exist(page: Path) -> None:
    read = {f"FRESHRANK_{name}".upper() for kind in (Settings, ServingSettings) for name in kind.model_fields}
    read |= {f"FRESHRANK_LIMITS__{name}".upper() for name in type(Settings().limits).model_fields}
    for name in re.findall(r"\bFRESHRANK_[A-Z_]*[A-Z]\b", page.read_text()):
        assert name in read or _is_read_elsewhere(name), name


def _is_read_elsewhere(name: str) -> bool:
    return any(
        name in file.read_text() for package in ("streams", "feature_repo") for file in (ROOT / package).rglob("*.py")
    )


def _code(page: Path) -> str:
    """Code spans and code blocks of a page, a line each."""
    return "\n".join(re.findall(r"^ *```.*?^ *```|`[^`\n]+`", page.read_text(), re.DOTALL | re.MULTILINE))


def test_the_architecture_has_every_topic() -> None:
    section = ARCHITECTURE.read_text().split("## Topics")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE) == [topic.name for topic in topics(Settings())]


def test_every_failure_names_its_test() -> None:
    section = ARCHITECTURE.read_text().split("## What dies")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?!what |---)(.*)\|$", section, re.MULTILINE)
    named = [set(re.findall(r"`(test_\w+)`", row)) for row in rows]
    files = (ROOT / "tests" / "pipeline").glob("test_*.py")
    there = {name for file in files for name in symbols(ast.parse(file.read_text())) if name.startswith("test_")}
    assert len(rows) >= 8
    assert all(named)
    assert set().union(*named) <= there


def test_every_dependency_has_its_reason() -> None:
    optional = [name for extra in PROJECT["optional-dependencies"].values() for name in extra]
    wanted = {re.split(r"[\[<>=~]", name)[0] for name in (*PROJECT["dependencies"], *optional)} - GIVEN
    section = DECISIONS.read_text().split("\n# Dependencies\n")[1]
    told = [name for name in re.findall(r"^\| ([\w-]+) \| \S", section, re.MULTILINE) if name != "package"]
    assert sorted(told) == sorted(wanted | {"nvidia-pytriton"})


def test_a_decision_has_five_lines() -> None:
    decisions = DECISIONS.read_text().split("\n# Dependencies\n")[0].split("\n## ")[1:]
    assert decisions
    for decision in decisions:
        keys = re.findall(r"^- \*\*([\w ]+)\*\* \S", decision, re.MULTILINE)
        assert keys == ["Date", "Decision", "Because", "Instead of", "Revisit when"], decision.splitlines()[0]


def test_decisions_stand_newest_first() -> None:
    dates = re.findall(r"^- \*\*Date\*\* (\d{4}-\d\d-\d\d)$", DECISIONS.read_text(), re.MULTILINE)
    assert dates == sorted(dates, reverse=True)


def test_the_changelog_tells_of_this_version() -> None:
    newest = re.search(r"^## (\S+) - (\d{4}-\d\d-\d\d|unreleased)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


# --- the README, run ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """What `freshrank up` starts: the log's clock is the time of day."""
    workers = {"product": 1, "content": 1, "ranking": 1}
    folder = tmp_path_factory.mktemp("readme")
    engine = LocalEngine(folder, kafka_home(), workers=workers, heartbeats="owner", say=print)
    with engine.running():
        engine.wait_until_consuming()
        yield engine


@pytest.mark.parts
def test_the_python_of_the_readme_runs(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {}
    found = blocks(README, "python")
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    assert len(found) == 2
    order, facts = capsys.readouterr().out.splitlines()
    assert sorted(product_id for _, product_id, _, _ in ast.literal_eval(order)) == ["tee-1", "tee-2"]
    assert facts.endswith("False")  # not degraded


@pytest.mark.parts
def test_the_commands_of_the_readme_run(engine: LocalEngine) -> None:
    """Those that end by themselves, in their order; the last one asks the oracle."""
    lines = [line for block in blocks(README, "sh") for line in block.splitlines() if line.startswith("freshrank ")]
    assert len(lines) >= 6
    for line in lines:
        done = _run(line, engine)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert re.search(r"verify: (\d+) of \1 result sets equal to the oracle", done.stdout)


def _run(line: str, engine: LocalEngine) -> subprocess.CompletedProcess[str]:
    """A command of the README in this environment. `freshness` finds workers by the folder of the engine's run, so a
    test names them."""
    _, verb, *arguments = shlex.split(line)
    if verb == "freshness":
        arguments += [part for address in engine.metrics_addresses.values() for part in ("--metrics", address)]
    command = [sys.executable, "-m", "streams", verb, *arguments]
    environment = {**os.environ, **engine.environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
