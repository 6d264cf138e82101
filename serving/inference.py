"""Triton's messages and its service, by the stubs that tritonclient brings.

Its own client makes objects of every input and copies them into a message of which it makes another: a quarter of a
millisecond for each call that an event costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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


def question(model: str, version: str, outputs: Sequence[str]) -> Any:
    """A request without inputs; without `outputs` all are asked for, without a version the newest answers."""
    asked = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    for name in outputs:
        asked.outputs.add().name = name
    return asked


def describe(asked: Any, name: str, tensor: NDArray[Any]) -> Any:
    """One input more: its name, type and shape. Its bytes are still to come."""
    described = asked.inputs.add()
    described.name = name
    described.datatype = _datatype(tensor.dtype)
    described.shape.extend(tensor.shape)
    return described


def enclose(asked: Any, name: str, tensor: NDArray[Any]) -> None:
    """One input more, with its bytes. All inputs of a request are enclosed, or none."""
    describe(asked, name, tensor)
    asked.raw_input_contents.append(tensor.tobytes())


def point(asked: Any, name: str, tensor: NDArray[Any], region: str, offset: int) -> None:
    """One input more, whose bytes lie in a region of shared memory that the server knows."""
    parameters = describe(asked, name, tensor).parameters
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = tensor.nbytes
    if offset:
        parameters["shared_memory_offset"].int64_param = offset


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
