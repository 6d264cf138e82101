"""States as bytes: how the store keeps what is behind a row."""

import msgpack


def pack(value: object) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def unpack(data: bytes) -> list:  # type: ignore[type-arg]
    # our own bytes from our own store; strict_map_key is off because buckets are lists, not maps
    unpacked = msgpack.unpackb(data)
    assert isinstance(unpacked, list)
    return unpacked
