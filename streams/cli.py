"""The command `freshrank`: one file a verb in `streams.commands`, imported only when it is called."""

import importlib
import os
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
    "why": "why products of a set moved",
    "freshness": "how fresh each feature view is, and why not",
    "verify": "compare every live ranking with an offline replay of the log",
    "dead-letters": "read what was rejected, and why",
    "train": "fit the ranker",
    "evaluate": "how good the model is, beside its floors",
    "export": "put trained weights into a model repository, as a new version",
    "bench": "measure the engine beside its floor and its peers",
    "models": "list the bundles of a repository, and which one is in force",
    "rollback": "put an earlier bundle into force again",
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

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Exception as error:
            told = _sentence(error)
            if told is None:
                raise
            raise Problem(told) from error

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

    Settings come from the environment (FRESHRANK_KAFKA, FRESHRANK_REDIS, FRESHRANK_TRITON, ...). Without
    FRESHRANK_KAFKA, commands use the engine that `freshrank up` or `demo` started last in the current folder.

    Exit codes: 0 done, 1 not as it should be (verify) or a fault of the program, 2 something for you to mend, told in
    a line, 130 ended by Ctrl-C.
    """


class Problem(click.ClickException):
    """What a person must mend: one line, exit code 2."""

    exit_code = 2


def _sentence(error: Exception) -> str | None:
    """What to say about an error that is no fault of the program; None for one that is."""
    # these were imported when they were raised; a worker's start must not wait for them
    from kafka.errors import KafkaError
    from pydantic import ValidationError

    from feature_repo.reading import ViewNotServed
    from feature_repo.row_store import StoreUnavailable
    from serving.datasets.online_retail import DatasetError
    from serving.errors import ServingError
    from streams.client import ClientError, Unreachable
    from streams.demo import DemoError
    from streams.local.part import PartFailed
    from streams.media import MediaError
    from streams.topics import BrokerAway, TopicsDiffer

    match error:
        case Unreachable() | BrokerAway() if "FRESHRANK_KAFKA" not in os.environ:
            return f"{error}; `freshrank up` starts one, FRESHRANK_KAFKA names another"
        case (
            ClientError() | BrokerAway() | TopicsDiffer() | PartFailed() | DemoError() | DatasetError() | ServingError()
        ):
            return str(error)
        case StoreUnavailable():
            return f"Redis is away: {error}"
        case ViewNotServed() | MediaError():
            return str(error)
        case KafkaError():
            return f"Kafka: {error}"
        case ValidationError():
            return "; ".join(f"FRESHRANK_{'__'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        case OSError(strerror=str(why)):
            return f"{error.filename}: {why}" if error.filename else why
        case OSError():
            return str(error)
        case _:
            return None


def main() -> None:
    """Entry point: errors of use and of the surroundings are one line and exit code 2."""
    try:
        root(prog_name="freshrank", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
