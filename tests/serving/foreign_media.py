"""Media as strangers send them: files of every format that is taken, made by FFmpeg and Pillow."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray
from PIL import Image

#: name -> (container, encoder, pixel format)
VIDEOS = {
    "mp4-h264": ("mp4", "libx264", "yuv420p"),
    "mp4-hevc": ("mp4", "libx265", "yuv420p"),
    "mp4-mpeg4": ("mp4", "mpeg4", "yuv420p"),
    "mp4-av1": ("mp4", "libsvtav1", "yuv420p"),
    "mov-mjpeg": ("mov", "mjpeg", "yuvj420p"),
    "webm-vp8": ("webm", "libvpx", "yuv420p"),
    "webm-vp9": ("webm", "libvpx-vp9", "yuv420p"),
    "mkv-h264": ("matroska", "libx264", "yuv420p"),
    "avi-mpeg4": ("avi", "mpeg4", "yuv420p"),
    "ogg-vp8": ("ogg", "libvpx", "yuv420p"),
    "gif": ("gif", "gif", "rgb8"),
}
#: options of encoders that are no names of Python
_OPTIONS = {"x264": "x264-params"}
#: name -> (container, encoder, samples a second, layout)
SOUNDS = {
    "wav": ("wav", "pcm_s16le", 44_100, "stereo"),
    "wav-24bit": ("wav", "pcm_s24le", 48_000, "mono"),
    "wav-float": ("wav", "pcm_f32le", 16_000, "mono"),
    "mp3": ("mp3", "libmp3lame", 44_100, "stereo"),
    "ogg-opus": ("ogg", "libopus", 48_000, "stereo"),
    "ogg-vorbis": ("ogg", "vorbis", 44_100, "stereo"),
    "flac": ("flac", "flac", 44_100, "stereo"),
    "m4a": ("ipod", "aac", 44_100, "stereo"),
    "aac": ("adts", "aac", 22_050, "mono"),
}


def ramp(count: int = 48, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frames [count, height, width, 3] whose grey rises from 0 to 255: each tells its place in time."""
    grey = np.linspace(0, 255, count).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (count, height, width, 3)).copy()


def video(
    name: str,
    frames: NDArray[np.uint8] | None = None,
    fps: int = 24,
    *,
    degrees: int = 0,
    samples: NDArray[np.float32] | None = None,
    **options: str,
) -> bytes:
    """A file of a kind in VIDEOS, to be turned by so many degrees, with a sound of samples [n] at 48 kHz."""
    container, encoder, pixels = VIDEOS[name]
    frames = ramp() if frames is None else frames
    options = {_OPTIONS.get(option, option): value for option, value in options.items()}
    if encoder == "libx265":
        options["x265-params"] = "log-level=none"
    file = BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(encoder, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        if degrees:
            stream.set_display_rotation(degrees)
        if samples is not None:
            _add_sound(out, samples)
        for place, shown in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def _add_sound(out: OutputContainer, samples: NDArray[np.float32]) -> None:
    """A stream of sound, all of it."""
    stream = out.add_stream("aac", rate=48_000, layout="mono")
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def webp(frames: NDArray[np.uint8], milliseconds: int | list[int] = 40) -> bytes:
    """An animated WebP, without loss."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    file = BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=others, duration=milliseconds, lossless=True)
    return file.getvalue()


def tone(hertz: float, seconds: float, rate: int) -> NDArray[np.float32]:
    """A sine of half the full scale."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound(name: str, hertz: float = 1000.0, seconds: float = 1.0) -> bytes:
    """A file of a kind in SOUNDS, a sine in all its channels."""
    container, encoder, rate, layout = SOUNDS[name]
    file = BytesIO()
    with av.open(file, "w", format=container) as out:
        # FFmpeg calls its Vorbis encoder experimental
        stream = out.add_stream(encoder, rate=rate, layout=layout, options={"strict": "experimental"})
        assert isinstance(stream, av.AudioStream)
        samples = np.tile(tone(hertz, seconds, rate), (stream.channels, 1))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()
