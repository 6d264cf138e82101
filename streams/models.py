"""The topic `models`: the first bundle of a cluster, the one in force, and putting another one in force."""

import time
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from feature_repo.events import Bundle
from serving import control
from serving.model.versions import hold
from serving.settings import ServingSettings
from streams.client import Connection, Publisher, Unreachable
from streams.filling import Report, fill
from streams.records import MODELS
from streams.settings import Settings
from streams.validation import decode

POLL_MS = 200
ENCODER = "product_encoder"


def _unreported(done: int, total: int) -> None:
    """Nobody wants to know."""


def publish_first(settings: Settings, bundle: Bundle) -> bool:
    """Put a bundle in force unless one is; whether it was published. Raises ClientError."""
    connection = Connection.from_settings(settings)
    consumer = connection.consumer()
    try:
        place = TopicPartition(MODELS, 0)
        if consumer.end_offsets([place])[place] > consumer.beginning_offsets([place])[place]:
            return False
    finally:
        consumer.close()
    with Publisher(connection) as publisher:
        publisher.publish(bundle)
    return True


def in_force(settings: Settings) -> Bundle | None:
    """The newest valid bundle on `models`; None when there is none. Raises ClientError."""
    connection = Connection.from_settings(settings)
    consumer = connection.consumer()
    newest: Bundle | None = None
    try:
        place = TopicPartition(MODELS, 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        end = consumer.end_offsets([place])[place]
        heard = time.monotonic()
        # Tansu's end is that of the last batch's first record; the high watermark of the fetch that reaches it is right
        while consumer.position(place) < max(end, consumer.highwater(place) or 0):
            for record in consumer.poll(timeout_ms=POLL_MS).get(place, []):
                newest, heard = _bundle(settings, record) or newest, time.monotonic()
            if time.monotonic() - heard > connection.timeout_s:
                raise Unreachable(f"{connection.bootstrap} stopped answering while {MODELS} was read")
        return newest
    finally:
        consumer.close(autocommit=False)


def put_in_force(
    settings: Settings, serving: ServingSettings, repository: Path, bundle: Bundle, report: Report = _unreported
) -> None:
    """Have Triton load the bundle beside the one in force, then publish it: who reads of a version finds it served.

    An encoder that is another one has encoded all content by then. Requests that pin the old versions are answered
    until the next change. Raises ServingError, ClientError.
    """
    before = in_force(settings)
    for model, version in bundle.models.items():
        hold(repository, model, {version} if before is None else {version, before.models[model]})
    changed = [m for m, version in bundle.models.items() if before is None or before.models[m] != version]
    control.load(serving, changed)
    if before is not None and ENCODER in changed:
        fill(settings, serving, bundle.models[ENCODER], report)
    with Publisher(Connection.from_settings(settings)) as publisher:
        publisher.publish(bundle)


def _bundle(settings: Settings, record: Any) -> Bundle | None:
    """The bundle of one Kafka record; None for what is not valid."""
    decoded = decode(
        MODELS,
        record.key,
        record.value,
        kafka_time=record.timestamp,
        partition=0,
        partitions=1,
        limits=settings.limits,
    )
    return next((found for _, found in decoded.records if isinstance(found, Bundle)), None)
