"""Triton's messages and its service, by the stubs that tritonclient brings.

Its own client makes objects of every input and copies them into a message of which it makes another: a quarter of a
millisecond for each call that an event costs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

#: gRPC waits up to two minutes before it tries a server again that was away; a ranking cannot
RECONNECT_MS = 500


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files; None leaves the system's authorities, and no certificate of the client's own."""

    ca: Path | None = None
    key: Path | None = None
    certificate: Path | None = None


def channel_to(address: str, tls: Tls | None, max_message_bytes: int) -> Any:
    """A channel of the running event loop; it connects at the first call, and again after the server was away."""
    options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    pem = (None if file is None else file.read_bytes() for file in (tls.ca, tls.key, tls.certificate))
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*pem), options)


def stub_of(channel: Any) -> Any:
    """The calls of Triton's service."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


class Question(NamedTuple):
    """Which version of a model is asked, the newest for "", and for which outputs, all of them without any."""

    model: str
    version: str = ""
    outputs: tuple[str, ...] = ()


class Lying(NamedTuple):
    """A tensor in a region of shared memory: its name, type and shape, and the byte where it begins."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


def enclosed(question: Question, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """A request with the bytes of its inputs."""
    asked = _without_inputs(question)
    for name, tensor in tensors.items():
        _describe(asked, name, tensor.dtype, tensor.shape)
        asked.raw_input_contents.append(tensor.tobytes())
    return asked


@lru_cache(maxsize=256)
def pointed(question: Question, region: str, inputs: tuple[Lying, ...]) -> Any:
    """A request whose inputs lie in a region that the server knows. Not to be changed: the next that is alike gets it,
    and to make one of seven inputs takes longer than to send it."""
    asked = _without_inputs(question)
    for name, dtype, shape, offset in inputs:
        parameters = _describe(asked, name, dtype, shape).parameters
        parameters["shared_memory_region"].string_param = region
        parameters["shared_memory_byte_size"].int64_param = math.prod(shape) * dtype.itemsize
        if offset:
            parameters["shared_memory_offset"].int64_param = offset
    return asked


def _without_inputs(question: Question) -> Any:
    asked = service_pb2.ModelInferRequest(model_name=question.model, model_version=question.version)
    for name in question.outputs:
        asked.outputs.add().name = name
    return asked


def _describe(asked: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """One input more. Its bytes are still to come."""
    described = asked.inputs.add()
    described.name = name
    described.datatype = _datatype(dtype)
    described.shape.extend(shape)
    return described


def output(answer: Any, name: str) -> NDArray[Any] | None:
    """An output of an answer; None for one that it does not have."""
    for described, raw in zip(answer.outputs, answer.raw_output_contents, strict=False):
        if described.name == name:
            return np.frombuffer(raw, triton_to_np_dtype(described.datatype)).reshape(described.shape)
    return None


def readiness(model: str) -> Any:
    """Asks whether the newest version of a model answers."""
    return service_pb2.ModelReadyRequest(name=model)


def registration(name: str, key: str, size: int) -> Any:
    """Tells the server of a region: what it is called, under which key it lies, how many bytes it has."""
    return service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=size)


def told(error: Any) -> str:
    """Status and words of a failed call."""
    return f"[{error.code()}] {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)


@lru_cache
def _datatype(dtype: np.dtype[Any]) -> str:
    name: str = np_to_triton_dtype(dtype)
    return name
