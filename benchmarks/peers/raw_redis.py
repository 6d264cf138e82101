"""The same bytes by pipelined HSET and HMGET: the least that a client with a key a row can do."""

from collections.abc import Sequence

from redis import Redis


class RawRedis:
    """Each row a hash of two values, written without any of the engine's checks."""

    def __init__(self, url: str) -> None:
        self._client: Redis = Redis.from_url(url)

    def write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        """(key, reader's blob, packed state) of each row, in one pipeline."""
        pipeline = self._client.pipeline(transaction=False)
        for key, reader, state in rows:
            pipeline.hset(key, mapping={"r": reader, "s": state})
        pipeline.execute()

    def read(self, keys: Sequence[str]) -> list[bytes]:
        """The readers' blobs, in one pipeline."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(key, ["r"])
        return [values[0] for values in pipeline.execute()]

    def close(self) -> None:
        self._client.close()
