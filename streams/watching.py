"""A log that is not what it was: a topic that got more partitions, one that was made anew.

Both change where rows live and whose clocks count. A running worker ends with one clear line; the one started in its
place reads the log as it now is. What the engine itself wrote to an internal topic carries offsets of the inputs, so
an input that is made anew needs new internal topics, too; and until the last worker has noticed, some still make
records from the old inputs: a record says what it was made from, and who reads another log passes it over.
"""

import asyncio
import logging
from collections.abc import Iterable
from hashlib import blake2b

from feature_repo.row_store import RowStore
from streams import topics
from streams.records import BEHAVIOR, CATALOG, CONTENT, FEATURE_CHANGES, USER_BEHAVIOR
from streams.settings import Settings

log = logging.getLogger(__name__)

WATCH_S = 10.0
#: internal topic -> the inputs whose offsets its records carry
ORIGINS = {CONTENT: (CATALOG,), USER_BEHAVIOR: (BEHAVIOR,), FEATURE_CHANGES: (CATALOG, BEHAVIOR)}


async def watch_topics(settings: Settings, began_with: topics.TopicIds) -> None:
    """Look now and then, for ever. Raises LogChanged once the log is no longer the one that the worker began with."""
    with topics.Checks(settings) as checks:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                found = await asyncio.to_thread(checks.check)
            except topics.BrokerAway:
                continue  # brokers come back; consumers wait for them, too
            changed = describe_change(began_with, found)
            if changed:
                raise LogChanged(f"{changed}: starting anew with the log as it now is")


async def check_origins(store: RowStore, ids: topics.TopicIds) -> None:
    """Raises LogChanged if an internal topic was filled from inputs that are no more. An emptied store forgets it."""
    for internal, inputs in ORIGINS.items():
        now = _topic_ids(ids, inputs)
        if await store.remember_first(f"freshrank:{ids.cluster}:{ids.topics[internal]}:of", now) != now:
            raise LogChanged(f"topic {internal} holds what came from another {' or '.join(inputs)}: make it anew, too")


def origins_of(ids: topics.TopicIds) -> dict[str, bytes]:
    """Internal topic -> 8 bytes that stand for the inputs its records are made from."""
    return {internal: _short(_topic_ids(ids, inputs)) for internal, inputs in ORIGINS.items()}


def member_of(role: str, instance: str, ids: topics.TopicIds) -> str:
    """The name of a static member of the role's group, another one on another log.

    A static member that comes back in time is given what it had, and nobody shares the partitions out again: on a log
    that changed it would never be given the new ones.
    """
    log_now = repr((ids.cluster, sorted(ids.topics.items()), sorted(ids.partitions.items())))
    return f"freshrank-{role}-{instance}-{_short(log_now).hex()}"


def _topic_ids(ids: topics.TopicIds, names: Iterable[str]) -> str:
    return "+".join(ids.topics[name] for name in names)


def _short(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


class LogChanged(RuntimeError):
    """Topics are not those that this worker began with."""


def describe_change(before: topics.TopicIds, now: topics.TopicIds) -> str:
    """What is another topic, or has other partitions; empty when nothing is."""
    if before.cluster != now.cluster:
        return f"cluster {now.cluster} answers in the place of {before.cluster}"
    found = []
    for name, topic_id in before.topics.items():
        if now.topics[name] != topic_id:
            found.append(f"topic {name} was made anew")
        elif now.partitions[name] != before.partitions[name]:
            found.append(f"topic {name} has {now.partitions[name]} partitions, had {before.partitions[name]}")
    return ", ".join(found)
