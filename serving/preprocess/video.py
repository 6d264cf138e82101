"""Video bytes -> frames, by `frames.py` in the sandbox: FFmpeg is never loaded into this process."""

import numpy as np
from numpy.typing import NDArray

from serving.preprocess.limits import MediaLimits
from serving.preprocess.sandbox import SANDBOX

#: frames of a video as its encoder sees it
FRAMES = 8


def decode_video(data: bytes, limits: MediaLimits, size: int) -> NDArray[np.uint8]:
    """Frames [FRAMES, size, size, 3] of an MP4, MOV, WebM, MKV, AVI, Ogg, GIF or animated WebP, each whole, on white.

    They are spread evenly over the duration; a short clip repeats frames. Raises BadMedia when the video is too large,
    too long, of another format, or broken, or when it ends the decoder.
    """
    dtype = np.dtype(np.uint8)
    return SANDBOX.call(
        "serving.preprocess.frames.read_video", data, limits, size, dtype=dtype, shape=(FRAMES, size, size, 3)
    )
