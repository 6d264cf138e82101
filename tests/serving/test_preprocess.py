"""Texts of any language become ids; pictures become pixels or one clear refusal."""

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from feature_repo.events import Attribute
from feature_repo.views import MODALITIES
from serving.datasets.clips import video_bytes, wav_bytes
from serving.errors import BadMedia
from serving.preprocess import (
    ATTRIBUTE_BUCKETS,
    ATTRIBUTE_LENGTH,
    ATTRIBUTE_NUMBERS,
    AUDIO_FRAMES,
    FRAMES,
    IMAGE_SIZE,
    MELS,
    NUMBER_PIECES,
    TEXT_BUCKETS,
    TEXT_LENGTH,
    MediaLimits,
    attribute_ids,
    attribute_numbers,
    check_medium,
    decode_image,
    portions,
    prepare_products,
    text_ids,
)
from serving.preprocess.audio import AUDIO_RATE
from serving.preprocess.products import CALL_BYTES, CALL_ROWS
from serving.requests import ProductContent

#: what an attribute may be
ATTRIBUTES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=100)


def picture(colour: object, size: tuple[int, int] = (100, 80), form: str = "PNG", mode: str = "RGB") -> bytes:
    file = BytesIO()
    Image.new(mode, size, colour).save(file, form)  # type: ignore[arg-type]
    return file.getvalue()


@given(st.text(max_size=500))
def test_any_text_becomes_ids(text: str) -> None:
    ids = text_ids(text)
    assert ids.shape == (TEXT_LENGTH,)
    assert ids.dtype == np.int32
    assert ids.min() >= 0
    assert ids.max() < TEXT_BUCKETS


@given(st.text(max_size=500))
def test_padding_is_at_the_end(text: str) -> None:
    there = text_ids(text) > 0
    assert not (np.diff(there.astype(int)) > 0).any()


def test_ids_are_the_same_in_every_process() -> None:
    assert text_ids("白色 mug")[:8].tolist() == [5990, 1732, 5071, 6703, 1579, 3777, 2217, 0]


def test_case_and_width_make_no_difference() -> None:
    assert text_ids("ＷＨＩＴＥ Ｔ－Shirt").tolist() == text_ids("white t-shirt").tolist()


def test_parts_of_a_chinese_title_are_found_without_spaces() -> None:
    asked, written = text_ids("白色T恤"), text_ids("纯棉白色T恤 男款 圆领")
    assert set(asked[asked > 0]) <= set(written[written > 0])


def test_an_endless_text_is_cut() -> None:
    assert (text_ids("a" * 10_000_000) > 0).sum() == 33  # a word of 32 letters and its trigrams


def test_a_text_without_words_has_no_ids() -> None:
    assert not text_ids(" !?… ").any()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_every_format_keeps_its_colour(form: str) -> None:
    pixels = decode_image(picture((200, 30, 40), form=form))
    assert pixels.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[IMAGE_SIZE // 2, IMAGE_SIZE // 2], (200, 30, 40), atol=6)


def test_the_whole_picture_is_kept_on_white() -> None:
    pixels = decode_image(picture("black", size=(200, 50)))
    assert pixels[0].min() == 255
    assert pixels[IMAGE_SIZE // 2].max() == 0


def test_what_is_transparent_is_white() -> None:
    assert decode_image(picture((255, 0, 0, 0), mode="RGBA")).min() == 255


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (picture("red", form="BMP"), "not a picture"),
        (picture("red")[:-30], "cannot be decoded"),
        (picture("red", form="JPEG")[:200], "cannot be decoded"),
        (picture("red", size=(5000, 5000)), "5000 x 5000 pixels"),
        (b"\x89PNG" + bytes(6 << 20), "at most 5242880 are read"),
    ],
    ids=["empty", "svg", "bmp", "cut_png", "cut_jpeg", "too_many_pixels", "too_many_bytes"],
)
def test_a_bad_picture_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadMedia, match=reason):
        decode_image(data)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_picture_is_decoded_or_refused(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
    broken = bytearray(picture((9, 99, 200), size=(16, 16), form=form))
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadMedia):
        assert decode_image(bytes(broken), MediaLimits(max_pixels=10_000)).shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


@given(st.dictionaries(st.text(max_size=20), ATTRIBUTES, max_size=64))
def test_any_attributes_become_ids(attributes: dict[str, Attribute]) -> None:
    ids = attribute_ids("brand", ["a", "b"], attributes)
    assert ids.shape == (ATTRIBUTE_LENGTH,)
    assert ids.min() >= 0
    assert ids.max() < ATTRIBUTE_BUCKETS
    assert not (np.diff((ids > 0).astype(int)) > 0).any()


def pieces(**attributes: Attribute) -> set[int]:
    return set(attribute_ids("", [], attributes).tolist()) - {0}


def test_attribute_ids_are_the_same_in_every_process() -> None:
    assert attribute_ids("Acme", ["tops"], {"颜色": "红色"})[:4].tolist() == [14390, 23356, 12266, 0]


