"""The three doors without what is behind them: Kafka's producer, Redis and a scorer, each told when to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import msgpack
import numpy as np
from redis.exceptions import ConnectionError as RedisConnectionError

from feature_repo.row_store import _WRITE, KEEP, RowStore
from feature_repo.views import EMBEDDING_DIM, MODALITIES, NUMERIC_FIELDS, SLOTS
from serving.errors import ScorerUnavailable
from serving.requests import CONTRIBUTIONS, ContentVectors, Floats, ProductContent, ScoreRequest, Scores
from streams.emitting import OnWritten, Outbound
from streams.records import Headers

Scope = Literal["row", "list"]
#: Redis's clock is this far (ms) from a process's own
REDIS_EPOCH_MS = 1_300_000_000_000


def loop_ms() -> int:
    """The running loop's clock as a process's monotonic one."""
    return int(asyncio.get_running_loop().time() * 1000)


# --- Kafka ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it was handed over."""

    topic: str
    value: bytes | None
    key: bytes | None
    partition: int | None
    headers: Headers


@dataclass(slots=True)
class RecordingSender:
    """Keeps what is sent. While `held`, nothing is acknowledged; with `error`, nothing is taken."""

    sent: list[Sent] = field(default_factory=list)
    held: bool = False
    error: Exception | None = None
    _waiting: list[asyncio.Future[object]] = field(default_factory=list)

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[object]:
        if self.error is not None:
            raise self.error
        self.sent.append(Sent(topic, value, key, partition, headers))
        await asyncio.sleep(0)
        ack: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if self.held:
            self._waiting.append(ack)
        else:
            ack.set_result(None)
        return ack

    async def send_many(
        self, topic: str, partition: int, messages: Sequence[Outbound], on_written: OnWritten | None = None
    ) -> Awaitable[object]:
        acks = [
            await self.send(topic, message.value, key=message.key, partition=partition, headers=message.headers)
            for message in messages
        ]
        return asyncio.gather(*acks)

    def release(self) -> None:
        """Acknowledge everything that waits, and from now on everything at once."""
        self.held = False
        self.acknowledge()

    def acknowledge(self) -> None:
        """Acknowledge everything that waits."""
        waiting, self._waiting = self._waiting, []
        for ack in waiting:
            if not ack.done():
                ack.set_result(None)

    def of(self, topic: str) -> list[Sent]:
        return [message for message in self.sent if message.topic == topic]


