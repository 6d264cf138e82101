"""The door to Triton: a Scorer over gRPC, by the messages of inference.py; models are loaded by control.py."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from feature_repo.views import EMBEDDING_DIM, MODALITIES, SLOTS
from serving.errors import ScorerUnavailable
from serving.inference import Question, Tls, channel_to, enclosed, output, pointed, readiness, stub_of, told
from serving.preprocess import MediaLimits, portions, prepare_products, prepare_texts
from serving.requests import (
    CONTRIBUTIONS,
    MODELS,
    ContentVectors,
    Floats,
    ProductContent,
    Scorer,
    ScoreRequest,
    Scores,
)
from serving.settings import ServingSettings
from serving.shared_memory import NoSharedMemory, SharedMemory

log = logging.getLogger(__name__)

#: queries of one encoding call
ENCODED_ROWS = 256
#: rows of one scoring request: some 2 MB of tensors. While the server scores them the next ones travel
SCORED_ROWS = 2_000
#: requests of one call that are under way at once: one that is scored, one that waits for it, one that travels
LANES = 3

#: a server that is away, late, or that cannot answer; a channel of a loop that has ended; certificates that are gone
_FAILURES = (grpc.RpcError, grpc.aio.UsageError, OSError)

#: which rows of a request, and a request for them
Part = tuple[NDArray[np.int64] | slice, ScoreRequest]


class TritonScorer:
    """Scores and encodes on a Triton server. Connects at the first call, and again after the server was away.

    Tensors are int32, uint8 and float32, never strings: the server's Python backend cannot be trusted with those.
    """

    def __init__(
        self,
        address: str,
        *,
        score_timeout_s: float = 2.0,
        encode_timeout_s: float = 20.0,
        max_message_bytes: int = 64 << 20,
        tls: Tls | None = None,
        limits: MediaLimits | None = None,
        shared_memory: bool = False,
    ) -> None:
        """`shared_memory`: rows to score lie in /dev/shm for a server of this machine, which must be able to map it."""
        self.address = address
        self._score_timeout_s = score_timeout_s
        self._encode_timeout_s = encode_timeout_s
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._limits = limits
        self._channel: Any = None
        self._stub: Any = None
        self._is_shared = shared_memory
        self._shared: SharedMemory | None = None
        self._image_sizes: dict[int, int] = {}

    async def encode_queries(self, texts: Sequence[str], version: int | None = None) -> Floats:
        """Query vectors [Q, D]."""
        vectors = [np.zeros((0, EMBEDDING_DIM), np.float32)]
        for first in range(0, len(texts), ENCODED_ROWS):
            ids = prepare_texts(texts[first : first + ENCODED_ROWS])
            answer = await self._infer("query_encoder", {"text_ids": ids}, version, self._encode_timeout_s)
            vectors.append(self._output(answer, "query", (len(ids), EMBEDDING_DIM)))
        return np.concatenate(vectors)

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        """Content vectors, or BadMedia that names the first product whose medium cannot be decoded."""
        content = [np.zeros((0, len(SLOTS), EMBEDDING_DIM), np.float32)]
        masks = [np.zeros((0, len(MODALITIES)), np.float32)]
        image_size = await self._image_size(version)
        for portion in portions(products, image_size):
            # decoding holds the processor for milliseconds a picture: not on the event loop
            some = await asyncio.to_thread(prepare_products, portion, self._limits, image_size)
            asked = ("content",)
            answer = await self._infer("product_encoder", some.arrays(), version, self._encode_timeout_s, asked)
            content.append(self._output(answer, "content", (len(some.mask), len(SLOTS), EMBEDDING_DIM)))
            masks.append(some.mask)
        return ContentVectors(np.concatenate(content), np.concatenate(masks))

    async def _image_size(self, version: int | None) -> int:
        """The side of the pictures that a product encoder takes. What a pinned version says stays so."""
        if version is not None and version in self._image_sizes:
            return self._image_sizes[version]
        nothing = prepare_products([]).arrays()
        answer = await self._infer("product_encoder", nothing, version, self._encode_timeout_s, ("image_size",))
        size = int(self._output(answer, "image_size", (1,))[0])
        if version is not None:
            self._image_sizes[version] = size
        return size

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        """Scores by the given version of the ranker, or by the newest; with their contributions if `explain`.

        One request for any number of sets, unless they have more than SCORED_ROWS rows together; a set is never
        split. The time limit is that of each request.
        """
        contributions = np.zeros((request.rows, len(CONTRIBUTIONS)), np.float32) if explain else None
        scores = Scores(np.zeros(request.rows, np.float32), contributions)
        parts = _parts(request)
        if request.rows <= SCORED_ROWS:
            await self._score_parts(parts, version, scores)
            return scores
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(LANES, -(-request.rows // SCORED_ROWS))):
                    lanes.create_task(self._score_parts(parts, version, scores))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return scores

    async def _score_parts(self, parts: Iterator[Part], version: int | None, into: Scores) -> None:
        """Score what other lanes have not taken yet."""
        outputs = ("logit",) if into.contributions is None else ("logit", "contributions")
        for rows, part in parts:
            tensors: dict[str, NDArray[Any]] = {name: getattr(part, name) for name in ScoreRequest.__slots__}
            answer = await self._infer("ranker", tensors, version, self._score_timeout_s, outputs, shared=True)
            into.logit[rows] = self._output(answer, "logit", (part.rows,))
            if into.contributions is not None:
                into.contributions[rows] = self._output(answer, "contributions", (part.rows, len(CONTRIBUTIONS)))

    async def ready(self) -> bool:
        """Whether all models answer; False, too, when Triton cannot be reached."""
        try:
            ask, timeout_s = self._connected().ModelReady, self._score_timeout_s
            return all([(await ask(readiness(model), timeout=timeout_s)).ready for model in MODELS])
        except _FAILURES:
            return False

    async def close(self) -> None:
        channel, self._channel, self._stub = self._channel, None, None
        self._let_regions_go()
        if channel is not None:
            await channel.close()

    async def _infer(
        self,
        model: str,
        tensors: Mapping[str, NDArray[Any]],
        version: int | None,
        timeout_s: float,
        outputs: Sequence[str] = (),
        *,
        shared: bool = False,
    ) -> Any:
        """The answer with the named outputs, with all of them by default: what nobody asks for is not computed."""
        question = Question(model, "" if version is None else str(version), tuple(outputs))
        try:
            async with self._filled(question, tensors, shared and self._is_shared) as asked:
                return await self._connected().ModelInfer(asked, timeout=timeout_s)
        except _FAILURES as error:
            what = f"{model} {version or 'newest'} on triton at {self.address}"
            raise ScorerUnavailable(f"{what}: {told(error)}") from error

    @asynccontextmanager
    async def _filled(
        self, question: Question, tensors: Mapping[str, NDArray[Any]], shared: bool
    ) -> AsyncIterator[Any]:
        """A request that tells the server where the tensors lie, else their bytes."""
        if shared:
            if self._shared is None:
                self._shared = SharedMemory(self._connected(), self._score_timeout_s)
            try:
                async with self._shared.lent(tensors) as (region, inputs):
                    yield pointed(question, region, inputs)
                return
            except NoSharedMemory as error:
                log.warning("rows travel to triton at %s by gRPC, not in shared memory: %s", self.address, error)
                self._is_shared = False
                self._let_regions_go()
        yield enclosed(question, tensors)

    def _let_regions_go(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()

    def _connected(self) -> Any:
        if self._stub is None:
            self._channel = channel_to(self.address, self._tls, self._max_message_bytes)
            self._stub = stub_of(self._channel)
        return self._stub

    def _output(self, answer: Any, name: str, shape: tuple[int, ...]) -> Floats:
        """A tensor of an answer; one of another shape is a server that is not itself."""
        found = output(answer, name)
        if found is None or found.shape != shape:
            got = "nothing" if found is None else str(found.shape)
            raise ScorerUnavailable(f"triton at {self.address} answered {got} for {name}{list(shape)}")
        return np.asarray(found, np.float32)


def triton_scorer(settings: ServingSettings) -> Scorer:
    """The scorer that the settings tell."""
    tls = Tls(settings.triton_tls_ca, settings.triton_tls_key, settings.triton_tls_certificate)
    return TritonScorer(
        settings.triton,
        score_timeout_s=settings.triton_score_timeout_s,
        encode_timeout_s=settings.triton_encode_timeout_s,
        max_message_bytes=settings.triton_max_message_bytes,
        tls=tls if settings.triton_tls else None,
        limits=settings.media_limits,
        shared_memory=settings.triton_shared_memory,
    )


def _parts(request: ScoreRequest) -> Iterator[Part]:
    """Parts of at most SCORED_ROWS rows, each with only the queries and users of its rows.

    The rows of a set stay together, as a score may depend on all of them: a set with more is a part of its own. Rows
    that lie beside each other are not copied.
    """
    if 0 < request.rows <= SCORED_ROWS:
        yield slice(None), request
        return
    for sets in _batches(np.bincount(request.set_index, minlength=len(request.query)).tolist()):
        of_set = np.full(len(request.query), -1, np.int32)
        of_set[sets] = np.arange(len(sets))
        rows = _together(np.flatnonzero(of_set[request.set_index] >= 0))
        yield (
            rows,
            ScoreRequest(
                query=request.query[sets],
                user=request.user[sets],
                content=request.content[rows],
                mask=request.mask[rows],
                numeric=request.numeric[rows],
                retrieval=request.retrieval[rows],
                set_index=of_set[request.set_index[rows]],
            ),
        )


def _together(rows: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """Rows in rising order, as a slice where none is left out."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _batches(counts: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of the sets that have rows, as many at a time as have SCORED_ROWS rows together."""
    batch: list[int] = []
    rows = 0
    for number, count in enumerate(counts):
        if batch and rows + count > SCORED_ROWS:
            yield batch
            batch, rows = [], 0
        if count:
            batch.append(number)
            rows += count
    if batch:
        yield batch
