"""What a publisher sent twice: event ids of the last ten minutes of event time."""

from hashlib import blake2b

from msgspec import Raw, Struct, field

from feature_repo.features.packing import pack, pack_list
from feature_repo.views import MINUTE_MS

#: event ids are remembered for at least this long in event time
REMEMBER_MS = 10 * MINUTE_MS
#: they are forgotten together with all others of the same slice of event time
SLICE_MS = 10_000
SLICES = REMEMBER_MS // SLICE_MS + 1
KEY_BYTES = 8


def event_key(event_id: str) -> bytes:
    """8 bytes that stand for an event id in the state of a row."""
    return blake2b(event_id.encode(), digest_size=KEY_BYTES).digest()


class Repeats(Struct, gc=False):
    """The event ids that count as seen: those of the SLICES slices up to that of the newest event.

    What is kept and how it is packed are functions of the events alone. A busy product has tens of thousands of ids:
    one more costs no more than its own slice, to fold and to pack.
    """

    _newest: int = 0
    _keys: set[bytes] = field(default_factory=set)
    _slices: dict[int, list[bytes]] = field(default_factory=dict)
    #: the newest slice while it is in no packed form; most events go there
    _open: list[bytes] | None = None
    #: slices as they are packed, but for those that changed since
    _packed: dict[int, bytes] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Repeats) and pack(self.to_pack()) == pack(other.to_pack())

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, key: bytes, time: int) -> bool:
        """Remember an event of `time` (ms); False for one that is remembered already."""
        if key in self._keys:
            return False
        at = time // SLICE_MS
        if at == self._newest and self._open is not None:
            self._keys.add(key)
            self._open.append(key)
            return True
        if at > self._newest:
            if self._slices:
                self._forget(at)
            self._newest = at
        elif at <= self._newest - SLICES:
            return True
        self._keys.add(key)
        slice_ = self._slices.get(at)
        if slice_ is None:
            slice_ = self._slices[at] = [key]
        else:
            slice_.append(key)
            if self._packed:
                self._packed.pop(at, None)
        if at == self._newest:
            self._open = slice_
        return True

    def _forget(self, newest: int) -> None:
        for old in [at for at in self._slices if at <= newest - SLICES]:
            self._keys.difference_update(self._slices.pop(old))
            self._packed.pop(old, None)

    def to_pack(self) -> tuple[tuple[int, bytes], ...] | Raw:
        """[[slice, keys in order, in one piece], ...], earliest first."""
        packed, slices = self._packed, self._slices
        if len(slices) == 1:
            ((at, keys),) = slices.items()
            keys.sort()
            return ((at, b"".join(keys)),)
        if len(packed) < len(slices):
            for at, keys in slices.items():
                if at not in packed:
                    keys.sort()
                    packed[at] = pack((at, b"".join(keys)))
            self._open = None
        return Raw(pack_list([packed[at] for at in sorted(packed)]))

    @classmethod
    def unpack(cls, slices: list[list[int | bytes]]) -> "Repeats":
        """From what was packed, unpacked."""
        repeats = cls()
        for at, joined in slices:
            assert isinstance(at, int)
            assert isinstance(joined, bytes)
            keys = [joined[i : i + KEY_BYTES] for i in range(0, len(joined), KEY_BYTES)]
            repeats._newest = at
            repeats._slices[at] = keys
            repeats._keys.update(keys)
        return repeats

    @classmethod
    def unpack_old(cls, seen: list[tuple[bytes, int]]) -> "Repeats":
        """From a state that was packed when ids were kept with their times (ms)."""
        repeats = cls()
        for key, time in sorted(seen, key=lambda pair: pair[1]):
            repeats.take(key, time)
        return repeats
