"""Videos: any format gives the same frames in the right order, and anything wrong gives BadMedia, within bounds."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.datasets.clips import video_bytes
from serving.errors import BadMedia
from serving.preprocess.frames import _SIGNATURES, WORK_PIXELS, _plan, _Timeline, read_video
from serving.preprocess.limits import MediaLimits
from serving.preprocess.video import FRAMES, decode_video
from streams import validation
from tests.serving.foreign_media import VIDEOS, ramp, sound, tone, video, webp

LIMITS = MediaLimits()
SIZE = 32
#: the grey of `ramp` in the middle of each of FRAMES equal parts
MIDDLES = (np.arange(FRAMES) + 0.5) / FRAMES * 255


def greys(frames: np.ndarray) -> list[int]:
    """The brightness in the middle of each frame."""
    return [int(grey) for grey in frames[:, SIZE // 2, SIZE // 2, 0]]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """One video of each kind."""
    return {name: video(name) for name in VIDEOS} | {"webp": webp(ramp())}


@pytest.mark.parametrize("name", [*VIDEOS, "webp"])
def test_every_format_gives_frames_evenly_over_its_duration(files: dict[str, bytes], name: str) -> None:
    frames = decode_video(files[name], LIMITS, SIZE)
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    assert np.abs(greys(frames) - MIDDLES).max() < 20
    assert greys(frames) == sorted(greys(frames))


@pytest.mark.parametrize("name", [*VIDEOS, "webp"])
def test_the_same_bytes_give_the_same_frames_in_the_sandbox_and_outside(files: dict[str, bytes], name: str) -> None:
    frames = [decode_video(files[name], LIMITS, SIZE), decode_video(files[name], LIMITS, SIZE)]
    frames.append(read_video(files[name], LIMITS, SIZE))
    assert (frames[0] == frames[1]).all()
    assert (frames[0] == frames[2]).all()


def test_a_short_clip_repeats_frames() -> None:
    assert greys(read_video(video("mp4-mpeg4", ramp(1)), LIMITS, SIZE)) == [0] * FRAMES
    three = greys(read_video(video("mov-mjpeg", ramp(3)), LIMITS, SIZE))
    assert len(set(three)) == 3
    assert [three.count(grey) for grey in sorted(set(three))] == [3, 2, 3]


def test_a_frame_that_is_shown_long_stands_for_all_its_time() -> None:
    frames = greys(read_video(webp(ramp(3), [90, 1420, 90]), LIMITS, SIZE))
    assert frames == [127] * FRAMES


def test_the_whole_frame_stands_on_white() -> None:
    wide = read_video(video_bytes(np.zeros((2, 16, 64, 3), np.uint8), 2), LIMITS, SIZE)
    assert wide[:, : SIZE // 4].min() == 255
    assert wide[:, 3 * SIZE // 4 :].min() == 255
    assert wide[:, SIZE // 2].max() < 30


def test_what_is_transparent_is_white() -> None:
    file = BytesIO()
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(file, "WEBP", lossless=True)
    assert read_video(file.getvalue(), LIMITS, SIZE).min() == 255


def test_colour_survives() -> None:
    red = np.zeros((4, 32, 32, 3), np.uint8) + np.array([200, 30, 40], np.uint8)
    for data in (video_bytes(red, 4), video("mp4-h264", red), video("webm-vp9", red), webp(red)):
        found = read_video(data, LIMITS, SIZE)[:, SIZE // 2, SIZE // 2].astype(int)
        assert np.abs(found - [200, 30, 40]).max() < 12


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_turned_video_is_turned_back(degrees: int) -> None:
    """As phones film: the file says by how much to turn what it holds."""
    half = np.zeros((4, 64, 64, 3), np.uint8)
    half[:, :32] = 255
    plain = read_video(video("mp4-mpeg4", half), LIMITS, SIZE)
    turned = read_video(video("mp4-mpeg4", half, degrees=degrees), LIMITS, SIZE)
    expected = np.rot90(plain, degrees // 90, axes=(1, 2))
    assert np.abs(turned.astype(int) - expected).max() < 40


# --- keyframes and bounds of work ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mp4-h264", "mkv-h264", "avi-mpeg4", "webm-vp9"])
@pytest.mark.parametrize("apart", ["12", "1000"])
@pytest.mark.parametrize("frames", [2000, 100, 1])
def test_frames_stay_in_order_wherever_keyframes_are(name: str, apart: str, frames: int) -> None:
    data = video(name, ramp(600), 30, g=apart)
    found = greys(read_video(data, MediaLimits(max_frames=frames), SIZE))
    assert found == sorted(found)
    if frames == 2000:
        assert np.abs(found - MIDDLES).max() < 8


def test_frames_that_follow_a_keyframe_but_are_shown_before_it() -> None:
    """An open group of pictures: its first frames need the group before."""
    data = video("mp4-h264", ramp(300), 30, x264="open-gop=1:keyint=24:bframes=6:b-pyramid=2")
    assert np.abs(greys(read_video(data, LIMITS, SIZE)) - MIDDLES).max() < 8


@given(
    keys=st.lists(st.booleans(), min_size=1, max_size=300),
    budget=st.integers(FRAMES, 400),
    shuffled=st.randoms(use_true_random=False),
)
def test_a_plan_is_in_order_whole_and_within_its_budget(keys: list[bool], budget: int, shuffled: Random) -> None:
    times = np.arange(len(keys)) * 10
    place = list(range(len(keys)))
    for at in range(0, len(keys) - 1, 2):  # B-frames: decoded after what is shown later
        if not keys[at + 1] and shuffled.random() < 0.3:
            place[at], place[at + 1] = place[at + 1], place[at]
    timeline = _Timeline(times[place], np.array([True, *keys[1:]]), 0.001)
    runs = _plan(timeline, LIMITS, budget)
    wanted = sorted((place, time) for run in runs for time, place in run.wanted)
    assert [place for place, _ in wanted] == list(range(FRAMES))
    assert [time for _, time in wanted] == sorted(time for _, time in wanted)
    assert all(one.last <= other.first for one, other in pairwise(runs))
    for run in runs:
        assert timeline.keys[run.first]
        assert not timeline.keys[run.first + 1 : run.last].any()
        assert {time for time, _ in run.wanted} <= set(timeline.times[run.first : run.last].tolist())
    reach = sum(max(int((timeline.times[run.first : run.last] <= run.wanted[-1][0]).sum()), 1) for run in runs)
    assert reach <= budget + len(runs)


def test_work_is_bounded_by_pixels_too() -> None:
    """A single run of large frames is read only as far as WORK_PIXELS allow."""
    side = 2048
    timeline = _Timeline(np.arange(1000) * 40, np.arange(1000) == 0, 0.001)
    budget = WORK_PIXELS // side**2
    (run,) = _plan(timeline, LIMITS, budget)
    assert run.wanted[-1][0] // 40 <= budget < 1000


# --- what is not taken ---------------------------------------------------------------------------------------------


def picture(form: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (16, 16)).save(file, form)
    return file.getvalue()


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_a_still_picture_of_an_animated_format_is_a_video_of_one_frame() -> None:
    for form in ("GIF", "WEBP"):
        assert read_video(picture(form), LIMITS, SIZE).max() == 0


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
def test_a_picture_is_no_video(form: str) -> None:
    with pytest.raises(BadMedia, match="unknown format"):
        decode_video(picture(form), LIMITS, SIZE)


@pytest.mark.parametrize("name", ["wav", "mp3", "flac", "aac"])
def test_a_sound_is_no_video(name: str) -> None:
    with pytest.raises(BadMedia, match="unknown format"):
        decode_video(sound(name), LIMITS, SIZE)


@pytest.mark.parametrize("name", ["m4a", "ogg-opus"])
def test_a_container_with_sound_only_is_no_video(name: str) -> None:
    with pytest.raises(BadMedia, match="no video"):
        decode_video(sound(name), LIMITS, SIZE)


def test_the_sound_of_a_video_is_left_alone() -> None:
    silent = read_video(video("mkv-h264"), LIMITS, SIZE)
    assert (read_video(video("mkv-h264", samples=tone(1000, 2, 48_000)), LIMITS, SIZE) == silent).all()


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (b"", LIMITS, "unknown format"),
        (b"\x00" * 1000, LIMITS, "unknown format"),
        (b"\x00\x00\x00\x18ftypmp42", LIMITS, "cannot be decoded"),
        (b"\x1aE\xdf\xa3" + b"\xff" * 100, LIMITS, "cannot be decoded"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", LIMITS, "cannot be decoded"),
        (video_bytes(ramp(), 24), MediaLimits(max_bytes=100), "at most 100 are read"),
        (video_bytes(ramp(), 24), MediaLimits(max_pixels=48 * 64 - 1), "more than 3071 pixels"),
        (video_bytes(ramp(), 24), MediaLimits(max_seconds=1.9), "video of 2 s, at most 1.9 s"),
        (webp(ramp()), MediaLimits(max_bytes=100), "at most 100 are read"),
        (webp(ramp()), MediaLimits(max_pixels=48 * 64 - 1), "64 x 48 pixels"),
        (webp(ramp()), MediaLimits(max_seconds=1), "at most 1 s"),
        (webp(ramp())[:-200], LIMITS, "cannot be decoded"),
        (patched(video("gif"), 6, b"\xff" * 4), LIMITS, "pixels"),
    ],
)
def test_what_is_too_large_foreign_or_broken_says_why(data: bytes, limits: MediaLimits, reason: str) -> None:
    with pytest.raises(BadMedia, match=reason):
        decode_video(data, limits, SIZE)


def test_a_video_without_a_packet() -> None:
    whole = video("webm-vp8")
    with pytest.raises(BadMedia):
        decode_video(whole[: whole.index(b"\x1fC\xb6u")], LIMITS, SIZE)  # the first cluster


@pytest.mark.parametrize("count", [1 << 20, 1 << 25, 1 << 30, (1 << 32) - 1])
def test_a_file_that_declares_more_frames_than_it_has(count: int) -> None:
    data = video("mp4-mpeg4")
    sizes = data.index(b"stsz") + 8
    with pytest.raises(BadMedia):
        decode_video(patched(data, sizes, (1).to_bytes(4, "big") + count.to_bytes(4, "big")), LIMITS, SIZE)


@pytest.mark.parametrize("field", [b"mvhd", b"mdhd", b"tkhd"])
def test_a_declared_duration_is_not_believed(field: bytes) -> None:
    """What counts is when frames are shown."""
    data = video_bytes(ramp(), 24)
    duration = data.index(field) + (24 if field == b"tkhd" else 20)
    lying = patched(data, duration, b"\x7f\xff\xff\xff")
    assert (read_video(lying, LIMITS, SIZE) == read_video(data, LIMITS, SIZE)).all()


def playlists(place: str) -> list[bytes]:
    """Files that name another one, which would be opened by a careless reader."""
    return [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{place}\n#EXT-X-ENDLIST\n".encode(),
        f"ffconcat version 1.0\nfile '{place}'\n".encode(),
        f"file:{place}".encode(),
        f'<?xml version="1.0"?><MPD><BaseURL>{place}</BaseURL></MPD>'.encode(),
        f"v=0\nm=video 1 RTP/AVP 96\nc=IN IP4 {place}\n".encode(),
    ]


def test_nothing_that_a_file_names_is_opened(tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("secret") / "film.mp4"
    other.write_bytes(video_bytes(ramp(), 24))
    for place in (str(other), f"file://{other}", f"file:{other}", "http://127.0.0.1:9/film.mp4"):
        for playlist in playlists(place):
            for mark in (
                b"",
                b"\x00\x00\x00\x18ftypmp42",
                b"\x1aE\xdf\xa3",
                b"RIFF\xff\xff\xff\xffAVI ",
                b"OggS",
                b"GIF89a",
            ):
                with pytest.raises(BadMedia):
                    read_video(mark + playlist, LIMITS, SIZE)


def test_validation_takes_what_is_read_here() -> None:
    """It looks at the first bytes, too, long before: a message with another medium never comes here."""
    assert {(at, mark) for at, mark, _ in _SIGNATURES} | {(8, b"WEBP")} == set(validation.SIGNATURES["video"])


# --- any bytes -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    mark=st.sampled_from(
        [b"", b"\x00\x00\x00\x18ftyp", b"\x1aE\xdf\xa3", b"RIFF....AVI ", b"OggS", b"GIF89a", b"RIFF....WEBP"]
    ),
    data=st.binary(max_size=300),
)
def test_random_bytes_are_bad_media_or_a_video(mark: bytes, data: bytes) -> None:
    with suppress(BadMedia):
        assert decode_video(mark + data, LIMITS, SIZE).shape == (FRAMES, SIZE, SIZE, 3)


@settings(deadline=None)
@given(name=st.sampled_from([*VIDEOS, "webp"]), data=st.data())
def test_cut_and_flipped_files_are_bad_media_or_a_video(
    files: dict[str, bytes], name: str, data: st.DataObject
) -> None:
    whole = files[name]
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)), "length")])
    for at, bit in data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 7)), max_size=20), "flips"):
        if at < len(broken):
            broken[at] ^= 1 << bit
    with suppress(BadMedia):
        assert decode_video(bytes(broken), LIMITS, SIZE).shape == (FRAMES, SIZE, SIZE, 3)
