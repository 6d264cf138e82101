"""Sounds: any format gives the same spectrogram, and anything wrong gives BadMedia, within bounds."""

from __future__ import annotations

import wave
from contextlib import suppress
from io import BytesIO

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.datasets.clips import video_bytes, wav_bytes
from serving.errors import BadMedia
from serving.preprocess.audio import AUDIO_FRAMES, AUDIO_RATE, AUDIO_SECONDS, MELS, decode_audio
from serving.preprocess.limits import MediaLimits
from serving.preprocess.sound import _SIGNATURES, _filterbank, log_mel, mel, read_audio
from streams import validation
from tests.serving.foreign_media import SOUNDS, ramp, sound, tone, video

LIMITS = MediaLimits()


def band(hertz: float) -> int:
    """The band whose centre is nearest to a frequency."""
    centres = np.linspace(float(mel(125.0)), float(mel(7500.0)), MELS + 2)[1:-1]
    return int(np.abs(centres - mel(hertz)).argmin())


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """One sound of each kind: a second of 1 kHz."""
    return {name: sound(name) for name in SOUNDS}


@pytest.mark.parametrize("name", SOUNDS)
def test_every_format_gives_the_same_tone(files: dict[str, bytes], name: str) -> None:
    spectrum = decode_audio(files[name], LIMITS)
    assert spectrum.shape == (MELS, AUDIO_FRAMES)
    assert spectrum.dtype == np.float32
    assert spectrum[:, 10:45].argmax(0).tolist() == [band(1000)] * 35
    # half of full scale is 6 dB down
    assert np.abs(spectrum[band(1000), 10:45] - (1 - 6 / 40)).max() < 0.02
    assert spectrum[:, 60:].max() == -1


@pytest.mark.parametrize("name", SOUNDS)
def test_the_same_bytes_give_the_same_sound_in_the_sandbox_and_outside(files: dict[str, bytes], name: str) -> None:
    heard = [decode_audio(files[name], LIMITS), decode_audio(files[name], LIMITS), read_audio(files[name], LIMITS)]
    assert (heard[0] == heard[1]).all()
    assert (heard[0] == heard[2]).all()


@pytest.mark.parametrize("hertz", [200.0, 440.0, 1000.0, 3000.0, 7000.0])
def test_pitch_is_the_band(hertz: float) -> None:
    assert log_mel(tone(hertz, 4, AUDIO_RATE))[:, 50].argmax() == band(hertz)


def test_every_band_hears_something() -> None:
    assert _filterbank().sum(1).min() > 0.3
    assert _filterbank().max() <= 1


def test_mel_is_a_thousand_at_a_thousand_hertz() -> None:
    assert abs(float(mel(1000.0)) - 1000) < 0.1


def test_loudness_is_absolute() -> None:
    """Half the amplitude is 6.02 dB less, of a range of 80 dB that maps to 2."""
    loud, soft = (log_mel(scale * tone(1000, 4, AUDIO_RATE)) for scale in (1.0, 0.5))
    np.testing.assert_allclose((loud - soft)[band(1000)], 20 * np.log10(2) / 40, atol=1e-4)


def test_silence_is_the_floor_and_noise_stays_in_range() -> None:
    assert log_mel(np.zeros(100, np.float32)).max() == -1
    noise = np.random.default_rng(0).uniform(-1, 1, AUDIO_RATE * 4).astype(np.float32)
    for samples in (noise, np.sign(noise), np.ones_like(noise)):
        assert -1 <= log_mel(samples).min() <= log_mel(samples).max() <= 1


def test_only_the_first_seconds_are_heard() -> None:
    both = np.concatenate([tone(500, AUDIO_SECONDS, AUDIO_RATE), tone(3000, 2, AUDIO_RATE)])
    whole, first = (read_audio(wav_bytes(samples, AUDIO_RATE), LIMITS) for samples in (both, both[: 4 * AUDIO_RATE]))
    assert (whole == first).all()
    assert set(whole[:, :-1].argmax(0).tolist()) == {band(500)}


def test_channels_are_mixed_to_their_mean() -> None:
    left = tone(1000, 1, AUDIO_RATE)
    pairs = {"same": (left, left), "one": (left, 0 * left), "opposite": (left, -left)}
    heard = {name: float(read_audio(interleaved(*pair), LIMITS)[band(1000), 20]) for name, pair in pairs.items()}
    alone = float(read_audio(wav_bytes(left, AUDIO_RATE), LIMITS)[band(1000), 20])
    assert heard["same"] == pytest.approx(alone, abs=1e-3)
    assert heard["one"] == pytest.approx(alone - 20 * np.log10(2) / 40, abs=1e-3)
    assert heard["opposite"] == -1


