"""A stock Faust agent that decodes each message and does nothing with it."""

import asyncio
import uuid
from typing import Any

import faust
import msgpack

from benchmarks.peers.counting import Counting
from benchmarks.telling import arguments
from streams.settings import Settings


async def main(topic: str, total: int, folder: str) -> None:
    """Read a topic from its start in a group of its own."""
    app = faust.App(
        f"bench-{uuid.uuid4().hex[:8]}",
        broker=f"kafka://{Settings().kafka}",
        datadir=folder,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
        broker_request_timeout=40.0,
    )
    counting = Counting(total)
    done = asyncio.Event()

    @app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"))
    async def decode(values: Any) -> None:
        async for data in values:
            value = msgpack.unpackb(data)
            if counting.add(len(value) if isinstance(value, list) else 1):
                done.set()

    await app.start()
    await done.wait()
    await app.stop()


if __name__ == "__main__":
    asyncio.run(main(**arguments()))
