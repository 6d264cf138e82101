"""`freshrank topics`: create, check and list them."""

import json
from dataclasses import asdict

import click


@click.group()
def command() -> None:
    """The nine topics that everything goes through.

    Partition counts come from FRESHRANK_PARTITIONS, replicas from FRESHRANK_REPLICATION. `freshrank up` creates what is
    missing; workers only check, and refuse to start where events would be lost.
    """


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print the names of the topics that were created as a JSON list.")
def create(as_json: bool) -> None:
    """Create the topics that are missing, and put the models that come with freshrank in force if none are.

    Topics that are there are not touched, nor is a bundle that is in force.
    """
    from serving.model.bundle import default_bundle
    from streams import models, topics
    from streams.commands.connecting import settings

    cluster, bundle = settings(), default_bundle()
    made = topics.create(cluster)
    is_first = models.publish_first(cluster, bundle)
    if as_json:
        click.echo(json.dumps(made))
        return
    click.echo(f"created {', '.join(made)}" if made else "all topics are there")
    if is_first:
        click.echo(f"bundle {bundle.bundle}/{bundle.version} is in force, the first")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print cluster, topic ids, partitions and differences.")
def check(as_json: bool) -> None:
    """Compare the topics of the cluster with what they should be.

    Exit code 2 when one is missing or would lose events; a line for each setting that differs without harm.
    """
    from streams import topics
    from streams.commands.connecting import settings

    found = topics.check(settings())
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"all {len(found.topics)} topics of cluster {found.cluster} are as they should be, or do no harm:")
    for line in found.differs or ("nothing differs",):
        click.echo(f"  {line}")


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the table as a JSON list.")
def list_(as_json: bool) -> None:
    """Print what each topic is for and how it should be. Asks no cluster."""
    from streams import topics
    from streams.commands.connecting import settings
    from streams.show import terminal, topics_table

    wanted = topics.topics(settings())
    if as_json:
        click.echo(json.dumps([asdict(topic) for topic in wanted]))
    else:
        terminal().print(topics_table(wanted))
