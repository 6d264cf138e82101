"""The table of topics, made and checked on both brokers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from streams.local.apache_kafka import ApacheKafka
from streams.local.process import wait_until
from streams.local.tansu import TansuBroker
from streams.records import BEHAVIOR, CATALOG, CONTENT, DEAD_LETTER, FEATURE_CHANGES, MODELS, RANKINGS, RESULT_SETS
from streams.settings import Limits, Settings
from streams.topics import BrokerAway, Checks, Topic, TopicsDiffer, _is_enough, check, create, max_bytes, topics
from tests.parts import kafka_home, running

#: a broker takes a moment to hear of a changed setting
CONFIG_S = 10.0
NAMES = [topic.name for topic in topics(Settings())]


def by_name(settings: Settings) -> dict[str, Topic]:
    return {topic.name: topic for topic in topics(settings)}


def test_result_sets_and_rankings_have_the_same_partitions_and_singles_have_one() -> None:
    table = by_name(Settings(partitions=7))
    assert table[RESULT_SETS].partitions == table[RANKINGS].partitions == 7
    assert table[MODELS].partitions == table[DEAD_LETTER].partitions == 1


def test_what_must_not_be_lost_is_kept() -> None:
    table = by_name(Settings())
    assert table[CATALOG].config["retention.ms"] == "-1"
    assert table[RESULT_SETS].config["cleanup.policy"] == "compact,delete"
    compacted = {name for name, topic in table.items() if topic.config["cleanup.policy"] == "compact"}
    assert compacted == {CONTENT, MODELS, RANKINGS}


def test_the_broker_stamps_what_comes_from_outside() -> None:
    stamped = {t.name for t in topics(Settings()) if t.config.get("message.timestamp.type") == "LogAppendTime"}
    assert stamped == {CATALOG, BEHAVIOR, RESULT_SETS, MODELS}


def test_a_dead_letter_may_be_larger_than_what_it_tells_of() -> None:
    settings = Settings(limits=Limits(message_bytes=2_000_000))
    assert max_bytes(settings, CATALOG) > 2_000_000
    assert max_bytes(settings, DEAD_LETTER) == max_bytes(settings, CATALOG) + 64 * 1024


@pytest.mark.parametrize(
    ("name", "found", "expected", "enough"),
    [
        ("retention.ms", "-1", "3600000", True),
        ("retention.ms", "3600001", "3600000", True),
        ("retention.ms", "3599999", "3600000", False),
        ("retention.ms", "3600000", "-1", False),
        ("retention.ms", "-1", "-1", True),
        ("max.message.bytes", "100", "99", True),
        ("max.message.bytes", "98", "99", False),
        ("cleanup.policy", "delete,compact", "compact,delete", True),
        ("cleanup.policy", "delete", "compact", False),
        ("message.timestamp.type", "CreateTime", "LogAppendTime", False),
    ],
)
def test_more_than_enough_is_no_difference(name: str, found: str, expected: str, enough: bool) -> None:
    assert _is_enough(name, found, expected) is enough


def test_a_missing_broker_is_one_clear_line() -> None:
    with pytest.raises(BrokerAway, match=r"^no Kafka broker answers at 127\.0\.0\.1:1$"):
        check(Settings(kafka="127.0.0.1:1"))


@pytest.fixture(scope="module")
def empty_tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker that has no topics yet."""
    with running(TansuBroker(tmp_path_factory.mktemp("tansu"))) as broker:
        yield Settings(kafka=broker.address, kafka_kind="tansu")


@pytest.fixture(scope="module")
def empty_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The same on Apache Kafka."""
    with running(ApacheKafka(tmp_path_factory.mktemp("kafka"), kafka_home() or Path())) as broker:
        yield Settings(kafka=broker.address, kafka_kind="apache")


def make_and_check(settings: Settings) -> None:
    """The whole life of the topics of one broker."""
    with pytest.raises(TopicsDiffer) as missing:
        check(settings)
    assert str(missing.value).splitlines() == [
        f"topic {name} is missing: run `freshrank topics create`" for name in NAMES
    ]

    assert create(settings) == NAMES
    assert create(settings) == []

    found = check(settings)
    assert found.cluster
    assert found.partitions == {topic.name: topic.partitions for topic in topics(settings)}
    assert len(set(found.topics.values())) == len(NAMES)
    assert found.differs == ()
    assert check(settings) == found

    with pytest.raises(TopicsDiffer, match="topic catalog has 4 partitions, expected 5"):
        check(settings.model_copy(update={"partitions": 5}))


def remake(settings: Settings, name: str, config: dict[str, str]) -> None:
    """Delete a topic and make it anew with settings of its own."""
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        admin.delete_topics([name])
        admin.create_topics({name: {"num_partitions": 4, "replication_factor": 1, "configs": config}})
    finally:
        admin.close()


@pytest.mark.parts
def test_topics_on_tansu(empty_tansu: Settings) -> None:
    make_and_check(empty_tansu)
    before = check(empty_tansu).topics
    remake(empty_tansu, CATALOG, {})
    after = check(empty_tansu).topics
    assert {name for name in NAMES if before[name] != after[name]} == {CATALOG}


@pytest.mark.parts
def test_checks_go_on_by_one_connection_until_it_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[KafkaAdminClient] = []

    def connect(**settings: Any) -> KafkaAdminClient:
        made.append(KafkaAdminClient(**settings))
        return made[-1]

    with running(TansuBroker(tmp_path)) as broker:
        settings = Settings(kafka=broker.address, kafka_kind="tansu")
        create(settings)
        monkeypatch.setattr("streams.topics.KafkaAdminClient", connect)
        with Checks(settings) as checks:
            before = checks.check()
            assert checks.check() == before
            assert len(made) == 1
            broker.kill()
            with pytest.raises(BrokerAway):
                checks.check()
            with pytest.raises(BrokerAway, match=r"^no Kafka broker answers"):
                checks.check()
            broker.start()
            broker.ready(30.0)
            create(settings)  # what tansu had went with it
            assert checks.check() == check(settings) != before


@pytest.mark.parts
@pytest.mark.kafka
def test_topics_on_apache_kafka(empty_kafka: Settings) -> None:
    make_and_check(empty_kafka)
    alter(empty_kafka, FEATURE_CHANGES, "retention.ms", "60000")
    line = "topic feature-changes has retention.ms=60000, expected 3600000"
    assert wait_until(lambda: check(empty_kafka).differs == (line,), CONFIG_S)
    alter(empty_kafka, CATALOG, "cleanup.policy", "compact")
    assert wait_until(lambda: not starts(empty_kafka), CONFIG_S)
    with pytest.raises(TopicsDiffer, match=r"^topic catalog has cleanup\.policy=compact, expected delete$"):
        check(empty_kafka)


def starts(settings: Settings) -> bool:
    try:
        return bool(check(settings).cluster)
    except TopicsDiffer:
        return False


def alter(settings: Settings, topic: str, name: str, value: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})])
    finally:
        admin.close()
