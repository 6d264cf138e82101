"""A worker process of one role: everything is put together here, and only here.

    product   catalog, behavior, user-behavior -> rows, feature-changes, content, user-behavior
    content   content -> Triton product_encoder -> rows, feature-changes
    ranking   result-sets, feature-changes -> Triton ranker -> rankings

A worker crashes rather than limps: whatever fails for good ends the process, and its next owner rewinds.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, Literal
from zlib import crc32

import uvloop

from feature_repo import views
from feature_repo.events import Bundle
from feature_repo.row_store import RowStore, Space
from serving.scorer import triton_scorer
from serving.settings import ServingSettings
from streams import topics
from streams.agents import Agents
from streams.app import App, make_app
from streams.content_side import ContentSide
from streams.emitting import Changes, Emitter, Unheard
from streams.folding import BehaviorFolding, CatalogFolding, ContentFolding, UserFolding
from streams.freshness import Freshness
from streams.media import MediaStore
from streams.owning import Bounds, Ownership
from streams.producing import KafkaSender
from streams.product_side import ProductSide
from streams.ranking_side import Doors as RankingDoors
from streams.ranking_side import RankingSide
from streams.reading import RankingsFollower, follow_changes, follow_models
from streams.records import BEHAVIOR, CATALOG, CONTENT, FEATURE_CHANGES, USER_BEHAVIOR, Place
from streams.settings import Settings
from streams.transport import Consumer, Hooks
from streams.watching import check_origins, member_of, origins_of, watch_topics
from streams.writing import Doors

log = logging.getLogger(__name__)

Role = Literal["product", "content", "ranking"]
ROLES: tuple[Role, ...] = ("product", "content", "ranking")
#: a flush on revoke and stop may take this long; what it does not write is read again
LAST_FLUSH_S = 4.0
#: two processes with one instance id are assigned everything again about once a second, for ever
SETTLE_S = 3.0
RESTLESS_ASSIGNMENTS = 5
PROGRESS_S = 0.5
#: rows are kept by the hundred thousand and make no cycles: Python's own thresholds spend half of a worker's time on
#: looking for some among them
GC_THRESHOLDS = (100_000, 50, 1_000)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def crash(error: BaseException) -> None:
    """End the process before anything else is acknowledged or sent; one clear line says why."""
    log.critical("%s: %s", type(error).__name__, error, exc_info=not isinstance(error, (ValueError, RuntimeError)))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(1)


def log_tasks() -> None:
    """What every task of the process waits for, into the log: for a worker that seems stuck (kill -USR1)."""
    for task in asyncio.all_tasks():
        frames = "".join(
            f"\n    {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}" for frame in _frames(task)
        )
        log.warning("task %s:%s", task.get_name(), frames)


def _frames(task: asyncio.Task[Any]) -> Iterator[types.FrameType]:
    """The frames of a suspended task, outermost first; `Task.get_stack` stops at the first coroutine."""
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None)
        if frame is not None:
            yield frame
        waiting = getattr(waiting, "cr_await", None)


def space_of(view: views.View, ids: topics.TopicIds, variant: str = "") -> Space:
    """Where the rows of a view live on this cluster."""
    return Space(ids.cluster, ids.topics[view.topic], view.name, variant)


class Worker:
    """One role in one process. `run` ends when it is told to stop.

    `encoder`: the content role with a version of product_encoder that is not in force; nobody hears of its rows.
    """

    def __init__(self, role: Role, settings: Settings, encoder: int | None = None) -> None:
        self._role = role
        self._encoder = encoder
        self._group = f"freshrank-{role}" if encoder is None else f"freshrank-{role}-{encoder}"
        self._settings = settings
        self._store = RowStore(settings.redis.get_secret_value())
        self._sender = KafkaSender(settings, crash)
        self._serving = ServingSettings()
        self._scorer = triton_scorer(self._serving)
        self._media = MediaStore(settings.media, settings.media_hosts)
        self._freshness = Freshness()
        self._app: App
        self._reached: Callable[[], Mapping[Place, int]]
        #: newest heartbeats of the owned partitions of `behavior`; only the product role has any
        self._heartbeats: Callable[[], Mapping[int, int]] = dict
        self._assigned_at: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """1. check the log and the store  2. put the role together  3. consume until told to stop."""
        # 1.
        ids = await asyncio.to_thread(topics.check, self._settings)
        for line in ids.differs:
            log.warning("%s", line)
        await self._store.check()
        await check_origins(self._store, ids)
        await self._sender.start(origins_of(ids))
        address = self._freshness.serve(self._settings.metrics_port, self._settings.metrics_host)
        log.info("%s worker: metrics on %s", self._role, address)
        # 2.
        match self._role:
            case "product":
                app = self._product(ids)
            case "content":
                app = await self._content(ids)
            case "ranking":
                app = self._ranking(ids)
        # 3.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, log_tasks)
        await app.start()
        self._spawn(lambda: watch_topics(self._settings, ids))
        self._spawn(lambda: self._report_progress(self._reached))
        await app.wait(self._stop.wait())
        if not self._stop.is_set():
            raise RuntimeError(f"the consumer stopped by itself: {app.crash_reason!r}")
        await app.stop()
        for task in self._tasks:
            task.cancel()
        await self._sender.stop()
        await self._scorer.close()
        await self._store.close()

    # --- roles -----------------------------------------------------------------------------------------------------

    def _product(self, ids: topics.TopicIds) -> Any:
        emitter = self._emitter(ids)
        folded = {
            CATALOG: (CatalogFolding(), space_of(views.PRODUCT_CATALOG, ids)),
            BEHAVIOR: (BehaviorFolding(), space_of(views.PRODUCT_BEHAVIOR, ids)),
            USER_BEHAVIOR: (UserFolding(), space_of(views.USER_BEHAVIOR, ids)),
        }
        app, ownership = self._owning_app(folded, emitter, ids)
        side = ProductSide(
            self._settings,
            ownership,
            emitter,
            self._sender,
            self._media,
            self._freshness,
            ids.partitions,
            origins_of(ids)[USER_BEHAVIOR],
        )
        Agents(app, crash).product(side)
        self._heartbeats = lambda: ownership.clocks(BEHAVIOR)
        self._spawn(side.run_clock)
        if self._settings.heartbeats == "owner":
            self._spawn(lambda: side.run_heartbeats(now_ms))
        return app

    async def _content(self, ids: topics.TopicIds) -> Any:
        emitter: Changes = Unheard()
        version = self._encoder
        if version is None:
            bundle = await self._first_bundle()
            version = bundle.models["product_encoder"]
            emitter = self._emitter(ids)
            self._spawn(lambda: follow_models(self._settings, lambda newer: self._keep_encoder(bundle, newer)))
        folded = {CONTENT: (ContentFolding(), space_of(views.PRODUCT_CONTENT, ids, str(version)))}
        app, ownership = self._owning_app(folded, emitter, ids)
        side = ContentSide(
            ownership,
            self._sender,
            self._media,
            self._scorer,
            version,
            self._serving.media_limits,
            origins_of(ids)[CONTENT],
        )
        Agents(app, crash).content(side)
        return app

    def _ranking(self, ids: topics.TopicIds) -> Any:
        spaces = {
            view.name: space_of(view, ids)
            for view in (views.PRODUCT_CATALOG, views.PRODUCT_BEHAVIOR, views.USER_BEHAVIOR)
        }
        doors = RankingDoors(self._store, self._scorer, self._sender, now_ms, monotonic_ms, crash, self._rewind)
        side = RankingSide(self._settings, doors, spaces, self._freshness, ids.partitions)
        follower = RankingsFollower(self._settings, side)

        async def resume(bounds: Mapping[Place, Bounds], generation: int) -> Mapping[Place, int]:
            offsets = await side.resume(bounds, generation)
            follower.restart()
            return offsets

        async def revoked() -> None:
            side.drop()
            follower.restart()

        def on_bundle(bundle: Bundle) -> None:
            spaces[views.PRODUCT_CONTENT.name] = space_of(
                views.PRODUCT_CONTENT, ids, str(bundle.models["product_encoder"])
            )
            side.on_bundle(bundle)

        async def flush(ending: bool) -> None:
            return None

        hooks = Hooks(self._settings, resume, flush, side.committed, revoked, crash)
        self._app = make_app(self._group, self._settings, hooks)
        Agents(self._app, crash).ranking(side)
        self._reached = side.committed
        self._spawn(lambda: follow_models(self._settings, on_bundle, side.on_rejected_bundle))
        partitions, origin = ids.partitions[FEATURE_CHANGES], origins_of(ids)[FEATURE_CHANGES]
        self._spawn(lambda: follow_changes(self._settings, self._group, partitions, side, now_ms, origin))
        self._spawn(follower.run)
        self._spawn(side.run_loading)
        self._spawn(side.run_ranking)
        self._spawn(side.run_publishing)
        self._spawn(side.run_probing)
        self._spawn(side.repair_walk().run)
        return self._app

    # --- parts of roles --------------------------------------------------------------------------------------------

    def _emitter(self, ids: topics.TopicIds) -> Emitter:
        partition = crc32(os.urandom(4)) % ids.partitions[FEATURE_CHANGES]
        emitter = Emitter(self._sender, partition, self._freshness.on_change_sent(now_ms))
        self._spawn(emitter.run)
        return emitter

    def _owning_app(self, folded: Mapping[str, Any], emitter: Changes, ids: topics.TopicIds) -> tuple[Any, Ownership]:
        doors = Doors(
            self._store,
            emitter,
            self._sender,
            monotonic_ms,
            self._freshness.on_rows_written(now_ms),
            self._freshness.count_conflicts,
        )
        ownership = Ownership(
            folded,
            doors,
            flush_s=self._settings.flush_s,
            accept_gap=self._settings.accept_gap,
            on_rewind=self._rewind,
            on_crash=crash,
        )

        async def resume(bounds: Mapping[Place, Bounds], generation: int) -> Mapping[Place, int]:
            self._settle()
            if self._encoder is None:
                for _, space in folded.values():
                    await self._store.publish_space(space)
            return await ownership.resume(bounds)

        async def flush(ending: bool) -> None:
            try:
                await asyncio.wait_for(ownership.flush(), LAST_FLUSH_S)
            except TimeoutError:
                log.warning("the last flush took longer than %s s: what it did not write is read again", LAST_FLUSH_S)
                # what a flush that was cut had taken out (acknowledgements to wait for) is not put back
                await ownership.drop()

        instance = self._settings.instance if self._settings.kafka_kind == "apache" else ""
        hooks = Hooks(
            self._settings,
            resume,
            flush,
            ownership.committed,
            ownership.drop,
            crash,
            member_of(self._role, instance, ids) if instance else None,
        )
        self._app = make_app(self._group, self._settings, hooks)
        self._reached = ownership.reached
        return self._app, ownership

    async def _report_progress(self, reached: Callable[[], Mapping[Place, int]]) -> None:
        """Markers and lag of the owned partitions, twice a second; `reached` are offsets below which all is done."""
        started = now_ms()
        while True:
            consumer = self._app.consumer
            assert isinstance(consumer, Consumer)
            self._freshness.forget_partitions()
            for (topic, partition), marker in reached().items():
                lag = max(0, consumer.end_of((topic, partition)) - marker)
                read_ms = consumer.read_times.get((topic, partition), started)
                self._freshness.set_partition(topic, partition, marker=marker, lag=lag, read_ms=read_ms)
            for partition, event_time in self._heartbeats().items():
                self._freshness.set_heartbeat(partition, event_time)
            await asyncio.sleep(PROGRESS_S)

    def _settle(self) -> None:
        now = time.monotonic()
        self._assigned_at = [at for at in self._assigned_at if now - at < SETTLE_S] + [now]
        if len(self._assigned_at) > RESTLESS_ASSIGNMENTS:
            crash(RuntimeError(f"assigned {len(self._assigned_at)} times within {SETTLE_S} s: is another process "
                               f"running with instance id {self._settings.instance!r}?"))  # fmt: skip

    def _rewind(self, why: str) -> None:
        log.warning("rewinding: %s", why)
        self._freshness.count_rewind()
        consumer = self._app.consumer
        assert isinstance(consumer, Consumer)
        consumer.request_seek()

    async def _first_bundle(self) -> Bundle:
        found: asyncio.Future[Bundle] = asyncio.get_running_loop().create_future()

        def take(bundle: Bundle) -> None:
            if not found.done():
                found.set_result(bundle)

        reading = asyncio.create_task(follow_models(self._settings, take))
        try:
            return await found
        finally:
            reading.cancel()

    def _keep_encoder(self, ours: Bundle, newer: Bundle) -> None:
        if newer.models["product_encoder"] != ours.models["product_encoder"]:
            crash(RuntimeError(f"bundle {newer.bundle}/{newer.version} brings another encoder: starting anew with it"))

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None] | Awaitable[None]]) -> None:
        async def watched() -> None:
            try:
                await work()
            except Exception as error:
                crash(error)

        self._tasks.append(asyncio.create_task(watched()))


def _spare_collector() -> None:
    """What was imported stays for ever, and cycles are few: look for them seldom."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _main(role: Role, settings: Settings, encoder: int | None) -> None:
    await Worker(role, settings, encoder).run()


def run(role: Role, settings: Settings, encoder: int | None = None) -> None:
    """Run a worker until SIGINT or SIGTERM; exits with 1 and one line when something fails for good."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("aiokafka", "faust", "kafka", "mode", "streams.transport"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    _spare_collector()
    # by the policy, since Faust makes a loop for its consumer's thread
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        asyncio.run(_main(role, settings, encoder))
    except (OSError, RuntimeError, ValueError) as error:
        crash(error)