@given(st.dictionaries(st.text(max_size=20), ATTRIBUTES, max_size=64))
def test_any_attributes_become_numbers(attributes: dict[str, Attribute]) -> None:
    numbers = attribute_numbers(attributes)
    assert numbers.shape == (ATTRIBUTE_NUMBERS,)
    assert numbers.dtype == np.float32
    assert not np.isinf(numbers).any()
    turned = dict(reversed(attributes.items()))
    np.testing.assert_array_equal(attribute_numbers(turned), numbers)


def test_numbers_stand_at_their_names_on_a_logarithmic_scale() -> None:
    numbers = attribute_numbers({"year": 1994, "change": -9, "genre": "drama", "new": True, "votes": None})
    there = numbers[np.isfinite(numbers)]
    np.testing.assert_allclose(sorted(there), [-np.log(10), np.log(1995)], rtol=1e-6)
    np.testing.assert_array_equal(np.isfinite(attribute_numbers({"YEAR ": 7, "change": 0})), np.isfinite(numbers))


def test_pieces_of_numbers_have_ids_of_their_own() -> None:
    assert min(pieces(year=1994)) >= NUMBER_PIECES
    assert max(pieces(genre="drama", new=True)) < NUMBER_PIECES


def test_the_order_of_attributes_makes_no_difference() -> None:
    one: dict[str, Attribute] = {"a": 1, "b": "x"}
    other: dict[str, Attribute] = {"b": "x", "a": 1}
    assert attribute_ids("", [], one).tolist() == attribute_ids("", [], other).tolist()


def test_an_attribute_has_all_of_its_values() -> None:
    assert pieces(genre="Drama|comedy |") == pieces(genre="drama") | pieces(genre="comedy")


def test_a_value_belongs_to_its_name() -> None:
    assert not pieces(upper="cotton") & pieces(lining="cotton")
    assert not pieces(waterproof=True) & pieces(waterproof=1)


@pytest.mark.parametrize("nothing", [None, "", " | ", float("nan"), float("inf")])
def test_a_value_that_says_nothing_has_no_piece(nothing: Attribute) -> None:
    assert not pieces(size=nothing)


@pytest.mark.parametrize(
    ("one", "two", "shared"), [(42, 42.0, 2), (1994, 1991, 2), (100, 105, 1), (3, -3, 0), (3, 30, 0)]
)
def test_numbers_share_pieces_with_their_neighbours(one: float, two: float, shared: int) -> None:
    assert len(pieces(size=one)) == 2
    assert len(pieces(size=one) & pieces(size=two)) == shared


def test_a_long_attribute_leaves_room_for_the_others() -> None:
    cast = "|".join(f"actor {n}" for n in range(500))
    assert pieces(cast=cast, year=1994) >= pieces(year=1994)


def test_products_are_masked_by_what_they_have() -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    prepared = prepare_products(
        [
            ProductContent("a", title="mug", image=picture("red")),
            ProductContent(
                "b", brand="Acme", video=video_bytes(frames, 2), audio=wav_bytes(np.zeros(99, np.float32), AUDIO_RATE)
            ),
            ProductContent("c"),
            ProductContent("d", attributes={"size": 3}, image=picture("blue")),
        ]
    )
    assert MODALITIES == ("text", "image", "video", "audio", "attributes")
    assert prepared.mask.tolist() == [[1, 1, 0, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 1]]
    assert prepared.image.shape == (2, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert prepared.image[1, 32, 32].tolist() == [0, 0, 255]
    assert prepared.video.shape == (1, FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert prepared.audio.shape == (1, MELS, AUDIO_FRAMES)


def test_pictures_have_the_size_that_is_asked_for() -> None:
    prepared = prepare_products([ProductContent("a", image=picture("red"))], image_size=100)
    assert prepared.image.shape == (1, 100, 100, 3)
    assert prepared.video.shape == (0, FRAMES, 100, 100, 3)


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_bad_media_names_its_product(modality: str) -> None:
    bad = {
        "image": ProductContent("bad", image=b"?"),
        "video": ProductContent("bad", video=b"?"),
        "audio": ProductContent("bad", audio=b"?"),
    }
    with pytest.raises(BadMedia) as caught:
        prepare_products([ProductContent("good"), bad[modality]])
    assert (caught.value.product_id, caught.value.modality) == ("bad", modality)


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_a_bad_medium_is_found_before_it_is_encoded(modality: str) -> None:
    with pytest.raises(BadMedia):
        check_medium(modality, picture("red")[:-30])


def test_calls_are_bounded_in_rows_and_bytes() -> None:
    plain, filmed = ProductContent("a"), ProductContent("b", video=b"?")
    assert [len(some) for some in portions([plain] * (CALL_ROWS + 1), 64)] == [CALL_ROWS, 1]
    film = 3 * FRAMES * 224**2
    sizes = [len(some) for some in portions([plain, *[filmed] * 100, plain], 224)]
    assert sum(sizes) == 102
    assert max(sizes) * film <= CALL_BYTES + film
    assert len(sizes) == -(-100 // (CALL_BYTES // film))
    assert list(portions([], 64)) == []
