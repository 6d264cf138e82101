"""The Faust app of one role: our driver, raw bytes, no tables, no web server, concurrency 1."""

from typing import TypeAlias

import faust

from streams.settings import Settings
from streams.transport import Hooks, install

App: TypeAlias = faust.App


def make_app(role: str, settings: Settings, hooks: Hooks) -> App:
    """An app that joins the role's consumer group once it is started."""
    app = faust.App(
        f"freshrank-{role}",
        broker=[f"kafka://{address}" for address in settings.kafka.split(",")],
        store="memory://",
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
