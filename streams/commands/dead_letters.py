"""`freshrank dead-letters`: what was rejected, and why."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streams.dead_letters import DeadLetter

#: characters of a record that a line shows
SHOWN = 160


@click.command()
@click.option("--reason", "reasons", multiple=True, metavar="CODE", help="Only these reason codes; repeatable.")
@click.option("--topic", "topics", multiple=True, type=click.Choice(["catalog", "behavior", "result-sets", "models",
              "content"]), help="Only what came by these topics; repeatable.")  # fmt: skip
@click.option("--follow", is_flag=True, help="Go on: each as it comes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line, with the original bytes in base64.")
def command(reasons: tuple[str, ...], topics: tuple[str, ...], follow: bool, as_json: bool) -> None:
    """Print the records that the engine rejected, oldest first: where each stood, the reason code and the field.

    Bad input never stops the stream: the one bad record goes to the topic `dead-letter` with its original bytes, its
    good neighbours count. A record may be told of twice, since a worker that recovers buries again.

    docs/reference/records.md lists the reason codes.
    """
    from streams.commands.connecting import connection
    from streams.dead_letters import read
    from streams.validation import REASONS

    for reason in reasons:
        if reason not in REASONS:
            raise click.BadParameter(f"{reason!r} is none of {', '.join(REASONS)}", param_hint="--reason")
    found = 0
    for letter in read(connection(), reasons=reasons, topics=topics, follow=follow):
        found += 1
        click.echo(json.dumps(letter.to_json(), ensure_ascii=False) if as_json else _line(letter))
    if not found and not as_json:
        click.echo("no dead letters", err=True)


def _line(letter: "DeadLetter") -> str:
    """`2011-12-01 12:00:03  behavior[2] offset 41, record 3  missing_field  product_id: ...  {...}`"""
    at = datetime.fromtimestamp(letter.buried_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    place = f"{letter.topic}[{letter.partition}] offset {letter.offset}"
    if letter.place >= 0:
        place += f", record {letter.place}"
    told = letter.to_json()["content"]
    content = repr(letter.value) if told is None else json.dumps(told, ensure_ascii=False)
    return f"{at}  {place}  {letter.reason}  {letter.text}  {content[:SHOWN]}"
