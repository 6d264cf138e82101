"""Help: an engineer can learn the product from it, and asking for it costs nothing."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from streams.cli import VERBS, root
from tests.commands.conftest import Invoke


def commands() -> list[tuple[str, click.Command]]:
    """Every verb and verb of a verb."""
    found = []
    context = click.Context(root)
    for name in VERBS:
        verb = root.get_command(context, name)
        assert verb is not None
        found.append((name, verb))
        if isinstance(verb, click.Group):
            found += [(f"{name} {inner}", command) for inner, command in verb.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_verb_explains_itself(invoke: Invoke, name: str, command: click.Command) -> None:
    result = invoke(*name.split(), "--help")
    assert result.exit_code == 0
    assert f"Usage: root {name}" in result.output
    assert len(command.help or "") > 40
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_the_overview_names_every_verb(invoke: Invoke) -> None:
    output = invoke("--help").output
    assert all(f"\n  {name} " in output for name in VERBS)


def test_help_and_workers_import_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from streams.cli import VERBS, root\n"
        "for verb in VERBS: CliRunner().invoke(root, [verb, '--help'])\n"
        "import streams.workers\n"
        "print(sorted({'torch', 'feast', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version(invoke: Invoke) -> None:
    assert "version" in invoke("--version").output


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_the_page_has_every_verb_and_option(name: str, command: click.Command) -> None:
    if isinstance(command, click.Group):
        return
    heading, _, rest = PAGE.read_text().partition(f"### `freshrank {name}")
    section = rest.partition("###")[0]
    assert heading
    options = [option for option in command.params if isinstance(option, click.Option)]
    missing = [f"`{option.opts[0]}` | {_about(option)}" for option in options]
    assert [line for line in missing if line not in section] == []
    assert section.count("\n| `--") == len(options)


def _about(option: click.Option) -> str:
    """Its help up to the default, which the page writes in its own way."""
    return (option.help or "").partition("  [default:")[0].rstrip(".")
