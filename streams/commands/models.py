"""`freshrank models`: the bundles of a repository, and which one is in force."""

import json
from pathlib import Path

import click


@click.command()
@click.option("--repository", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Model repository that Triton serves.  [default: that of the running engine]")  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object a line, the bundle and whether it is in force."
)
def command(repository: Path | None, as_json: bool) -> None:
    """List the bundles that can be put into force: their versions and how good they were found when trained."""
    import msgspec
    from rich.table import Table

    from serving.model.versions import bundle_at, bundles
    from streams import models
    from streams.commands.bundles import repository_or_that_of_the_engine
    from streams.commands.connecting import settings
    from streams.show import terminal

    repository = repository_or_that_of_the_engine(repository)
    now = models.in_force(settings())
    found = [bundle_at(repository, number) for number in bundles(repository)]
    if as_json:
        for bundle in found:
            click.echo(json.dumps({**msgspec.to_builtins(bundle), "in_force": bundle == now}))
        return
    table = Table("bundle", "", "versions", "quality when trained")
    for bundle in found:
        versions = ", ".join(f"{model} {version}" for model, version in bundle.models.items())
        quality = ", ".join(f"{name} {value:.4f}" for name, value in bundle.metrics.items())
        table.add_row(f"{bundle.bundle}/{bundle.version}", "in force" if bundle == now else "", versions, quality)
    terminal().print(table)
