"""`freshrank rollback`: an earlier bundle into force again."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("number", type=click.IntRange(1), required=False)
@click.option("--repository", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Model repository that Triton serves.  [default: that of the running engine]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the bundle as a JSON object.")
def command(number: int | None, repository: Path | None, as_json: bool) -> None:
    """Put bundle NUMBER into force again, or the one before that in force when no number is given.

    Triton loads its versions beside those in force, which go on answering until every worker has switched. Any bundle
    that the repository has will do: a later one rolls forward. `freshrank models` lists them.
    """
    import msgspec

    from serving.model.versions import bundle_at, bundles
    from streams import models
    from streams.cli import Problem
    from streams.commands.bundles import put_in_force, repository_or_that_of_the_engine
    from streams.commands.connecting import settings

    repository = repository_or_that_of_the_engine(repository)
    if number is None:
        now = models.in_force(settings())
        earlier = [n for n in bundles(repository) if now is not None and n < now.version]
        if not earlier:
            raise Problem(f"nothing to go back to: {repository} has no bundle before the one in force")
        number = earlier[-1]
    bundle = bundle_at(repository, number)
    put_in_force(repository, bundle)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(bundle)))
    else:
        click.echo(f"bundle {bundle.bundle}/{bundle.version} is in force")
