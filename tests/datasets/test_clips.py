"""Drawn clips: what is drawn is what is read, and the same drawing gives the same bytes."""

from __future__ import annotations

import wave
from io import BytesIO

import av
import numpy as np
import pytest

from serving.datasets.clips import video_bytes, wav_bytes


def test_a_video_is_what_was_drawn() -> None:
    frames = np.repeat(np.arange(0, 250, 50), 32 * 48 * 3).reshape(5, 32, 48, 3).astype(np.uint8)
    with av.open(BytesIO(video_bytes(frames, 10)), "r") as container:
        read = [(frame.time, frame.to_ndarray(format="rgb24").astype(int)) for frame in container.decode(video=0)]
    assert [time for time, _ in read] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert np.abs(np.stack([pixels for _, pixels in read]) - frames).max() <= 3


def test_a_sound_is_what_was_drawn_and_clipped() -> None:
    samples = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 7.0], np.float32)
    with wave.open(BytesIO(wav_bytes(samples, 8_000))) as sound:
        assert sound.getframerate() == 8_000
        read = np.frombuffer(sound.readframes(100), "<i2") / 32767
    np.testing.assert_allclose(read, [0, 0.5, -0.5, 1, -1, 1], atol=1e-4)


def test_the_same_drawing_gives_the_same_bytes() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), np.uint8)
    assert video_bytes(frames, 8) == video_bytes(frames.copy(), 8)
    assert wav_bytes(np.ones(9, np.float32), 8_000) == wav_bytes(np.ones(9, np.float32), 8_000)


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (2, 31, 32, 3), (2, 32, 31, 3)])
def test_frames_that_make_no_video(shape: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="frames: expected"):
        video_bytes(np.zeros(shape, np.uint8), 8)
