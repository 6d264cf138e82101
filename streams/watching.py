"""A log that is not what it was: a topic that got more partitions, one that was made anew.

Both change where rows live and whose clocks count. A running worker ends with one clear line; the one started in its
place reads the log as it now is. What the engine itself wrote to an internal topic carries offsets of the inputs, so
an input that is made anew needs new internal topics, too.
"""

import asyncio
import logging

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
    while True:
        await asyncio.sleep(WATCH_S)
        try:
            found = await asyncio.to_thread(topics.check, settings)
        except topics.BrokerAway:
            continue  # brokers come back; consumers wait for them, too
        changed = describe_change(began_with, found)
        if changed:
            raise LogChanged(f"{changed}: starting anew with the log as it now is")


async def check_origins(store: RowStore, ids: topics.TopicIds) -> None:
    """Raises LogChanged if an internal topic was filled from inputs that are no more. An emptied store forgets it."""
    for internal, inputs in ORIGINS.items():
        now = "+".join(ids.topics[name] for name in inputs)
        if await store.remember_first(f"freshrank:{ids.cluster}:{ids.topics[internal]}:of", now) != now:
            raise LogChanged(f"topic {internal} holds what came from another {' or '.join(inputs)}: make it anew, too")


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
