"""The topics: what each must be like, making those that are missing, saying what differs. Synchronous, kafka-python."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Self

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, RetriableError, TopicAlreadyExistsError, for_code

from feature_repo.views import DAY_MS, HOUR_MS, MINUTE_MS
from streams.records import (
    BEHAVIOR,
    CATALOG,
    CONTENT,
    DEAD_LETTER,
    FEATURE_CHANGES,
    MODELS,
    RANKINGS,
    RESULT_SETS,
    USER_BEHAVIOR,
)
from streams.settings import Settings

TIMEOUT_MS = 10_000
FOR_EVER = -1
#: key, headers and framing around the largest value; a value just over the limit still arrives, to be a dead letter
ENVELOPE_BYTES = 16 * 1024
#: what a dead letter may be larger than the message it tells of
DEAD_LETTER_BYTES = 64 * 1024
#: a wrong clean-up deletes what is needed: catalogue patches compacted away, rankings gone with time
_FATAL = ("cleanup.policy",)
#: rows know which partitions their events came from; elsewhere a key must stay where it is
_MAY_GROW = (CATALOG, BEHAVIOR)
_HARMLESS = ("retention.ms", "max.message.bytes", "message.timestamp.type", "segment.ms")


class TopicsDiffer(RuntimeError):
    """Topics are missing, or are such that events would be lost; one line each. Do not start."""


class BrokerAway(ConnectionError):
    """No broker answers at the address of the settings."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it should be. `config` in Kafka's names; a broker of kind tansu ignores it."""

    name: str
    partitions: int
    about: str
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicIds:
    """Cluster id, topic name -> topic id, topic name -> partitions: what makes the keys in Redis this log's own.

    `differs`: one line for each setting that is not as it should be, though nothing is lost by it.
    """

    cluster: str
    topics: dict[str, str]
    partitions: dict[str, int]
    differs: tuple[str, ...] = ()


def topics(settings: Settings) -> tuple[Topic, ...]:
    """The table of topics."""
    many, size = settings.partitions, settings.limits.message_bytes + ENVELOPE_BYTES
    stamped = {"message.timestamp.type": "LogAppendTime"}
    compact = {"cleanup.policy": "compact"}
    return (
        Topic(CATALOG, many, "in: patches of products", {**_kept(FOR_EVER, size), **stamped}),
        Topic(BEHAVIOR, many, "in: what shoppers do; heartbeats", {**_kept(30 * DAY_MS, size), **stamped}),
        Topic(
            RESULT_SETS,
            many,
            "in: live result sets",
            {**_kept(90 * DAY_MS, size), **stamped, "cleanup.policy": "compact,delete"},
        ),
        Topic(MODELS, 1, "in: the model bundle in force", {**_sized(size), **compact, **stamped}),
        Topic(CONTENT, many, "internal: contents to be encoded", {**_sized(size), **compact}),
        Topic(USER_BEHAVIOR, many, "internal: behaviour by user", _kept(30 * DAY_MS, size)),
        Topic(
            FEATURE_CHANGES,
            many,
            "internal: rows that changed",
            # Kafka deletes whole segments only
            {**_kept(HOUR_MS, size), "segment.ms": str(10 * MINUTE_MS)},
        ),
        Topic(RANKINGS, many, "out: the newest ranking of each set", {**_sized(size), **compact}),
        Topic(DEAD_LETTER, 1, "out: what was rejected, and why", _kept(30 * DAY_MS, size + DEAD_LETTER_BYTES)),
    )


def max_bytes(settings: Settings, topic: str) -> int:
    """The largest message that a topic takes, key and headers included."""
    return next(int(t.config["max.message.bytes"]) for t in topics(settings) if t.name == topic)


def create(settings: Settings) -> list[str]:
    """Make the topics that are missing, and return their names. Raises BrokerAway, KafkaError."""
    with _admin(settings) as admin:
        there = _describe(admin, settings)
        missing = [topic for topic in topics(settings) if topic.name not in there]
        if not missing:
            return []
        answer = admin.create_topics(
            {
                topic.name: {
                    "num_partitions": topic.partitions,
                    "replication_factor": settings.replication,
                    "configs": dict(topic.config),
                }
                for topic in missing
            },
            raise_errors=False,
        )
        for made in answer["topics"]:
            error = for_code(made["error_code"])
            # another process may make them at the same time
            if made["error_code"] and error is not TopicAlreadyExistsError:
                raise error(f"topic {made['name']}: {made['error_message']}")
        admin.wait_for_topics([topic.name for topic in missing], timeout_ms=TIMEOUT_MS)
        return [topic.name for topic in missing]


def check(settings: Settings) -> TopicIds:
    """What the broker has. Raises TopicsDiffer when a topic is missing or would lose events, BrokerAway."""
    with Checks(settings) as checks:
        return checks.check()


