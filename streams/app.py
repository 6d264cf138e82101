"""The Faust app of one role: our driver, raw bytes, no tables, no web server, concurrency 1."""

import tempfile
from pathlib import Path
from typing import TypeAlias

import faust
from faust.app.base import BootStrategy

from streams.settings import Settings
from streams.transport import Hooks, install

App: TypeAlias = faust.App


class _Boot(BootStrategy):
    """Without Faust's own producer: the engine sends by its own, and Faust's knows nothing of TLS and SASL."""

    enable_kafka_producer = False


class _App(faust.App):
    BootStrategy = _Boot


def make_app(group: str, settings: Settings, hooks: Hooks) -> App:
    """An app that joins the consumer group once it is started."""
    app = _App(
        group,
        broker=[f"kafka://{address}" for address in settings.kafka.split(",")],
        store="memory://",
        # Faust makes this folder, which nothing is put into
        datadir=str(Path(tempfile.gettempdir()) / "freshrank"),
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        processing_guarantee="at_least_once",
        broker_session_timeout=settings.session_timeout_s,
        broker_rebalance_timeout=settings.session_timeout_s,
        broker_request_timeout=40.0,
        stream_wait_empty=False,
    )
    install(app, hooks)
    return app
