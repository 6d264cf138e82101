"""The door to FFmpeg (by PyAV): a stranger's bytes -> an open file, from which nothing else can be reached.

The format follows from the first bytes and is forced, so a playlist is never taken for a film. Formats, codecs and
protocols are listed: what is not needed cannot be attacked, and no address or path inside a file is opened.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import av
from av.audio.stream import AudioStream
from av.codec.context import CodecContext, ThreadType
from av.container import InputContainer
from av.video.stream import VideoStream

from serving.errors import BadMedia

#: offset, first bytes, and the demuxer that reads what begins so
Signature = tuple[int, bytes, str]

#: streams of one file; the others are not looked at
_STREAMS = 8
#: bytes from which the streams are described; headers suffice, and a WAV would be read whole
_PROBED = 1 << 16


@contextmanager
def opened(
    data: bytes, kind: str, signatures: Sequence[Signature], codecs: Sequence[str], max_pixels: int
) -> Iterator[InputContainer]:
    """The file, open, while the block runs.

    Raises BadMedia when no signature fits; whatever FFmpeg says of the bytes, here or in the block, becomes BadMedia,
    except that memory ran out (MemoryError), which may not be the file's fault.
    """
    demuxer = next((name for offset, mark, name in signatures if data.startswith(mark, offset)), None)
    if demuxer is None:
        raise BadMedia(f"{kind} of an unknown format, its first bytes are {data[:12]!r}")
    options = {
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(codecs),
        "protocol_whitelist": "none",
        "max_streams": str(_STREAMS),
        "max_pixels": str(max_pixels),
        "threads": "1",
        "probesize": str(_PROBED),
    }
    try:
        with av.open(BytesIO(data), "r", format=demuxer, options=options, metadata_errors="replace") as container:
            yield container
    except (BadMedia, MemoryError):
        raise
    except av.FFmpegError as error:
        raise BadMedia(f"{kind} cannot be decoded: {error.strerror}") from error
    except Exception as error:  # PyAV raises whatever comes to hand on broken bytes
        raise BadMedia(f"{kind} cannot be decoded: {type(error).__name__}: {error}") from error


def prepare(stream: VideoStream | AudioStream, kind: str, codecs: Sequence[str], max_pixels: int) -> None:
    """Decode the stream by one thread. Raises BadMedia when its codec is not one of those."""
    codec: CodecContext | None = stream.codec_context
    if codec is None or codec.codec.name not in codecs:
        raise BadMedia(f"{kind} in a codec that is not read: {'unknown' if codec is None else codec.codec.name}")
    codec.thread_count = 1
    codec.thread_type = ThreadType.NONE
    codec.options = {"max_pixels": str(max_pixels)}
