"""Tensors that a server on the same machine reads where they lie, instead of their bytes by gRPC.

A region is a file in /dev/shm that the server maps, too. It is lent to one call at a time and used again by the next.
"""

import logging
import mmap
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from serving.inference import Lying, registration, told

log = logging.getLogger(__name__)

PLACE = Path("/dev/shm")
#: a region has twice as many bytes as the next smaller one; this is the least
LEAST_BYTES = 1 << 18
#: tensors begin at multiples of this
ALIGNMENT = 64
_SLOW, _AWAY = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE

_numbers = count()


class NoSharedMemory(Exception):
    """There is no room for a region, or the server cannot map it: it runs elsewhere, or as somebody else."""


class _Region:
    """A file in shared memory, and the name that the server knows it by; None when it may not know it."""

    def __init__(self, size: int) -> None:
        self.key = f"freshrank-{os.getpid()}-tensors-{next(_numbers)}"
        self.size = size
        self.name: str | None = None
        file = os.open(PLACE / self.key, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            # to run out of room here is an error; to run out of it at a write would be the end of the process
            os.posix_fallocate(file, 0, size)
            self._bytes = np.frombuffer(mmap.mmap(file, size), np.uint8)
        except OSError:
            self.unlink()
            raise
        finally:
            os.close(file)

    def unlink(self) -> None:
        (PLACE / self.key).unlink(missing_ok=True)

    def place(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[Lying, ...]:
        """Copy the tensors into the region; where they lie."""
        offset, placed = 0, []
        for name, tensor in tensors.items():
            there = self._bytes[offset : offset + tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)
            np.copyto(there, tensor)
            placed.append(Lying(name, tensor.dtype, tensor.shape, offset))
            offset += _aligned(tensor.nbytes)
        return tuple(placed)


class SharedMemory:
    """The regions of one connection, by the calls of Triton's service."""

    def __init__(self, stub: Any, timeout_s: float) -> None:
        self._stub = stub
        self._timeout_s = timeout_s
        self._regions: list[_Region] = []
        self._free: list[_Region] = []

    @asynccontextmanager
    async def lent(self, tensors: Mapping[str, NDArray[Any]]) -> AsyncIterator[tuple[str, tuple[Lying, ...]]]:
        """A region for the inputs of one call, which is made inside; its name, and where the inputs lie.

        Raises NoSharedMemory, and what gRPC raises.
        """
        region = self._take(sum(_aligned(tensor.nbytes) for tensor in tensors.values()))
        try:
            name = region.name or await self._register(region)
            yield name, region.place(tensors)
        except grpc.aio.AioRpcError as error:
            if error.code() != _SLOW:
                region.name = None  # a server that began anew knows no regions
            raise
        finally:
            # the server may still read what came too late: nobody waits for what comes of it
            self._free.append(region)

    def close(self) -> None:
        """Let go of all regions; the server forgets them when it ends."""
        for region in self._regions:
            region.unlink()
        self._regions, self._free = [], []

    def _take(self, size: int) -> _Region:
        fitting = [region for region in self._free if region.size >= size]
        if fitting:
            region = min(fitting, key=lambda region: region.size)
            self._free.remove(region)
            return region
        try:
            region = _Region(max(LEAST_BYTES, 1 << (size - 1).bit_length()))
        except OSError as error:
            raise NoSharedMemory(f"{PLACE}: {error.strerror}") from error
        self._regions.append(region)
        return region

    async def _register(self, region: _Region) -> str:
        # under a new name each time: the server may know the old one, and may not forget it while it is read
        name = f"{region.key}-{next(_numbers)}"
        try:
            asked = registration(name, f"/{region.key}", region.size)
            await self._stub.SystemSharedMemoryRegister(asked, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() in (_AWAY, _SLOW):
                raise
            raise NoSharedMemory(told(error)) from error
        region.name = name
        return name


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
