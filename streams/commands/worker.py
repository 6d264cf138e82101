"""`freshrank worker`: one role in this process."""

import click


@click.command()
@click.option("--role", type=click.Choice(["product", "content", "ranking"]), required=True, help="What it does.")
@click.option("--instance", default="", help="Stable name of this process: a restart then stops nobody else.")
@click.option("--encoder", type=click.IntRange(1), metavar="VERSION",
              help="With content: fill the rows of a product_encoder that is not in force.")  # fmt: skip
def command(role: str, instance: str, encoder: int | None) -> None:
    """Run one worker until SIGINT or SIGTERM.

    \b
    product   catalog and behaviour events -> feature rows, feature-changes
    content   product texts and pictures -> Triton product_encoder -> feature rows
    ranking   result sets and changed rows -> Triton ranker -> rankings

    More load = more workers of the role that is busy; partitions are shared out by Kafka.

    `freshrank export --serve` fills a new encoder's rows with one worker, before it comes into force; where there are
    many products, more of them beside it (--role content --encoder VERSION) share the work.
    """
    from streams.settings import Settings
    from streams.workers import run

    if encoder is not None and role != "content":
        raise click.BadParameter("goes with --role content", param_hint="--encoder")
    settings = Settings()
    if instance:
        settings = settings.model_copy(update={"instance": instance})
    run(role, settings, encoder)  # type: ignore[arg-type]
