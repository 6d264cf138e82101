"""What a publisher sent twice: event ids of the last ten minutes of event time."""

from hashlib import blake2b

from feature_repo.views import MINUTE_MS

#: event ids are remembered for this long in event time
REMEMBER_MS = 10 * MINUTE_MS


def event_key(event_id: str) -> bytes:
    """8 bytes that stand for an event id in the state of a row."""
    return blake2b(event_id.encode(), digest_size=8).digest()


def is_repeated(seen: dict[bytes, int], key: bytes, newest: int) -> bool:
    """Whether an event id is remembered: ids older than ten minutes behind `newest` no longer are, pruned or not."""
    return seen.get(key, newest - REMEMBER_MS) > newest - REMEMBER_MS


def remembered(seen: dict[bytes, int], newest: int) -> dict[bytes, int]:
    """The ids that count as seen, in order: what is packed is a function of the events alone."""
    return {key: time for key, time in sorted(seen.items()) if time > newest - REMEMBER_MS}
