"""`freshrank worker`: one role in this process."""

import click


@click.command()
@click.option("--role", type=click.Choice(["product", "content", "ranking"]), required=True, help="What it does.")
@click.option("--instance", default="", help="Stable name of this process: a restart then stops nobody else.")
def command(role: str, instance: str) -> None:
    """Run one worker until SIGINT or SIGTERM.

    \b
    product   catalog and behaviour events -> feature rows, feature-changes
    content   product texts and pictures -> Triton product_encoder -> feature rows
    ranking   result sets and changed rows -> Triton ranker -> rankings

    More load = more workers of the role that is busy; partitions are shared out by Kafka.
    """
    from streams.settings import Settings
    from streams.workers import run

    settings = Settings()
    run(role, settings.model_copy(update={"instance": instance}) if instance else settings)  # type: ignore[arg-type]