def interleaved(*channels: NDArray[np.float32], rate: int = AUDIO_RATE) -> bytes:
    """A WAV of several channels."""
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(len(channels))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.stack(channels, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


@pytest.mark.parametrize("channels", range(1, 9))
def test_up_to_eight_channels(channels: int) -> None:
    heard = read_audio(interleaved(*[tone(1000, 1, AUDIO_RATE)] * channels), LIMITS)
    assert heard[band(1000), 20] == pytest.approx(1 - 6.02 / 40, abs=0.01)


@pytest.mark.parametrize("encoder", ["flac", "libopus"])
def test_eight_planes(encoder: str) -> None:
    """Decoders that give a plane for each channel."""
    file = BytesIO()
    with av.open(file, "w", format="flac" if encoder == "flac" else "ogg") as out:
        stream = out.add_stream(encoder, rate=48_000, layout="7.1")
        assert isinstance(stream, av.AudioStream)
        samples = np.repeat(tone(1000, 1, 48_000), 8)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="7.1")
        frame.sample_rate, frame.pts = 48_000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert decode_audio(file.getvalue(), LIMITS)[:, 20].argmax() == band(1000)


def test_the_sound_of_a_video_counts_when_it_is_given_as_sound() -> None:
    film = video("mp4-mpeg4", samples=tone(1000, 2, 48_000))
    assert read_audio(film, LIMITS)[:, 20].argmax() == band(1000)


def test_a_large_tag_before_the_sound() -> None:
    """Music comes with pictures of its cover, in front."""
    content = b"PRIV" + (300_000).to_bytes(4, "big") + b"\x00\x00" + b"x" * 300_000
    size = bytes(len(content) >> shift & 0x7F for shift in (21, 14, 7, 0))
    plain = sound("mp3")
    old = 10 + int.from_bytes(bytes(plain[6:10]), "big")  # its own tag is shorter than 128 bytes
    tagged = b"ID3\x03\x00\x00" + size + content + plain[old:]
    assert (read_audio(tagged, LIMITS) == read_audio(plain, LIMITS)).all()


# --- what is not taken ---------------------------------------------------------------------------------------------


def header(data: bytes, channels: int, rate: int) -> bytes:
    """A WAV that says so of itself."""
    at = data.index(b"fmt ") + 10
    return data[:at] + channels.to_bytes(2, "little") + rate.to_bytes(4, "little") + data[at + 6 :]


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (b"", LIMITS, "unknown format"),
        (b"\x00" * 1000, LIMITS, "unknown format"),
        (b"RIFF\x00\x00\x00\x00WAVE", LIMITS, "cannot be decoded"),
        (b"fLaC", LIMITS, "cannot be decoded"),
        (b"OggS", LIMITS, "cannot be decoded"),
        (b"ID3", LIMITS, "cannot be decoded"),
        (wav_bytes(np.zeros(0, np.float32), 16_000), LIMITS, "no length|cannot be decoded"),
        (sound("wav"), MediaLimits(max_bytes=100), "at most 100 are read"),
        (header(sound("wav"), 1, 0xFFFFFFFF), LIMITS, "cannot be decoded"),
        (header(sound("wav"), 1, 3_999), LIMITS, "3999 Hz"),
        (header(sound("wav"), 1, 400_000), LIMITS, "400000 Hz"),
        (header(sound("wav"), 9, 44_100), LIMITS, "9 channels"),
        (header(sound("wav"), 0xFFFF, 44_100), LIMITS, "channels|cannot be decoded"),
        (header(sound("wav"), 0, 44_100), LIMITS, "0 channels|cannot be decoded"),
        (video_bytes(ramp(), 24), LIMITS, "no sound"),
        (video("webm-vp8"), LIMITS, "unknown format"),
        (video("gif"), LIMITS, "unknown format"),
        (video("ogg-vp8"), LIMITS, "no sound"),
    ],
)
def test_what_is_too_large_foreign_or_broken_says_why(data: bytes, limits: MediaLimits, reason: str) -> None:
    with pytest.raises(BadMedia, match=reason):
        decode_audio(data, limits)


def test_samples_that_are_no_numbers() -> None:
    data = sound("wav-float")
    start = data.index(b"data") + 8
    with pytest.raises(BadMedia, match="no numbers"):
        decode_audio(data[:start] + np.full(8_000, np.nan, "<f4").tobytes(), LIMITS)


def test_validation_takes_what_is_read_here() -> None:
    """It looks at the first bytes, too, long before: a message with another medium never comes here."""
    assert {(at, mark) for at, mark, _ in _SIGNATURES} == set(validation.SIGNATURES["audio"])


@settings(deadline=None)
@given(
    mark=st.sampled_from([b"", b"RIFF....WAVEfmt ", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf1", b"....ftyp"]),
    data=st.binary(max_size=300),
)
def test_random_bytes_are_bad_media_or_a_sound(mark: bytes, data: bytes) -> None:
    with suppress(BadMedia):
        assert np.isfinite(decode_audio(mark + data, LIMITS)).all()


@settings(deadline=None)
@given(name=st.sampled_from([*SOUNDS]), data=st.data())
def test_cut_and_flipped_files_are_bad_media_or_a_sound(
    files: dict[str, bytes], name: str, data: st.DataObject
) -> None:
    whole = files[name]
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)), "length")])
    for at, bit in data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 7)), max_size=20), "flips"):
        if at < len(broken):
            broken[at] ^= 1 << bit
    with suppress(BadMedia):
        heard = decode_audio(bytes(broken), LIMITS)
        assert -1 <= heard.min() <= heard.max() <= 1
