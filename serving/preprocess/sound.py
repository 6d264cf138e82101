"""Sound bytes -> a log-mel spectrogram of its first seconds, in NumPy. Runs in the sandbox."""

from collections.abc import Sequence
from functools import cache
from itertools import chain

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import ArrayLike, NDArray

from serving.datasets.clips import wav_bytes
from serving.errors import BadMedia
from serving.preprocess.audio import AUDIO_FRAMES, AUDIO_RATE, AUDIO_SECONDS, MELS
from serving.preprocess.container import Signature, opened, prepare
from serving.preprocess.limits import MediaLimits

#: 25 ms and 20 ms of samples
_WINDOW = 400
_HOP = 320
_FFT = 512
_SAMPLES = AUDIO_RATE * AUDIO_SECONDS
#: where the lowest band begins and the highest ends, Hz: those of VGGish (Hershey et al. 2017, arXiv:1609.09430)
_LOWEST, _HIGHEST = 125.0, 7500.0
#: what counts as silence, dB below a sine of full scale
_FLOOR_DB = -80.0

_CHANNELS = 8
_RATES = range(4_000, 384_001)
#: sounds are not looked at; the limit is that of FFmpeg for the picture that a file may bring along
_COVER_PIXELS = 1 << 24

_SIGNATURES: Sequence[Signature] = (
    (8, b"WAVE", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (4, b"ftyp", "mov"),
)
_CODECS = (
    *("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_s16be", "pcm_alaw", "pcm_mulaw"),
    *("mp3float", "mp3", "aac", "alac", "flac", "vorbis", "opus"),
)


def read_audio(data: bytes, limits: MediaLimits) -> NDArray[np.float32]:
    """Log-mel spectrogram [MELS, AUDIO_FRAMES] of the first AUDIO_SECONDS of a WAV, MP3, Ogg, FLAC, AAC, M4A or MP4.

    Channels are mixed down; what is shorter ends in silence. Raises BadMedia when the sound is too large, of another
    format, or broken; MemoryError.
    """
    return log_mel(_samples(data, limits))


def warm_up() -> None:
    """Read one sound, so that everything is imported."""
    read_audio(wav_bytes(np.zeros(8_000, np.float32), 8_000), MediaLimits())


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spectrogram [MELS, AUDIO_FRAMES] of samples [n] at AUDIO_RATE, full scale = 1: -1 is silence, 1 a loud sine.

    Power of Hann windows of 25 ms, every 20 ms, in mel bands, in dB: the floor of -80 dB maps to -1, a sine of full
    scale (0 dB) to 1. The scale is absolute, not by clip: how loud a sound is beside its own silence, and whether there
    is any, is information, and a nearly silent clip would otherwise be noise blown up.
    """
    padded = np.zeros(_HOP * (AUDIO_FRAMES - 1) + _WINDOW)
    kept = samples[:_SAMPLES]
    padded[: len(kept)] = kept
    window = np.hanning(_WINDOW + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * window
    # scaled so that a sine of amplitude 1 has power 1 in its bin
    power = np.abs(np.fft.rfft(frames, _FFT) * (2 / window.sum())) ** 2
    decibels = 10 * np.log10(np.maximum(_filterbank() @ power.T, 10 ** (_FLOOR_DB / 10)))
    loudness: NDArray[np.float32] = np.minimum(1 - 2 * decibels / _FLOOR_DB, 1.0).astype(np.float32)
    return loudness


def mel(hertz: ArrayLike) -> NDArray[np.float64]:
    """Pitch in mel, 2595 log10(1 + f / 700): O'Shaughnessy, Speech Communication (1987), and the HTK book."""
    pitch: NDArray[np.float64] = 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)
    return pitch


@cache
def _filterbank() -> NDArray[np.float64]:
    """Triangles [MELS, bins], evenly apart in mel: each is 1 at its centre and 0 at those of its neighbours."""
    bins = mel(np.fft.rfftfreq(_FFT, 1 / AUDIO_RATE))
    edges = np.linspace(float(mel(_LOWEST)), float(mel(_HIGHEST)), MELS + 2)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return triangles


def _samples(data: bytes, limits: MediaLimits) -> NDArray[np.float32]:
    """Samples [n] at AUDIO_RATE of the first stream of sound, n at most _SAMPLES and at least 1."""
    if len(data) > limits.max_bytes:
        raise BadMedia(f"sound of {len(data)} bytes, at most {limits.max_bytes} are read")
    heard: list[NDArray[np.float32]] = []
    missing = _SAMPLES
    with opened(data, "sound", _SIGNATURES, _CODECS, _COVER_PIXELS) as container:
        if not container.streams.audio:
            raise BadMedia("no sound in the file")
        stream = container.streams.audio[0]
        prepare(stream, "sound", _CODECS, _COVER_PIXELS)
        if stream.rate not in _RATES or not 1 <= stream.channels <= _CHANNELS:
            raise BadMedia(
                f"sound of {stream.channels} channels at {stream.rate} Hz, at most {_CHANNELS} channels"
                f" at {_RATES[0]} to {_RATES[-1]} Hz are decoded"
            )
        # interleaved: of a planar frame of 8 channels, PyAV would read more planes than it has
        resampler = AudioResampler(format="flt", rate=AUDIO_RATE)
        for frame in chain(container.decode(stream), [None]):  # None: what the resampler holds back
            for piece in resampler.resample(frame):
                if piece is not None:
                    heard.append(_mono(piece)[:missing])
                    missing -= heard[-1].size
            if missing == 0:
                break
    if missing == _SAMPLES:
        raise BadMedia("sound of no length")
    samples = np.concatenate(heard)
    if not np.isfinite(samples).all():
        raise BadMedia("sound with samples that are no numbers")
    return samples


def _mono(frame: AudioFrame) -> NDArray[np.float32]:
    """Samples [n] of interleaved ones: the mean, while FFmpeg's own mix makes two equal channels louder than one."""
    mixed: NDArray[np.float32] = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(1, dtype=np.float32)
    return mixed
