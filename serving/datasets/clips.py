"""Drawn media as files: frames -> MP4, samples -> WAV. The same numbers give the same bytes."""

import wave
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from numpy.typing import NDArray

#: quantiser of MPEG-4, 1 to 31: near to what was drawn
_QUANTISER = "2"


def video_bytes(frames: NDArray[np.uint8], fps: int) -> bytes:
    """An MP4 (MPEG-4 Part 2) of frames [T, H, W, 3]; H and W even."""
    count, height, width, _ = frames.shape
    if count == 0 or height % 2 or width % 2:
        raise ValueError(f"frames: expected at least one, of even height and width, got {count} of {height} x {width}")
    file = BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=fps, options={"qmin": _QUANTISER, "qmax": _QUANTISER})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for nth, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = nth, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def wav_bytes(samples: NDArray[np.float32], rate: int) -> bytes:
    """A WAV (16 bit, one channel) of samples [n]; what is beyond -1 to 1 is clipped."""
    file = BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()
