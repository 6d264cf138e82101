"""Sounds, made: what sounds can be told from them; how loud, how high, when and how long varies."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from serving.datasets.clips import wav_bytes

Samples: TypeAlias = NDArray[np.float64]

#: what somebody may ask for, in English and in Chinese
SOUND_NAMES: Final = {
    "bell": "铃",
    "drum": "鼓",
    "whistle": "哨子",
    "rain": "雨",
    "guitar": "吉他",
    "engine": "马达",
}
#: samples a second, and seconds of a sound
RATE: Final = 16_000
SECONDS: Final = 1.5


def sound(name: str, seed: int) -> bytes:
    """A WAV of SECONDS seconds of one of SOUND_NAMES."""
    random = np.random.default_rng(seed)
    time = np.arange(int(RATE * SECONDS)) / RATE
    since = time - random.uniform(0, 0.4)
    wave = _MAKERS[name](np.maximum(since, 0), random) * (since >= 0)
    loud = random.uniform(0.1, 0.8) * wave / np.abs(wave).max()
    return wav_bytes((loud + random.normal(0, 0.002, len(time))).astype(np.float32), RATE)


def _bell(since: Samples, random: np.random.Generator) -> Samples:
    """Partials out of tune with each other, that die away one after the other."""
    pitch = random.uniform(600, 1200)
    partials = ((1.0, 1.0, 2.0), (2.76, 0.6, 4.0), (5.4, 0.3, 7.0))
    return _sum(
        strength * np.exp(-fading * since) * np.sin(2 * np.pi * pitch * times * since)
        for times, strength, fading in partials
    )


def _drum(since: Samples, random: np.random.Generator) -> Samples:
    """A low beat that sinks, twice or three times, with the noise of the stick."""
    pitch, pause = random.uniform(70, 120), random.uniform(0.25, 0.45)
    own = np.mod(since, pause)
    beat: Samples = np.sin(2 * np.pi * pitch * (own + 0.04 * (1 - np.exp(-20 * own)))) * np.exp(-12 * own)
    stick: Samples = random.normal(size=len(since)) * np.exp(-60 * own)
    return beat + 0.3 * stick


def _whistle(since: Samples, random: np.random.Generator) -> Samples:
    """One high tone that trembles."""
    pitch, tremble = random.uniform(2000, 3200), random.uniform(20, 40)
    wave: Samples = np.sin(2 * np.pi * pitch * since + 3 * np.sin(2 * np.pi * tremble * since))
    return wave


def _rain(since: Samples, random: np.random.Generator) -> Samples:
    """Noise all the time, with drops in it."""
    drops = random.random(len(since)) < random.uniform(0.002, 0.006)
    return 0.4 * random.normal(size=len(since)) + np.convolve(3 * drops, np.exp(-np.arange(80) / 15), "same")


def _guitar(since: Samples, random: np.random.Generator) -> Samples:
    """A plucked string: overtones in tune, the higher the shorter."""
    pitch = random.uniform(110, 330)
    return _sum(np.exp(-1.2 * n * since) * np.sin(2 * np.pi * pitch * n * since) / n for n in range(1, 9))


def _engine(since: Samples, random: np.random.Generator) -> Samples:
    """A low buzz that does not end."""
    pitch = random.uniform(45, 90)
    buzz = _sum(np.sin(2 * np.pi * pitch * n * since + n * n) / n**0.5 for n in range(1, 13))
    return buzz * (1 + 0.3 * np.sin(2 * np.pi * random.uniform(6, 12) * since))


def _sum(waves: Iterable[Samples]) -> Samples:
    total: Samples = np.stack(list(waves)).sum(0)
    return total


_MAKERS: Final[Mapping[str, Callable[[Samples, np.random.Generator], Samples]]] = {
    "bell": _bell,
    "drum": _drum,
    "whistle": _whistle,
    "rain": _rain,
    "guitar": _guitar,
    "engine": _engine,
}
