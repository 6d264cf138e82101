"""`freshrank export`: trained weights into a model repository, and into force."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from feature_repo.events import Bundle
    from streams.local.running import RunningEngine

LOAD_TIMEOUT_S = 120.0


@click.command()
@click.argument("weights", type=click.Path(exists=True, file_okay=False, path_type=Path),
                default=Path(".freshrank/weights"))  # fmt: skip
@click.option("--repository", type=click.Path(file_okay=False, path_type=Path),
              help="Model repository to add to.  [default: that of the running engine]")  # fmt: skip
@click.option("--serve", is_flag=True, help="Let the running engine load them and score with them from now on.")
@click.option("--json", "as_json", is_flag=True, help="Print the bundle as a JSON object.")
def command(weights: Path, repository: Path | None, serve: bool, as_json: bool) -> None:
    """Put the weights in the folder WEIGHTS (.freshrank/weights when it is not named) into a model repository.

    They become a new version of each model, complete or not at all; what is there stays. The models that come with the
    code are never changed: a running engine serves a copy of them.

    Prints the bundle: the versions that belong together. With --serve Triton loads them, and the bundle goes to the
    topic `models`: workers then encode all content anew and score every set with it, the old models serving until then.
    """
    import msgspec

    from serving.model.bundle import bundle_of
    from serving.model.export import export
    from streams.cli import Problem
    from streams.commands.connecting import local_engine

    engine = local_engine()
    if repository is not None and serve:
        raise click.UsageError(
            "--serve is about the running engine, and so about its repository: leave --repository out"
        )
    if repository is None:
        if engine is None:
            raise Problem(
                "which repository? no engine runs in this folder (freshrank up); name one by --repository DIR"
            )
        repository = Path(engine.repository)
    repository.mkdir(parents=True, exist_ok=True)
    versions = export(weights, repository)
    bundle = bundle_of(repository)
    if serve and engine is not None:
        _put_in_force(engine, bundle)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(bundle)))
        return
    for model, version in versions.items():
        click.echo(f"{model}: version {version} in {repository / model / str(version)}")
    click.echo("trained quality: " + ", ".join(f"{name} {value:.4f}" for name, value in bundle.metrics.items()))
    if serve:
        click.echo(f"bundle {bundle.bundle}/{bundle.version} is in force")


def _put_in_force(engine: "RunningEngine", bundle: "Bundle") -> None:
    """Load, then publish: who reads of a version finds it served."""
    import urllib.error
    import urllib.request

    from streams.cli import Problem
    from streams.client import Publisher
    from streams.commands.connecting import connection

    for model in bundle.models:
        address = f"http://{engine.addresses['triton-http']}/v2/repository/models/{model}/load"
        try:
            urllib.request.urlopen(urllib.request.Request(address, b"{}"), timeout=LOAD_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            raise Problem(f"Triton cannot load {model}: {error.read().decode(errors='replace')}") from error
    with Publisher(connection()) as publisher:
        publisher.publish(bundle)
