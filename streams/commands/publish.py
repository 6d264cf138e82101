"""`freshrank publish`: products and behaviour from a file."""

import json
from collections.abc import Mapping
from typing import IO

import click


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--bulk", is_flag=True, help="Many records a message: cheaper for everybody, and as late as the last one."
)
@click.option("--skip-bad", is_flag=True, help="Send the good records also when some are bad.")
@click.option("--json", "as_json", is_flag=True, help="Print counts and newest offsets as a JSON object.")
def command(file: IO[str], bulk: bool, skip_bad: bool, as_json: bool) -> None:
    """Publish product changes and behaviour from FILE, `-` for stdin: a JSON object on each line, or a JSON list.

    \b
      {"type": "product", "product_id": "85123A", "title": "White Heart", "price": 295, "currency": "GBP", "stock": 12}
      {"type": "product", "product_id": "85123A", "price": 275}
      {"type": "purchase", "event_id": "o7/1", "product_id": "85123A", "quantity": 2, "user_id": "u1"}

    A product is a patch: fields that are absent stay as they are, null clears one, "delisted": true takes it from sale.
    Behaviour is impression, click, cart, purchase or return. Prices are integers in minor units, `event_time` is in ms
    UTC and is now where it is absent. Pictures, videos and sounds are addresses or `sha256:` references.

    Records are checked by the engine's own rules before the first is sent; bad ones are told by line and field. An
    event_id counts once within ten minutes of event time, so what is sent again right away does no harm.
    """
    from feature_repo.events import Behavior, Product
    from streams.client import Connection, Publisher
    from streams.commands.connecting import settings
    from streams.commands.input_files import PUBLISHED, read_records
    from streams.show import bar, terminal

    ours = settings()
    read, skipped = read_records(file, PUBLISHED, ours.limits, skip_bad)
    records = [record for record in read if isinstance(record, Product | Behavior)]
    with Publisher(Connection.from_settings(ours), ours.limits) as publisher:
        if bulk:
            messages = publisher.publish_many(records)
        else:
            with bar(terminal(stderr=True), "publish") as report:
                for messages, record in enumerate(records, 1):
                    publisher.publish(record)
                    report(messages, len(records), record.event_time)
        offsets = publisher.flush()
    if as_json:
        told = {"records": len(records), "messages": messages, "skipped": skipped, "offsets": _by_topic(offsets)}
        click.echo(json.dumps(told))
        return
    places = ", ".join(
        f"{topic}[{partition}] to offset {offset}" for (topic, partition), offset in sorted(offsets.items())
    )
    left = f", {skipped} bad ones skipped" if skipped else ""
    click.echo(f"{len(records)} records in {messages} messages: {places}{left}")


def _by_topic(offsets: Mapping[tuple[str, int], int]) -> dict[str, dict[str, int]]:
    told: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        told.setdefault(topic, {})[str(partition)] = offset
    return told
