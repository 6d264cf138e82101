"""The door to Triton: a Scorer over gRPC. Nothing else in the project imports tritonclient."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from feature_repo.views import EMBEDDING_DIM, MODALITIES
from serving.errors import ScorerUnavailable
from serving.preprocess import MediaLimits, prepare_products, prepare_texts
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

#: products of one encoding call: 3 MB of pixels
ENCODED_ROWS = 256
#: rows of one scoring call: 12 MB of tensors, well below the largest message
SCORED_ROWS = 20_000
#: gRPC waits up to two minutes before it tries a server again that was away; a ranking cannot
RECONNECT_MS = 500


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files; None leaves the system's authorities, and no certificate of the client's own."""

    ca: Path | None = None
    key: Path | None = None
    certificate: Path | None = None


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
    ) -> None:
        self.address = address
        self._score_timeout_s = score_timeout_s
        self._encode_timeout_s = encode_timeout_s
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._limits = limits
        self._client: InferenceServerClient | None = None

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
        content = [np.zeros((0, len(MODALITIES), EMBEDDING_DIM), np.float32)]
        masks = [np.zeros((0, len(MODALITIES)), np.float32)]
        for first in range(0, len(products), ENCODED_ROWS):
            # decoding holds the processor for milliseconds a picture: not on the event loop
            some = await asyncio.to_thread(prepare_products, products[first : first + ENCODED_ROWS], self._limits)
            tensors: dict[str, NDArray[Any]] = {"text_ids": some.text_ids, "image": some.image, "mask": some.mask}
            answer = await self._infer("product_encoder", tensors, version, self._encode_timeout_s)
            content.append(self._output(answer, "content", (*some.mask.shape, EMBEDDING_DIM)))
            masks.append(some.mask)
        return ContentVectors(np.concatenate(content), np.concatenate(masks))

    async def score(self, request: ScoreRequest, version: int | None = None) -> Scores:
        """Scores by the given version of the ranker, or by the newest. One call for any number of sets, unless they
        have more than SCORED_ROWS rows together."""
        logit = [np.zeros(0, np.float32)]
        contributions = [np.zeros((0, len(CONTRIBUTIONS)), np.float32)]
        for part in _parts(request):
            tensors: dict[str, NDArray[Any]] = {name: getattr(part, name) for name in ScoreRequest.__slots__}
            answer = await self._infer("ranker", tensors, version, self._score_timeout_s)
            logit.append(self._output(answer, "logit", (part.rows,)))
            contributions.append(self._output(answer, "contributions", (part.rows, len(CONTRIBUTIONS))))
        return Scores(np.concatenate(logit), np.concatenate(contributions))

    async def ready(self) -> bool:
        """Whether all models answer; False, too, when Triton cannot be reached."""
        try:
            ready = [await self._connected().is_model_ready(m, client_timeout=self._score_timeout_s) for m in MODELS]
        except (InferenceServerException, grpc.aio.UsageError, OSError):
            return False
        return all(ready)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _infer(
        self, model: str, tensors: Mapping[str, NDArray[Any]], version: int | None, timeout_s: float
    ) -> Any:
        inputs = [_input(name, tensor) for name, tensor in tensors.items()]
        pinned = "" if version is None else str(version)
        try:
            return await self._connected().infer(model, inputs, pinned, client_timeout=timeout_s)
        except (InferenceServerException, grpc.aio.UsageError, OSError) as error:
            raise ScorerUnavailable(f"{model} {pinned or 'newest'} on triton at {self.address}: {error}") from error

    def _connected(self) -> InferenceServerClient:
        if self._client is None:
            tls = self._tls or Tls()
            self._client = InferenceServerClient(
                self.address,
                ssl=self._tls is not None,
                root_certificates=tls.ca,
                private_key=tls.key,
                certificate_chain=tls.certificate,
                channel_args=[
                    ("grpc.max_send_message_length", self._max_message_bytes),
                    ("grpc.max_receive_message_length", self._max_message_bytes),
                    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
                    ("grpc.min_reconnect_backoff_ms", RECONNECT_MS),
                    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
                ],
            )
        return self._client

    def _output(self, answer: Any, name: str, shape: tuple[int, ...]) -> Floats:
        """A tensor of an answer; one of another shape is a server that is not itself."""
        output = answer.as_numpy(name)
        if output is None or output.shape != shape:
            got = "nothing" if output is None else str(output.shape)
            raise ScorerUnavailable(f"triton at {self.address} answered {got} for {name}{list(shape)}")
        return np.asarray(output, np.float32)


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
    )


def _parts(request: ScoreRequest) -> Iterator[ScoreRequest]:
    """The request in parts of at most SCORED_ROWS rows, each with only the queries and users of its rows."""
    if 0 < request.rows <= SCORED_ROWS:
        yield request
        return
    for first in range(0, request.rows, SCORED_ROWS):
        some = slice(first, first + SCORED_ROWS)
        sets, set_index = np.unique(request.set_index[some], return_inverse=True)
        yield ScoreRequest(
            query=request.query[sets],
            user=request.user[sets],
            content=request.content[some],
            mask=request.mask[some],
            numeric=request.numeric[some],
            retrieval=request.retrieval[some],
            set_index=set_index.astype(np.int32),
        )


def _input(name: str, tensor: NDArray[Any]) -> InferInput:
    wanted = InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    wanted.set_data_from_numpy(np.ascontiguousarray(tensor))
    return wanted
