"""States as bytes: how the store keeps what is behind a row.

What did not change since it was last packed is not packed again: its bytes are put together with those that are new.
"""

from collections.abc import Collection

import msgpack
import msgspec

_ENCODER = msgspec.msgpack.Encoder()


def pack(value: object) -> bytes:
    return _ENCODER.encode(value)


def unpack(data: bytes) -> list:  # type: ignore[type-arg]
    # our own bytes from our own store; strict_map_key is off because buckets are lists, not maps
    unpacked = msgpack.unpackb(data)
    assert isinstance(unpacked, list)
    return unpacked


def pack_list(packed: Collection[bytes]) -> bytes:
    """A list of things that are packed already."""
    return list_header(len(packed)) + b"".join(packed)


def list_header(length: int) -> bytes:
    """What a packed list of so many things begins with."""
    if length < 16:
        return bytes((0x90 | length,))
    return b"\xdc" + length.to_bytes(2, "big") if length < 65_536 else b"\xdd" + length.to_bytes(4, "big")
