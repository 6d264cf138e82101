"""Sound bytes -> a log-mel spectrogram, by `sound.py` in the sandbox: FFmpeg is never loaded into this process."""

import numpy as np
from numpy.typing import NDArray

from serving.preprocess.limits import MediaLimits
from serving.preprocess.sandbox import SANDBOX

#: mel bands, and spectra, of a sound as its encoder sees it
MELS = 64
AUDIO_FRAMES = 200
#: what is heard of a sound, and samples a second of it
AUDIO_SECONDS = 4
AUDIO_RATE = 16_000


def decode_audio(data: bytes, limits: MediaLimits) -> NDArray[np.float32]:
    """Log-mel spectrogram [MELS, AUDIO_FRAMES] of the first AUDIO_SECONDS of a WAV, MP3, Ogg, FLAC, AAC, M4A or MP4.

    -1 is silence, 1 a sine of full scale; what is shorter ends in silence. Raises BadMedia when the sound is too large,
    of another format, or broken, or when it ends the decoder.
    """
    dtype = np.dtype(np.float32)
    return SANDBOX.call("serving.preprocess.sound.read_audio", data, limits, dtype=dtype, shape=(MELS, AUDIO_FRAMES))
