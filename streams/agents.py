"""One short agent per arrow of the drawing. What an agent does stands in the side it calls."""

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

from streams.app import App
from streams.content_side import ContentSide
from streams.product_side import ProductSide
from streams.ranking_side import RankingSide
from streams.records import BEHAVIOR, CATALOG, CONTENT, RESULT_SETS, USER_BEHAVIOR
from streams.transport import Batch, BatchSchema, Consumer

Handler = Callable[[Batch], Awaitable[None]]
Crash = Callable[[BaseException], None]


class Agents:
    """Agents of one app. No exception leaves an agent's loop: Faust would acknowledge the batch and lose it."""

    def __init__(self, app: App, crash: Crash) -> None:
        self._app = app
        self._crash = crash

    def product(self, side: ProductSide) -> None:
        """catalog, behavior, user-behavior -> rows and `feature-changes`."""

        @self._agent(CATALOG)
        async def catalog(batches: AsyncIterable[Batch]) -> None:
            async for batch in batches:
                await self._handle(side.on_catalog, batch)

        @self._agent(BEHAVIOR)
        async def behavior(batches: AsyncIterable[Batch]) -> None:
            async for batch in batches:
                await self._handle(side.on_behavior, batch)

        @self._agent(USER_BEHAVIOR)
        async def user_behavior(batches: AsyncIterable[Batch]) -> None:
            async for batch in batches:
                await self._handle(side.on_user_behavior, batch)

    def content(self, side: ContentSide) -> None:
        """content -> vectors -> rows and `feature-changes`."""

        @self._agent(CONTENT)
        async def content(batches: AsyncIterable[Batch]) -> None:
            async for batch in batches:
                await self._handle(side.on_content, batch)

    def ranking(self, side: RankingSide) -> None:
        """result-sets -> live sets; `feature-changes` is read beside, by everyone."""

        @self._agent(RESULT_SETS)
        async def result_sets(batches: AsyncIterable[Batch]) -> None:
            async for batch in batches:
                await self._handle(side.on_result_sets, batch)

    def _agent(self, topic: str) -> Any:
        schema = BatchSchema(key_serializer="raw", value_serializer="raw")
        return self._app.agent(self._app.topic(topic, schema=schema), name=topic, concurrency=1)

    async def _handle(self, handler: Handler, batch: Batch) -> None:
        consumer = self._app.consumer
        assert isinstance(consumer, Consumer)
        try:
            if batch.epoch == consumer.epoch:
                await handler(batch)
        except Exception as error:
            self._crash(error)
        finally:
            batch.done.set()
