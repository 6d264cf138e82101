"""Ask a broker whether it serves."""

from __future__ import annotations

import socket

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

TIMEOUT_S = 2.0


def broker_answers(address: str) -> bool:
    """True when the metadata from the broker at `host:port` names a live broker: one still fenced is not ready."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S).close()  # the client below logs every refusal
        admin = KafkaAdminClient(
            bootstrap_servers=address,
            client_id="freshrank-probe",
            bootstrap_timeout_ms=int(TIMEOUT_S * 1000),
            request_timeout_ms=int(TIMEOUT_S * 1000),
        )
        try:
            return bool(admin.describe_cluster()["brokers"])
        finally:
            admin.close()
    except (OSError, KafkaError):
        return False
