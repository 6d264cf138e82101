"""The engine's own topics as lists to learn from."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.model.dataset import Shop
    from serving.model.log_lists import Medium, Told
    from serving.model.training.config import LogConfig
    from streams.oracle.log import LogReader
    from streams.settings import Settings

#: how many messages between two reports of progress
TOLD_EVERY = 1_000
#: media kept at hand: a product that was renamed looks different and has the same picture
MEDIA_KEPT = 256

#: where reading ended: the next offset by `topic/partition`
Ends = dict[str, int]


def read_lists(
    settings: "Settings", config: "LogConfig", ends: Mapping[str, int] | None, tell: Callable[[str, int, int], None]
) -> tuple["Shop", Ends]:
    """Lists of `catalog`, `behavior` and `result-sets` from their starts to their ends as of now, or to `ends`.

    Raises Unreachable and TopicsDiffer.
    """
    from serving.model.log_lists import log_lists
    from streams import topics
    from streams.client import Connection
    from streams.oracle.log import LogReader
    from streams.records import BEHAVIOR, CATALOG, RESULT_SETS

    partitions = topics.check(settings).partitions
    read = {topic: partitions[topic] for topic in (CATALOG, BEHAVIOR, RESULT_SETS)}
    with LogReader(Connection.from_settings(settings), read) as log:
        told = list(_told(log, read, settings, config, ends, tell))
        found = {_name(*part): position for part, position in log.positions.items()}
    shop = log_lists(
        told,
        _medium(settings),
        config.horizon_ms,
        config.tested,
        lambda done, total: tell("making lists", done, total),
    )
    return shop, dict(ends or found)


def _told(
    log: "LogReader",
    partitions: Mapping[str, int],
    settings: "Settings",
    config: "LogConfig",
    ends: Mapping[str, int] | None,
    tell: Callable[[str, int, int], None],
) -> Iterator["Told"]:
    """The records that the engine took; what it rejected is no news to anybody."""
    from feature_repo.events import Behavior, Product, ResultSet
    from serving.model.log_lists import Told
    from streams.validation import decode

    for count, fetched in enumerate(log.news(), 1):
        message = fetched.message
        if count % TOLD_EVERY == 0:
            tell("reading the log", count, 0)
        if ends is not None and message.offset >= ends.get(_name(message.topic, message.partition), 0):
            continue
        decoded = decode(
            message.topic,
            message.key,
            message.value,
            kafka_time=message.kafka_time,
            partition=message.partition,
            partitions=partitions[message.topic],
            limits=settings.limits,
            media_hosts=settings.media_hosts,
        )
        for place, record in decoded.records:
            if isinstance(record, Product | Behavior | ResultSet):
                arrived = message.kafka_time if config.by_arrival else 0
                visible_ms = max(record.event_time + config.visible_after_ms, arrived)
                yield Told(record, visible_ms, (message.offset, message.partition, place))


def _medium(settings: "Settings") -> "Medium":
    """Media as the content side gets them."""
    from functools import lru_cache

    from serving.errors import BadMedia
    from serving.preprocess import check_medium
    from serving.settings import ServingSettings
    from streams.media import MediaError, MediaStore

    store, limits = MediaStore(settings.media, settings.media_hosts), ServingSettings().media_limits

    @lru_cache(MEDIA_KEPT)
    def medium(name: str, value: bytes | str) -> bytes | None:
        try:
            data = store.open(value) if isinstance(value, str) else value
            check_medium(name, data, limits)
        except (MediaError, BadMedia):
            return None
        return data

    return medium


def _name(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"
