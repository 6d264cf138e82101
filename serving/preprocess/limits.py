"""How large a stranger's medium may be, encoded and decoded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Limits of one medium: bytes of its file; pixels of a picture or of one frame; seconds of a video or a sound;
    frames of a video that are decoded."""

    max_bytes: int = 5 << 20
    max_pixels: int = 16_000_000
    max_seconds: float = 600.0
    max_frames: int = 2_000
