"""The command `freshrank`: one file a verb in `streams.commands`, imported only when it is called."""

import importlib
import sys

import click

#: verb -> what it is for, in the order of a first day with the product
VERBS = {
    "demo": "start everything, replay real shop events, show a list that follows them",
    "up": "start the local parts and the workers, and print their addresses",
    "worker": "run one worker: product, content or ranking",
    "topics": "create the topics, or check what a cluster has",
    "publish": "publish product changes and behaviour from a file",
    "register": "register result sets from a file",
    "rankings": "read the newest rankings, or follow them",
    "freshness": "how fresh each feature view is, and why not",
    "verify": "compare every live ranking with an offline replay of the log",
    "dead-letters": "read what was rejected, and why",
    "train": "fit the ranker",
    "export": "put trained weights into a model repository, as a new version",
}


class Verbs(click.Group):
    """Imports a verb when it is called: a worker must not wait for what only training needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"streams.commands.{name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # from the table: help imports nothing
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="freshrank")
def root() -> None:
    """Rankings that follow price, stock and sales within milliseconds.

    \b
    A first look:      freshrank demo
    Your own events:   freshrank up, then publish, register and rankings --follow
    At three a.m.:     freshrank freshness, verify, dead-letters

    Settings come from the environment (FRESHRANK_KAFKA, FRESHRANK_REDIS, FRESHRANK_TRITON, ...); `freshrank up`
    prints those of the stack it started.
    """


class Problem(click.ClickException):
    """What a person must mend: one line, exit code 2."""

    exit_code = 2


def main() -> None:
    """Entry point: errors of use and of the surroundings are one line and exit code 2."""
    try:
        root(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
