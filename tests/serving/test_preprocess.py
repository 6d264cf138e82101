"""Texts of any language become ids; pictures become pixels or one clear refusal."""

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from feature_repo.views import MODALITIES
from serving.errors import BadMedia
from serving.preprocess import (
    IMAGE_SIZE,
    TEXT_BUCKETS,
    TEXT_LENGTH,
    MediaLimits,
    decode_image,
    prepare_products,
    text_ids,
)
from serving.requests import ProductContent


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


def test_products_are_masked_by_what_they_have() -> None:
    prepared = prepare_products(
        [
            ProductContent("a", title="mug", image=picture("red")),
            ProductContent("b", title="mug", video=b"not looked at", audio=b"not looked at"),
            ProductContent("c"),
        ]
    )
    assert MODALITIES == ("text", "image", "video", "audio", "attributes")
    assert prepared.mask.tolist() == [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_bad_media_names_its_product() -> None:
    with pytest.raises(BadMedia) as caught:
        prepare_products([ProductContent("good"), ProductContent("bad", image=b"?")])
    assert (caught.value.product_id, caught.value.modality) == ("bad", "image")
