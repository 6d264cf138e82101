"""`freshrank verify`: is every ranking what it should be?"""

import json
import sys
from pathlib import Path

import click


@click.command()
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
              help="Seconds without progress after which what still differs is told.")  # fmt: skip
@click.option("--repository", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Models to score with.  [default: the running engine's, else the installed ones]")  # fmt: skip
@click.option("--explain", metavar="ID", help="Show this set, expected beside published.")
@click.option("--json", "as_json", is_flag=True, help="Print figures and differences as a JSON object.")
def command(timeout_s: float, repository: Path | None, explain: str | None, as_json: bool) -> None:
    """Replay the input topics offline and compare every ranking, stored row and dead letter with the engine's.

    The replay (the oracle) shares nothing with the engine but validation, the feature functions and the model. It waits
    until the workers have written everything that is in the log; a log that never rests is told as `behind`. Exit code
    0 when all is equal, 1 when something differs.

    docs/reference/oracle.md says what equal means.
    """
    from streams.cli import Problem
    from streams.commands.connecting import local_engine, settings
    from streams.oracle import verify
    from streams.show import stages, terminal

    engine = local_engine()
    if repository is None and engine is not None:
        repository = Path(engine.repository)
    with stages(terminal(stderr=True)) as tell:
        report = verify(settings(), timeout_s=timeout_s, progress=tell, repository=repository)
    if explain is not None:
        try:
            click.echo(report.explain(explain))
        except KeyError:
            known = sorted(report.expected)
            raise Problem(f"no result set {explain} was registered or ranked; {len(known)} were: {known[:3]}") from None
    elif as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        for line in report.lines:
            click.echo(line)
    if not report.ok:
        sys.exit(1)
