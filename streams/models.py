"""The topic `models`: the first bundle of a cluster."""

from kafka import TopicPartition

from feature_repo.events import Bundle
from streams.client import Connection, Publisher
from streams.records import MODELS
from streams.settings import Settings


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
