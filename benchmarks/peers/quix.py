"""Quix Streams, a count of events by product: RocksDB with its changelog, as its documentation has it.

Run with the packages of the folder that Quix Streams was installed to, aside. Knows nothing of the engine.
"""

import sys
import uuid
from typing import Any

import msgpack
from quixstreams import Application, State  # type: ignore[import-not-found]

from benchmarks.peers.counting import Counting
from benchmarks.telling import arguments


def main(kafka: str, topic: str, total: int, folder: str) -> None:
    """Read a topic of single records from its start in a group of its own."""
    app = Application(
        broker_address=kafka,
        consumer_group=f"bench-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="WARNING",
    )
    counting = Counting(total)

    def count(value: dict[str, Any], state: State) -> int:
        seen: int = state.get("count", 0) + 1
        state.set("count", seen)
        return seen

    def look(_: int) -> None:
        if counting.add(1):
            app.stop()

    source = app.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
    stream = app.dataframe(source)
    stream.apply(msgpack.unpackb).apply(count, stateful=True).update(look)
    app.run()


if __name__ == "__main__":
    main(**arguments())
    sys.exit(0)
