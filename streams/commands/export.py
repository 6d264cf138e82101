"""`freshrank export`: trained weights into a model repository, and into force."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("weights", type=click.Path(exists=True, file_okay=False, path_type=Path),
                default=Path(".freshrank/weights"))  # fmt: skip
@click.option("--repository", type=click.Path(file_okay=False, path_type=Path),
              help="Model repository to add to.  [default: that of the running engine]")  # fmt: skip
@click.option("--serve", is_flag=True, help="Let Triton load them, and score with them from now on.")
@click.option("--json", "as_json", is_flag=True, help="Print the bundle as a JSON object.")
def command(weights: Path, repository: Path | None, serve: bool, as_json: bool) -> None:
    """Put the weights in the folder WEIGHTS (.freshrank/weights when it is not named) into a model repository.

    They become a new version of each model that they change, complete or not at all; what is there stays. The models
    that come with the code are never changed: a running engine serves a copy of them.

    Prints the bundle: the versions that belong together. With --serve Triton loads them, and the bundle goes to the
    topic `models`: workers score every set with it. A new product_encoder encodes all content before that. The versions
    in force until then go on answering, so no request is dropped; `freshrank rollback` goes back to them.
    """
    import msgspec

    from serving.model.export import export
    from serving.model.versions import bundle_at
    from streams.commands.bundles import put_in_force, repository_or_that_of_the_engine

    repository = repository_or_that_of_the_engine(repository)
    repository.mkdir(parents=True, exist_ok=True)
    versions = export(weights, repository)
    bundle = bundle_at(repository, max(versions.values()))
    if serve:
        put_in_force(repository, bundle)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(bundle)))
        return
    for model, version in versions.items():
        click.echo(f"{model}: version {version} in {repository / model / str(version)}")
    click.echo("trained quality: " + ", ".join(f"{name} {value:.4f}" for name, value in bundle.metrics.items()))
    if serve:
        click.echo(f"bundle {bundle.bundle}/{bundle.version} is in force")
