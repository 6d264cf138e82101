"""Read your writes: wait until the engine has taken in what was published. Synchronous; needs Kafka and the store.

    offsets = publisher.flush()
    Progress(Settings()).wait_for(offsets)
    registrar.register(...)         # its ranking knows what was published

A partition's marker lies beside the rows that it speaks for, and passes an offset once the rows of everything below are
in the store and were acknowledged on `feature-changes`. What is made of rows in turn, content vectors and users'
histories, has markers of its own and comes later.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from feature_repo.row_store import RowStore, Space, StoreUnavailable
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG
from streams import topics
from streams.client import ClientError, Unreachable
from streams.records import BEHAVIOR, CATALOG
from streams.settings import Settings

#: between two looks at the markers
LOOK_S: Final = 0.02

_VIEWS: Final = {CATALOG: PRODUCT_CATALOG, BEHAVIOR: PRODUCT_BEHAVIOR}


class NotTakenIn(ClientError):
    """The engine has not come so far in time: do the product workers run, do they keep up?"""


class Progress:
    """How far the engine has come. From async code, call it in a thread: it runs an event loop of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def wait_for(self, offsets: Mapping[tuple[str, int], int], timeout_s: float = 30.0) -> None:
        """Wait until these offsets by (topic, partition), as `Publisher.flush` gives them, are in the store.

        A topic other than `catalog` and `behavior` is a ValueError. Raises Unreachable, NotTakenIn.
        """
        strange = sorted({topic for topic, _ in offsets} - _VIEWS.keys())
        if strange:
            raise ValueError(f"offsets: expected those of {CATALOG} and {BEHAVIOR}, got {strange[0]}")
        if offsets:
            asyncio.run(self._wait(offsets, time.monotonic() + timeout_s))

    async def _wait(self, offsets: Mapping[tuple[str, int], int], deadline: float) -> None:
        try:
            ids = await asyncio.to_thread(topics.check, self._settings)
        except (topics.BrokerAway, topics.TopicsDiffer) as error:
            raise Unreachable(str(error)) from error
        wanted: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for (topic, partition), offset in offsets.items():
            wanted[topic][partition] = offset
        store = RowStore(self._settings.redis.get_secret_value())
        try:
            while (behind := await _behind(store, ids, wanted)) is not None:
                if time.monotonic() > deadline:
                    raise NotTakenIn(behind)
                await asyncio.sleep(LOOK_S)
        finally:
            await store.close()


async def _behind(store: RowStore, ids: topics.TopicIds, wanted: Mapping[str, Mapping[int, int]]) -> str | None:
    """What has not been taken in, in words; None when everything was."""
    for topic, offsets in wanted.items():
        space = Space(ids.cluster, ids.topics[topic], _VIEWS[topic].name)
        try:
            markers = await store.markers(space, list(offsets))
        except StoreUnavailable as error:
            return f"the store does not answer: {error}"
        for (partition, offset), marker in zip(offsets.items(), markers, strict=True):
            taken = 0 if marker is None else marker.offset
            if taken <= offset:
                return f"{topic}[{partition}]: taken in below offset {taken}, offset {offset} was published"
    return None
