"""Video bytes -> a constant number of frames, evenly over its duration. Runs in the sandbox.

    bytes -> when each frame is shown -> which frames are wanted -> only what leads to them is decoded

Decoding begins at a keyframe. There is no seeking: packets that lead to no wanted frame are passed over undecoded. That
is the same for every format, and keeps the order right by construction.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from serving.datasets.clips import video_bytes
from serving.errors import BadMedia
from serving.preprocess.container import Signature, opened, prepare
from serving.preprocess.limits import MediaLimits
from serving.preprocess.video import FRAMES

#: pixels decoded of one video, all frames together: 517 frames of 1920 x 1080, or 2,330 of 640 x 720
WORK_PIXELS = 1 << 30

#: frames that a file may hold, decoded or not
_FILE_FRAMES = 100_000
#: bytes that the packets of a file may unpack to, for each of its own: containers may compress them
_UNPACKED = 8
#: a decoder holds back so many frames at most before it gives the first
_REORDERED = 32

_SIGNATURES: Sequence[Signature] = (
    (4, b"ftyp", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
    (0, b"OggS", "ogg"),
    (0, b"GIF8", "gif"),
)
_CODECS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg4", "mjpeg", "theora", "gif")
#: the same bytes give the same pixels, whatever the processor can do
_EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True, slots=True)
class _Run:
    """Packets [first, last) of a file, from a keyframe on, and (time, place) of what is wanted of them, by time."""

    first: int
    last: int
    wanted: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Packets of a video in the order of decoding: when each is shown [P] int64, in units of `tick` seconds, whether
    decoding can begin there [P] bool, and when the last one ends (0: nobody knows)."""

    times: NDArray[np.int64]
    keys: NDArray[np.bool_]
    tick: float
    end: int = 0


def read_video(data: bytes, limits: MediaLimits, size: int) -> NDArray[np.uint8]:
    """Frames [FRAMES, size, size, 3] of an MP4, MOV, WebM, MKV, AVI, Ogg, GIF or animated WebP, each whole, on white.

    They are those shown in the middle of FRAMES equal parts of the duration; a short clip repeats frames. When reaching
    them takes more than `limits.max_frames` frames or WORK_PIXELS pixels, frames nearer to their keyframes stand for
    them. Raises BadMedia when the video is too large, too long, of another format, or broken; MemoryError.
    """
    if len(data) > limits.max_bytes:
        raise BadMedia(f"video of {len(data)} bytes, at most {limits.max_bytes} are read")
    if data.startswith(b"WEBP", 8):
        return _read_webp(data, limits, size)
    with _opened(data, limits) as container:
        stream = _stream(container, limits)
        timeline = _timeline(container, stream, len(data))
        budget = _budget(stream.width * stream.height, limits)
    runs = _plan(timeline, limits, budget)
    with _opened(data, limits) as container:
        return _decoded(container, _stream(container, limits), runs, size)


def warm_up() -> None:
    """Read one video of each library, so that everything is imported."""
    black = np.zeros((2, 16, 16, 3), np.uint8)
    read_video(video_bytes(black, 2), MediaLimits(), 16)
    webp = BytesIO()
    Image.fromarray(black[0]).save(webp, "WEBP", save_all=True, append_images=[Image.fromarray(~black[1])])
    read_video(webp.getvalue(), MediaLimits(), 16)


# --- which frames --------------------------------------------------------------------------------------------------


def _opened(data: bytes, limits: MediaLimits) -> AbstractContextManager[InputContainer]:
    return opened(data, "video", _SIGNATURES, _CODECS, limits.max_pixels)


def _stream(container: InputContainer, limits: MediaLimits) -> VideoStream:
    """The first stream of moving pictures, to be decoded by one thread."""
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:  # the cover of a piece of music
            continue
        prepare(stream, "video", _CODECS, limits.max_pixels)
        _check_pixels(stream.width, stream.height, limits)
        if not stream.time_base:
            raise BadMedia("video without a unit of time")
        return stream
    raise BadMedia("no video in the file")


