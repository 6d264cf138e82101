"""`freshrank export`: trained weights into a model repository."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("weights", type=click.Path(exists=True, file_okay=False, path_type=Path),
                default=Path(".freshrank/weights"))  # fmt: skip
@click.option("--repository", type=click.Path(file_okay=False, path_type=Path),
              help="Model repository to add to.  [default: that of the running engine]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the bundle as a JSON object.")
def command(weights: Path, repository: Path | None, as_json: bool) -> None:
    """Put the weights in the folder WEIGHTS (.freshrank/weights when it is not named) into a model repository.

    They become a new version of each model, complete or not at all; what is there stays. The models that come with the
    code are never changed: a running engine serves a copy of them.

    Prints the bundle: the versions that belong together. Triton serves it once it has loaded the models; workers score
    with it once it is published on the topic `models`.
    """
    import msgspec

    from serving.model.bundle import bundle_of
    from serving.model.export import export
    from streams.cli import Problem
    from streams.commands.connecting import local_engine

    if repository is None:
        engine = local_engine()
        if engine is None:
            raise Problem(
                "which repository? no engine runs in this folder (freshrank up); name one by --repository DIR"
            )
        repository = Path(engine.repository)
    repository.mkdir(parents=True, exist_ok=True)
    versions = export(weights, repository)
    bundle = bundle_of(repository)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(bundle)))
        return
    for model, version in versions.items():
        click.echo(f"{model}: version {version} in {repository / model / str(version)}")
    click.echo("trained quality: " + ", ".join(f"{name} {value:.4f}" for name, value in bundle.metrics.items()))