class Checks:
    """The same check, now and then, by one connection: making one takes longer than all that is asked by it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection = ExitStack()
        self._admin: KafkaAdminClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._admin = None
        self._connection.close()

    def check(self) -> TopicIds:
        """As `check`. After a failure the next one connects anew: a client does not find a broker that was away."""
        with ExitStack() as failed:
            failed.push(self)
            if self._admin is None:
                self._admin = self._connection.enter_context(_admin(self._settings))
            with _broker_may_go(self._settings):
                found = _check(self._admin, self._settings)
            failed.pop_all()
        return found


def _check(admin: KafkaAdminClient, settings: Settings) -> TopicIds:
    cluster = admin.describe_cluster()["cluster_id"]
    there = _describe(admin, settings)
    configs = _configs(admin, there) if settings.kafka_kind == "apache" else {}
    wanted = topics(settings)
    fatal = [*_wrong_counts(wanted, there), *_differences(wanted, configs, _FATAL)]
    if fatal:
        raise TopicsDiffer("\n".join(fatal))
    return TopicIds(
        cluster=cluster or "",
        topics={name: _id(name, found["topic_id"]) for name, found in there.items()},
        partitions={name: len(found["partitions"]) for name, found in there.items()},
        differs=tuple(_differences(wanted, configs, _HARMLESS)),
    )


def _sized(size: int) -> dict[str, str]:
    return {"max.message.bytes": str(size)}


def _kept(retention_ms: int, size: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms), **_sized(size)}


def _id(name: str, topic_id: object) -> str:
    """A broker without topic ids: the name stands for it, and a topic made anew cannot be told."""
    return str(topic_id) if topic_id else blake2b(name.encode(), digest_size=8).hexdigest()


def _answers(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_MS / 1000).close()
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _broker_may_go(settings: Settings) -> Iterator[None]:
    try:
        yield
    except RetriableError as error:
        raise BrokerAway(f"the Kafka broker at {settings.kafka} cannot say now: {error!r}") from None


@contextmanager
def _admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    # the client takes ten seconds and many lines of log to say that nobody is there
    if not any(_answers(address) for address in settings.kafka.split(",")):
        raise BrokerAway(f"no Kafka broker answers at {settings.kafka}")
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=settings.kafka,
            client_id="freshrank-topics",
            bootstrap_timeout_ms=TIMEOUT_MS,
            request_timeout_ms=TIMEOUT_MS,
            **settings.security(),
        )
    except (KafkaConnectionError, KafkaTimeoutError) as error:
        raise BrokerAway(f"what answers at {settings.kafka} does not serve as a Kafka broker: {error}") from None
    try:
        yield admin
    finally:
        admin.close()


def _describe(admin: KafkaAdminClient, settings: Settings) -> dict[str, dict[str, Any]]:
    """Our topics that the broker has, by name."""
    found = admin.describe_topics([topic.name for topic in topics(settings)])
    return {topic["name"]: topic for topic in found if topic["error_code"] == 0}


def _configs(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Those settings in force that are checked, defaults of the broker included: topic -> name -> value."""
    # by name: a topic has forty settings, and a worker that makes objects of them stands still meanwhile
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, [*_FATAL, *_HARMLESS]) for name in names]
    if not resources:
        return {}
    found = admin.describe_configs(resources, config_filter="all")["topic"]
    return {topic: {name: entry["value"] for name, entry in config.items()} for topic, config in found.items()}


def _wrong_counts(wanted: Iterable[Topic], there: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    for topic in wanted:
        found = there.get(topic.name)
        if found is None:
            yield f"topic {topic.name} is missing: run `freshrank topics create`"
        elif len(found["partitions"]) < topic.partitions or (
            len(found["partitions"]) > topic.partitions and topic.name not in _MAY_GROW
        ):
            yield f"topic {topic.name} has {len(found['partitions'])} partitions, expected {topic.partitions}"


def _differences(
    wanted: Iterable[Topic], configs: Mapping[str, Mapping[str, str]], names: Iterable[str]
) -> Iterator[str]:
    checked = tuple(names)
    for topic in wanted:
        found = configs.get(topic.name, {})
        for name in checked:
            if name in topic.config and name in found and not _is_enough(name, found[name], topic.config[name]):
                yield f"topic {topic.name} has {name}={found[name]}, expected {topic.config[name]}"


def _is_enough(name: str, found: str, expected: str) -> bool:
    """Longer retention and room for larger messages do no harm; the rest must be as said."""
    if name == "retention.ms":
        return int(found) == FOR_EVER or FOR_EVER != int(expected) <= int(found)
    if name == "max.message.bytes":
        return int(found) >= int(expected)
    return set(found.split(",")) == set(expected.split(","))
