"""Every setting of the engine, from the environment (FRESHRANK_...); secrets come from nowhere else."""

import json
import ssl
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Limits(BaseModel):
    """Bounds on every payload that comes from outside."""

    message_bytes: int = 1_048_576
    depth: int = 8
    records: int = 10_000
    candidates: int = 1_000
    future_ms: int = 300_000


class Settings(BaseSettings):
    """Connection, role and limits of a process. Environment variables: FRESHRANK_KAFKA, FRESHRANK_REDIS, ..."""

    model_config = SettingsConfigDict(env_prefix="FRESHRANK_", env_nested_delimiter="__", extra="ignore")

    kafka: str = "127.0.0.1:9092"
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_ca: Path | None = None
    #: apache: idempotent producers, static membership, topic settings; tansu: none of them
    kafka_kind: Literal["apache", "tansu"] = "apache"
    session_timeout_s: float = 6.0

    redis: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    media: str = "file://.freshrank/media"
    media_hosts: tuple[str, ...] = ()

    partitions: int = 4
    replication: int = 1
    heartbeats: Literal["owner", "external"] = "owner"
    #: start although retention cut records below the marker
    accept_gap: bool = False
    flush_s: float = 0.05
    instance: str = ""
    #: where /metrics is served; 0 takes a free port. In a container: 0.0.0.0, and publish no port
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    limits: Limits = Limits()

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS with host name check; the system's authorities unless `kafka_ca` names a file."""
        if not self.kafka_security.endswith("SSL"):
            return None
        return ssl.create_default_context(cafile=None if self.kafka_ca is None else str(self.kafka_ca))

    @property
    def fetch_wait_ms(self) -> int:
        """How long a broker may hold an empty fetch. Tansu looks for news only at steps of half of it."""
        return 500 if self.kafka_kind == "apache" else 20

    def librdkafka(self) -> dict[str, Any]:
        """What librdkafka's clients share: where brokers are, who we are, and to be back soon when brokers are."""
        options: dict[str, Any] = {
            "bootstrap.servers": self.kafka,
            "security.protocol": self.kafka_security,
            "socket.nagle.disable": True,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "log.connection.close": False,
        }
        if self.kafka_ca is not None:
            options["ssl.ca.location"] = str(self.kafka_ca)
        if self.kafka_security.startswith("SASL"):
            options["sasl.mechanism"] = self.kafka_mechanism
            options["sasl.username"] = self.kafka_username or ""
            options["sasl.password"] = self.kafka_password.get_secret_value() if self.kafka_password else ""
        return options

    def security(self) -> dict[str, Any]:
        """Security arguments that kafka-python and aiokafka share."""
        options: dict[str, Any] = {"security_protocol": self.kafka_security}
        if self.ssl_context is not None:
            options["ssl_context"] = self.ssl_context
        if self.kafka_security.startswith("SASL"):
            options["sasl_mechanism"] = self.kafka_mechanism
            options["sasl_plain_username"] = self.kafka_username
            options["sasl_plain_password"] = self.kafka_password.get_secret_value() if self.kafka_password else None
        return options


def environment(*groups: BaseSettings) -> dict[str, str]:
    """The variables that give a child process these settings, secrets included; what is None stays unset."""
    found = {}
    for group in groups:
        prefix = group.model_config["env_prefix"]
        for name, value in group:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            if isinstance(plain, BaseModel):
                plain = plain.model_dump(mode="json")
            if plain is not None:
                found[prefix + name.upper()] = str(plain) if isinstance(plain, str | Path) else json.dumps(plain)
    return found
