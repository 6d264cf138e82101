"""TLS and SASL on Apache Kafka: each client library that the engine uses has options of its own for them."""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from pydantic import SecretStr

from streams.emitting import Outbound
from streams.fetching import Fetching, Message
from streams.local.apache_kafka import ApacheKafka
from streams.local.ports import HeldPort
from streams.producing import KafkaSender
from streams.records import Place
from streams.settings import Settings
from streams.workers import crash
from tests.parts import kafka_home, running

PASSWORD = "a pass-word, of sorts"

pytestmark = [pytest.mark.parts, pytest.mark.kafka]


class GuardedKafka(ApacheKafka):
    """Has a listener of TLS and SASL beside the plain one, with a certificate that signs itself."""

    def __init__(self, folder: Path, home: Path) -> None:
        super().__init__(folder, home)
        self.guarded = HeldPort()
        self.authority = folder / "authority.pem"

    def _properties(self) -> str:
        store, address = self.folder / "keys.p12", self.guarded.address
        if not store.exists():
            keytool = ["keytool", "-keystore", str(store), "-storepass", "not-secret", "-alias", "broker"]
            pair = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=broker", "-ext", "SAN=ip:127.0.0.1"]
            subprocess.run([*keytool, *pair], check=True, capture_output=True)
            subprocess.run([*keytool, "-exportcert", "-rfc", "-file", str(self.authority)], check=True)
        lines = []
        for line in super()._properties().splitlines():
            name, value = line.split("=", 1)
            added = {
                "listeners": f",GUARDED://{address}",
                "advertised.listeners": f",GUARDED://{address}",
                "listener.security.protocol.map": ",GUARDED:SASL_SSL",
            }
            lines.append(f"{name}={value}{added.get(name, '')}")
        login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_shop="{PASSWORD}";'
        lines += [
            "sasl.enabled.mechanisms=PLAIN",
            f"listener.name.guarded.plain.sasl.jaas.config={login}",
            f"listener.name.guarded.ssl.keystore.location={store}",
            "listener.name.guarded.ssl.keystore.password=not-secret",
            "listener.name.guarded.ssl.keystore.type=PKCS12",
        ]
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Those of one who may."""
    home = kafka_home()
    assert home is not None
    part = GuardedKafka(tmp_path_factory.mktemp("guarded"), home)
    with part.guarded, running(part):
        yield Settings(
            kafka=part.guarded.address,
            kafka_security="SASL_SSL",
            kafka_mechanism="PLAIN",
            kafka_username="shop",
            kafka_password=SecretStr(PASSWORD),
            kafka_ca=part.authority,
        )


@pytest_asyncio.fixture
async def topic(settings: Settings) -> str:
    """One that kafka-python has made, with a record that aiokafka has sent."""
    name = f"guarded-{uuid.uuid4()}"
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka, **settings.security())
    admin.create_topics([NewTopic(name, 1, 1)])
    admin.close()
    sender = KafkaSender(settings, crash)
    await sender.start()
    await (await sender.send_many(name, 0, [Outbound(b"key", b"value", ())]))
    await sender.stop()
    return name


async def fetched(settings: Settings, topic: str, seconds: float) -> list[bytes | None]:
    """What comes within the time, at most; more than nothing ends it."""
    fetching = Fetching(settings, "guarded")
    await fetching.start()
    try:
        fetching.assign({(topic, 0): 0})
        found: dict[Place, list[Message]] = {}
        until = time.monotonic() + seconds
        while not found and time.monotonic() < until:
            found = await fetching.get(0.5)
        return [message.value for messages in found.values() for message in messages]
    finally:
        await asyncio.wait_for(fetching.stop(), 20)


async def test_who_may_sends_and_fetches(settings: Settings, topic: str) -> None:
    assert await fetched(settings, topic, 20) == [b"value"]


@pytest.mark.parametrize(
    "others", [{"kafka_password": SecretStr("another")}, {"kafka_ca": None}], ids=["password", "authority"]
)
async def test_who_may_not_or_meets_a_stranger_fetches_nothing(
    settings: Settings, topic: str, others: dict[str, object]
) -> None:
    assert await fetched(settings.model_copy(update=others), topic, 3) == []