# --- Redis ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class FakeRedis:
    """What the row store needs of Redis, in a dict. Shared by every store that is opened on it."""

    now_ms: Callable[[], int]
    keys: dict[bytes, Any] = field(default_factory=dict)
    #: no call is carried out
    away: bool = False
    #: this many calls are carried out and not answered
    unanswered: int = 0
    #: rounds of the event loop that a call takes before and after it is carried out
    rounds: int = 1
    #: seconds that the next calls take, one each
    delays_s: list[float] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def save(self) -> dict[bytes, Any]:
        """What a snapshot on disk would hold."""
        return deepcopy(self.keys)

    def restore(self, keys: dict[bytes, Any]) -> None:
        """Come back with a snapshot: what was written after it is forgotten."""
        self.keys = deepcopy(keys)

    async def script(self, script: str, *arguments: bytes) -> Any:
        """Six keys of a script that writes, three of one that reads, and its arguments."""
        carry_out, keys = (self._write, 6) if script == _WRITE else (self._read, 3)
        return await self._do(carry_out.__name__[1:], lambda: carry_out(arguments[:keys], arguments[keys:]))

    async def mget(self, names: Sequence[str]) -> Any:
        return await self._do("mget", lambda: [self.keys.get(_bytes(name)) for name in names])

    async def get(self, name: str) -> Any:
        return await self._do("get", lambda: self.keys.get(_bytes(name)))

    async def set(self, name: str, value: str, *, nx: bool = False) -> None:
        def put() -> None:
            if not (nx and _bytes(name) in self.keys):
                self.keys[_bytes(name)] = _bytes(value)

        await self._do("set", put)

    async def zrange(self, name: str, low: str, high: int, *, byscore: bool, offset: int, num: int) -> Any:
        assert (low, byscore, offset) == ("-inf", True, 0)

        def members() -> list[bytes]:
            scored = sorted((score, member) for member, score in self.keys.get(_bytes(name), {}).items())
            return [member for score, member in scored if score <= high][:num]

        return await self._do("zrange", members)

    async def time(self) -> Any:
        return await self._do("time", lambda: divmod(self.now_ms() * 1000, 1_000_000))

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _do(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls.append(name)
        if self.delays_s:
            await asyncio.sleep(self.delays_s.pop(0))
        for _ in range(self.rounds):
            await asyncio.sleep(0)
        if self.away:
            raise RedisConnectionError("away")
        answer = call()
        for _ in range(self.rounds):
            await asyncio.sleep(0)
        if self.unanswered:
            self.unanswered -= 1
            raise RedisConnectionError("the answer was lost")
        return answer

    def _read(self, keys: Sequence[bytes], args: Sequence[bytes]) -> list[Any]:
        marker, values, handover = keys
        rows = [self.keys.get(values, {}).get(entity) for entity in msgpack.unpackb(args[0], raw=True)]
        return [self.keys.get(marker, b""), self.now_ms(), self.keys.get(handover, b""), rows]

    def _write(self, keys: Sequence[bytes], args: Sequence[bytes]) -> list[Any]:
        expected, following, before, step, number, last, oldest, limit, seen, anew, packed = args
        now, (marker_key, agenda_key, step_key, blobs_key, states_key, hands_key) = self.now_ms(), keys
        marker, hands = self.keys.get(marker_key, b""), self.keys.get(hands_key, b"")
        there, own_step, failed = self.keys.get(step_key, b""), step + b":", b""
        if marker != expected:
            is_done = following and marker == following and there == own_step + last
            return [b"done", now, hands] if is_done else [b"marker", now, hands, marker]
        if number == b"0":
            if before and there != before and not there.startswith(own_step):
                return [b"marker", now, hands, marker]
        else:
            reached = there.removeprefix(own_step).removesuffix(b"!")
            if not there.startswith(own_step) or int(number) - int(reached) not in (0, 1):
                return [b"behind", now, hands]
            failed = b"!" if there.endswith(b"!") else b""
        if oldest and now - int(oldest) > int(limit):
            return [b"late", now, hands]
        own, own_states, due, undue, others = msgpack.unpackb(packed, raw=True)
        if own and hands != seen:
            return [b"handover", now, hands]
        agenda, blobs, states = (self.keys.setdefault(key, {}) for key in (agenda_key, blobs_key, states_key))
        blobs.update(_pairs(own))
        states.update(_pairs(own_states))
        agenda.update({entity: minute for minute, entity in _pairs(due)})
        for entity in undue:
            agenda.pop(entity, None)
        conflicts = []
        hands = hands or anew
        for entity, read_stamps, blob, state, minute in zip(*others, strict=True):
            there_before = states.get(entity)
            if _stamps(there_before or b"\0\0\0\0") not in (read_stamps, _stamps(state)):
                conflicts.append(entity)
                continue
            if there_before is not None and there_before[:2] != state[:2]:
                hands = anew
            blobs[entity], states[entity] = blob, state
            if minute != KEEP:
                agenda.pop(entity, None)
            if minute >= 0:
                agenda[entity] = minute
        self.keys[hands_key] = hands
        failed = b"!" if conflicts else failed
        self.keys[step_key] = own_step + number + failed
        if number == last:
            if failed:
                return [b"conflict", now, hands, conflicts]
            if following:
                self.keys[marker_key] = following
        return [b"ok", now, hands, conflicts]


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _bytes(argument: Any) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


def _stamps(state: bytes) -> bytes:
    return state[4 : 4 + int.from_bytes(state[2:4], "big")]


class FakeRowStore(RowStore):
    """The row store itself, over a fake Redis."""

    def __init__(self, redis: FakeRedis) -> None:
        super().__init__("redis://nowhere")
        self.redis = redis

    @property
    def client(self) -> Any:
        return self.redis

    async def _scripts(
        self, script: str, keys: Sequence[str], arguments: Callable[[], Iterable[tuple[bytes, ...]]], many: int
    ) -> list[Any]:
        named = [key.encode() for key in keys]
        # one that is not answered ends the line: those behind it are not carried out
        return [await self._call(self.redis.script(script, *named, *some)) for some in arguments()]


# --- the scorer ----------------------------------------------------------------------------------------------------


def word_vector(text: str) -> Floats:
    """f32[D] that depends on the text alone, zeros for none."""
    vector = np.zeros(EMBEDDING_DIM, np.float32)
    for place, letter in enumerate(text.encode()):
        vector[place % EMBEDDING_DIM] += letter / 1024
    return vector


def fake_contributions(request: ScoreRequest, scope: Scope = "row") -> Floats:
    """f32[N, K]: what the text, the price, the sales and the retrieval say; each row depends on itself alone.

    With list scope the base is how many rows of the set are dearer: any price may move any row.
    """
    found = np.zeros((request.rows, len(CONTRIBUTIONS)), np.float32)
    wanted = request.query[request.set_index] + request.user[request.set_index, :EMBEDDING_DIM]
    text = request.content[:, MODALITIES.index("text")] * request.mask[:, [MODALITIES.index("text")]]
    found[:, CONTRIBUTIONS.index("text")] = (text * wanted).sum(axis=1) + wanted.sum(axis=1) / 8
    price = request.numeric[:, NUMERIC_FIELDS.index("price")]
    found[:, CONTRIBUTIONS.index("price")] = np.where(price > 0, -price / 1000, 0)
    found[:, CONTRIBUTIONS.index("sales")] = request.numeric[:, NUMERIC_FIELDS.index("sales_1h")] / 8
    found[:, CONTRIBUTIONS.index("retrieval")] = request.retrieval
    if scope == "list":
        for number in np.unique(request.set_index):
            rows = np.flatnonzero(request.set_index == number)
            found[rows, CONTRIBUTIONS.index("base")] = (price[rows] > price[rows][:, None]).sum(axis=1)
    return found


@dataclass(slots=True)
class FakeScorer:
    """Scores by `fake_contributions`. While `away`, every call says so; while `held`, none is answered."""

    away: bool = False
    scope: Scope = "row"
    requests: list[ScoreRequest] = field(default_factory=list)
    queries: list[Sequence[str]] = field(default_factory=list)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        await self._open.wait()
        if self.away:
            raise ScorerUnavailable("away")

    async def encode_queries(self, texts: Sequence[str], version: int | None = None) -> Floats:
        self.queries.append(texts)
        await self._answer()
        return np.stack([word_vector(text) for text in texts])

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        await self._answer()
        content = np.zeros((len(products), len(SLOTS), EMBEDDING_DIM), np.float32)
        mask = np.zeros((len(products), len(MODALITIES)), np.float32)
        for row, product in enumerate(products):
            content[row, MODALITIES.index("text")] = word_vector(product.text)
            mask[row, MODALITIES.index("text")] = bool(product.text)
        return ContentVectors(content, mask)

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        self.requests.append(request)
        await self._answer()
        contributions = fake_contributions(request, self.scope)
        return Scores(contributions.sum(axis=1), contributions if explain else None)

    async def ready(self) -> bool:
        await asyncio.sleep(0)
        return not self.away

    async def close(self) -> None:
        """Nothing is open."""