def _check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    if width * height == 0:  # also FFmpeg's answer to a size beyond the limit that it was given
        raise BadMedia(f"video without a size, or of more than {limits.max_pixels} pixels")
    if width * height > limits.max_pixels:
        raise BadMedia(f"video of {width} x {height} pixels, at most {limits.max_pixels} are decoded")


def _budget(pixels: int, limits: MediaLimits) -> int:
    """Frames of so many pixels that may be decoded."""
    return max(FRAMES, min(limits.max_frames, WORK_PIXELS // pixels))


def _packets(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    return (packet for packet in container.demux(stream) if packet.size)


def _timeline(container: InputContainer, stream: VideoStream, size: int) -> _Timeline:
    """The packets of a stream, without decoding any."""
    times: list[int] = []
    keys: list[bool] = []
    unpacked = end = 0
    for packet in _packets(container, stream):
        unpacked += packet.size
        if len(times) == _FILE_FRAMES or unpacked > _UNPACKED * size:
            raise BadMedia(f"video of more than {_FILE_FRAMES} frames, or of bytes packed more than {_UNPACKED} times")
        time = packet.dts if packet.pts is None else packet.pts
        times.append(times[-1] + 1 if time is None and times else time or 0)
        keys.append(packet.is_keyframe)
        end = max(end, times[-1] + (packet.duration or 0))
    assert stream.time_base is not None
    return _Timeline(np.array(times, np.int64), np.array(keys, np.bool_), float(stream.time_base), end)


def _plan(timeline: _Timeline, limits: MediaLimits, budget: int) -> list[_Run]:
    """What to decode, in the order of the file."""
    if not timeline.keys.any():
        raise BadMedia("video without a keyframe")
    starts = np.flatnonzero(timeline.keys)
    run = np.searchsorted(starts, np.arange(len(timeline.times)), side="right") - 1
    # what is shown before its keyframe needs the run before, and what comes before all keyframes cannot be decoded
    decodable = np.flatnonzero((run >= 0) & (timeline.times >= timeline.times[starts][run]))
    shown = decodable[np.argsort(timeline.times[decodable], kind="stable")]
    rank = _ranks(run[shown])
    chosen = _middles(timeline.times[shown], timeline.end, timeline.tick, limits)
    reach = {int(run[shown[at]]): int(rank[at]) + 1 for at in chosen}
    total = max(budget, sum(reach.values()))
    runs = []
    for number in sorted(reach):
        of_run = timeline.times[shown[run[shown] == number]]
        ranks = [
            (int(rank[at]) * budget // total, place) for place, at in enumerate(chosen) if run[shown[at]] == number
        ]
        first = int(starts[number])
        end = int(starts[number + 1]) if number + 1 < len(starts) else len(timeline.times)
        last = min(end, first + ranks[-1][0] + 1 + _REORDERED)
        runs.append(_Run(first, last, [(int(of_run[nth]), place) for nth, place in ranks]))
    return runs


def _ranks(runs: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of each frame, in the order of showing, its place among those of its run."""
    grouped = np.argsort(runs, kind="stable")
    rank = np.empty(len(runs), np.intp)
    rank[grouped] = np.arange(len(runs)) - np.searchsorted(runs[grouped], runs[grouped])
    return rank


def _middles(times: NDArray[np.int64], end: int, tick: float, limits: MediaLimits) -> list[int]:
    """Places, among the times of showing, of what is shown in the middle of FRAMES equal parts."""
    start, newest = int(times[0]), int(times[-1])
    if end <= newest:  # not known: the last frame is taken to be shown as long as the others
        end = newest + max(1, (newest - start) // max(1, len(times) - 1))
    span = end - start
    if span * tick > limits.max_seconds:
        raise BadMedia(f"video of {span * tick:g} s, at most {limits.max_seconds:g} s are read")
    middles = [start + (2 * part + 1) * span // (2 * FRAMES) for part in range(FRAMES)]
    return [int(np.searchsorted(times, middle, side="right")) - 1 for middle in middles]


# --- decoding ------------------------------------------------------------------------------------------------------


def _decoded(container: InputContainer, stream: VideoStream, runs: Sequence[_Run], size: int) -> NDArray[np.uint8]:
    frames = np.empty((FRAMES, size, size, 3), np.uint8)
    packets = _packets(container, stream)
    at = 0
    for run in runs:
        part = islice(packets, run.first - at, run.last - at)
        for place, frame in _held(_frames(stream, part), run.wanted):
            frames[place] = _small(frame, size)
        deque(part, maxlen=0)  # what was not needed of the run
        at = run.last
    return frames


def _frames(stream: VideoStream, packets: Iterator["Packet[VideoStream]"]) -> Iterator[VideoFrame]:
    """The frames of one run, in the order of showing."""
    stream.codec_context.flush_buffers()
    for packet in packets:
        yield from stream.codec_context.decode(packet)
    yield from stream.codec_context.decode(None)


def _held(frames: Iterator[VideoFrame], wanted: Sequence[tuple[int, int]]) -> Iterator[tuple[int, VideoFrame]]:
    """For each wanted (time, place) the place and the last frame shown by then; reads no further than it must."""
    todo = deque(wanted)
    held: VideoFrame | None = None
    for frame in frames:
        time = frame.dts if frame.pts is None else frame.pts
        while held is not None and time is not None and todo and time > todo[0][0]:
            yield todo.popleft()[1], held
        held = frame
        while todo and time == todo[0][0]:
            yield todo.popleft()[1], frame
        if not todo:
            return
    if held is None:
        raise BadMedia("video with a keyframe that cannot be decoded")
    for _, place in todo:
        yield place, held


def _small(frame: VideoFrame, size: int) -> NDArray[np.uint8]:
    """Pixels [size, size, 3] of a whole frame as it is to be shown, on white."""
    scale = size / max(frame.width, frame.height)
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    small = frame.reformat(width, height, "rgba", interpolation=_EXACT, threads=1)
    upright = np.rot90(small.to_ndarray(), round(frame.rotation / 90) % 4)
    return _on_white(Image.fromarray(np.ascontiguousarray(upright)), size)


def _on_white(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return np.asarray(ImageOps.pad(flat, (size, size), Image.Resampling.BILINEAR, color="white"))


# --- animated WebP, which FFmpeg does not read ---------------------------------------------------------------------


def _read_webp(data: bytes, limits: MediaLimits, size: int) -> NDArray[np.uint8]:
    """As `read_video`; an animation of more frames than may be decoded is cut, since each needs the one before."""
    try:
        with Image.open(BytesIO(data), formats=("WEBP",)) as picture:
            _check_pixels(*picture.size, limits)
            count = min(getattr(picture, "n_frames", 1), _budget(picture.width * picture.height, limits) // 2)
            milliseconds = []
            for nth in range(count):
                picture.seek(nth)
                picture.load()
                milliseconds.append(max(1, int(picture.info.get("duration", 1))))
            times = np.cumsum([0, *milliseconds])
            chosen = _middles(times[:-1], int(times[-1]), 0.001, limits)
            frames = np.empty((FRAMES, size, size, 3), np.uint8)
            for place, nth in enumerate(chosen):
                picture.seek(nth)
                frames[place] = _on_white(picture.convert("RGBA"), size)
            return frames
    except (BadMedia, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadMedia("video cannot be decoded: no WebP behind its first bytes") from error
    except Exception as error:  # the decoders raise whatever comes to hand on broken bytes
        raise BadMedia(f"video cannot be decoded: {type(error).__name__}: {error}") from error
