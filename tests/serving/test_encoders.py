"""Each encoder learns, in seconds, a task that only it can solve; and the product tower puts them side by side."""

from collections.abc import Callable, Mapping, Sequence
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.events import Attribute
from feature_repo.views import EMBEDDING_DIM, LIKENESS_DIM, MODALITIES, SLOTS
from serving.datasets.drawing import COLOURS, OUTLINES, draw
from serving.datasets.shirts import COLOUR_NAMES
from serving.model.config import ModelConfig, TextForm
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.model.encoders.attributes import AttributesEncoder
from serving.model.encoders.audio import AudioEncoder
from serving.model.encoders.image import FEATURES, ImageEncoder
from serving.model.encoders.tastes import FEW, FEWEST, Met, stretch
from serving.model.encoders.text import TextEncoder
from serving.model.encoders.video import VideoEncoder
from serving.preprocess import (
    ATTRIBUTE_LENGTH,
    ATTRIBUTE_NUMBERS,
    AUDIO_FRAMES,
    FRAMES,
    MELS,
    PreparedProducts,
    attribute_ids,
    attribute_numbers,
    decode_image,
    prepare_products,
    prepare_texts,
)
from serving.preprocess.audio import AUDIO_RATE
from serving.preprocess.sound import log_mel
from serving.requests import ProductContent

IMAGE, VIDEO, AUDIO = (MODALITIES.index(name) for name in ("image", "video", "audio"))

#: inputs of an encoder, and which class each belongs to
Examples = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def reproducible() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)


def accuracy(
    encoder: Callable[[Tensor], Tensor], taught: Examples, asked: Examples, steps: int = 150, batch: int = 32
) -> float:
    """Share of the asked examples that are told right after `steps` batches of the taught ones."""
    classes = nn.Linear(EMBEDDING_DIM, int(taught[1].max()) + 1)
    parameters = [*classes.parameters()]
    if isinstance(encoder, nn.Module):
        parameters += encoder.parameters()
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        some = torch.randint(len(taught[1]), (batch,))
        loss = F.cross_entropy(8 * classes(encoder(taught[0][some])), taught[1][some])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        slower.step()
    with torch.inference_mode():
        told = classes(encoder(asked[0])).argmax(1)
    return float((told == asked[1]).float().mean())


# --- text -----------------------------------------------------------------------------------------------------------

ENGLISH = ("red", "blue", "green", "white", "black", "pink")


def outfits(seed: int, held_out: bool) -> Examples:
    """Texts that name the colours of a shirt and of trousers; asked is which one the shirt has. Pairs of colours that
    are held out are in no text that is not."""
    random = Random(seed)
    pairs = [(a, b) for a in range(len(ENGLISH)) for b in range(len(ENGLISH)) if a != b]
    pairs = [pair for n, pair in enumerate(pairs) if (n % 5 == 0) == held_out]
    texts, labels = [], []
    for _ in range(400):
        shirt, trousers = random.choice(pairs)
        first, second = ENGLISH[shirt], ENGLISH[trousers]
        english = f"{random.choice(('', 'new ', 'soft '))}{first} shirt {second} pants"
        chinese = f"{COLOUR_NAMES[first]} 衬衫 {COLOUR_NAMES[second]} 长裤"
        texts.append(random.choice((english, chinese)))
        labels.append(shirt)
    ids = prepare_texts(texts)
    return torch.from_numpy(ids[:, : (ids > 0).sum(1).max()]), torch.tensor(labels)


@pytest.mark.parametrize("reader", ["transformer", "bilstm"])
def test_word_order_is_read(reader: str) -> None:
    """ "red shirt blue pants" is not "blue shirt red pants", in English and in Chinese."""
    assert accuracy(TextEncoder(reader), outfits(1, held_out=False), outfits(2, held_out=True), 200) > 0.85


def test_a_bag_of_pieces_knows_no_order() -> None:
    assert accuracy(TextEncoder("pieces"), outfits(1, held_out=False), outfits(2, held_out=True), 200) < 0.65


@pytest.mark.parametrize("reader", ["pieces", "transformer", "bilstm"])
def test_padding_changes_nothing(reader: str) -> None:
    encoder = TextEncoder(reader).eval()
    ids = torch.from_numpy(prepare_texts(["red mug", "纯棉白色T恤 男款 圆领", ""]))
    with torch.inference_mode():
        whole, trimmed, alone = encoder(ids), encoder(ids[:, :20]), encoder(ids[:1, :20])
    torch.testing.assert_close(trimmed, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, whole[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.norm(dim=1), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)


# --- image ----------------------------------------------------------------------------------------------------------


def garments(seed: int, count: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Drawn garments at a size, their colours and their cuts."""
    random = Random(seed)
    looks = [(random.randrange(len(COLOURS)), random.randrange(len(OUTLINES))) for _ in range(count)]
    pictures = [draw(list(OUTLINES)[cut], list(COLOURS)[colour], random) for colour, cut in looks]
    pixels = np.stack([decode_image(picture, size=size) for picture in pictures])
    colours, cuts = torch.tensor(looks).T
    return torch.from_numpy(pixels), colours, cuts


@pytest.mark.parametrize("size", [64, 100, 224])
def test_a_colour_that_no_word_names_is_seen(size: int) -> None:
    (taught, colours, _), (asked, others, _) = garments(1, 160, size), garments(2, 80, size)
    assert accuracy(ImageEncoder(size), (taught, colours), (asked, others), 200, batch=16) > 0.85


def test_a_cut_is_seen() -> None:
    (taught, _, cuts), (asked, _, others) = garments(1, 240, 64), garments(2, 120, 64)
    assert accuracy(ImageEncoder(64), (taught, cuts), (asked, others)) > 0.85


# --- video ----------------------------------------------------------------------------------------------------------


def motions(seed: int, count: int, still: bool) -> Examples:
    """Clips [V, FRAMES, 64, 64, 3] of a spot that goes up, down, left or right; `still` shows one of the frames only,
    all the time."""
    random = np.random.default_rng(seed)
    clips = np.empty((count, FRAMES, 64, 64, 3), np.uint8)
    labels = random.integers(0, 4, count)
    for clip, label in zip(clips, labels, strict=True):
        ground, spot = random.integers(170, 256, 3), random.integers(0, 130, 3)
        along, across = random.integers(0, 64, 2)
        pace, grown = random.integers(3, 6), random.integers(10, 16)
        frozen = random.integers(0, FRAMES)
        for number, frame in enumerate(clip):
            frame[:] = ground
            moved = (along + (frozen if still else number) * pace * (-1) ** int(label)) % 64
            rows, columns = (moved, across) if label < 2 else (across, moved)
            frame[np.ix_(np.arange(rows, rows + grown) % 64, np.arange(columns, columns + grown) % 64)] = spot
    return torch.from_numpy(clips), torch.from_numpy(labels)


class Clips(nn.Module):
    """The product tower's way from frames to a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.image = ImageEncoder(64)
        self.video = VideoEncoder()

    def forward(self, clips: Tensor) -> Tensor:
        vectors: Tensor = self.video(self.image.features(clips.flatten(0, 1)).view(*clips.shape[:2], FEATURES))
        return vectors


def test_the_direction_of_a_motion_is_seen() -> None:
    assert accuracy(Clips(), motions(1, 200, still=False), motions(2, 120, still=False), 100, batch=16) > 0.8


def test_a_single_frame_does_not_tell_the_direction() -> None:
    assert accuracy(Clips(), motions(1, 200, still=True), motions(2, 120, still=True), 40, batch=16) < 0.45


# --- audio ----------------------------------------------------------------------------------------------------------


def tones(seed: int, count: int) -> Examples:
    """Log-mels of notes in noise: a pure tone or one with overtones, at one of four pitches; each of the eight is a
    class. How loud, when and how long it sounds says nothing."""
    random = np.random.default_rng(seed)
    time = np.arange(2 * AUDIO_RATE) / AUDIO_RATE
    labels = random.integers(0, 8, count)
    sounds = np.empty((count, MELS, AUDIO_FRAMES), np.float32)
    for number, label in enumerate(labels):
        pitch = 300 * 2 ** (label % 4 / 2) * random.uniform(0.97, 1.03)
        overtones = range(1, 7) if label >= 4 else (1,)
        wave = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in overtones)
        start = random.uniform(0, 1)
        wave = wave * ((time > start) & (time < start + random.uniform(0.3, 1)))
        noisy = random.uniform(0.05, 0.5) * wave + random.normal(0, 0.01, len(time))
        sounds[number] = log_mel(noisy.astype(np.float32))
    return torch.from_numpy(sounds), torch.from_numpy(labels)


def test_pitch_and_timbre_are_heard() -> None:
    assert accuracy(AudioEncoder(), tones(1, 160), tones(2, 80), 200, batch=16) > 0.85


# --- attributes -----------------------------------------------------------------------------------------------------

FABRICS = ("cotton", "linen", "wool", "silk", "莫代尔", "速干")


def labelled(seed: int, count: int, name: str, value: Callable[[int], str | float]) -> Examples:
    """Ids of products with one telling attribute of six classes, whatever else is known of them."""
    random = Random(seed)
    ids, labels = [], []
    for _ in range(count):
        label = random.randrange(6)
        more = {f"note {n}": random.choice(FABRICS) for n in random.sample(range(20), 6)}
        ids.append(attribute_ids(random.choice(FABRICS), ["tops"], {**more, name: value(label)}))
        labels.append(label)
    return torch.from_numpy(np.stack(ids)), torch.tensor(labels)


class ByIds(nn.Module):
    """The unit vectors of an encoder that no catalogue has been shown to."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AttributesEncoder()

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.encoder(ids, torch.full((len(ids), ATTRIBUTE_NUMBERS), torch.nan))[0]
        return vectors


def catalogue(products: Sequence[Mapping[str, Attribute]]) -> tuple[Tensor, Tensor]:
    """Ids and numbers of products."""
    ids = np.stack([attribute_ids("Acme", [], one) for one in products])
    return torch.from_numpy(ids), torch.from_numpy(np.stack([attribute_numbers(one) for one in products]))


def nearest(vectors: Tensor) -> Tensor:
    """[N] which other one points the same way most nearly."""
    units = F.normalize(vectors, dim=1)
    return (units @ units.T).fill_diagonal_(-1).argmax(1)


def test_an_attribute_that_no_text_names_is_known() -> None:
    """The value alone says nothing: other attributes have it, too."""
    taught, asked = (labelled(seed, 300, "material", lambda label: FABRICS[label]) for seed in (1, 2))
    assert accuracy(ByIds(), taught, asked) > 0.85


def test_numbers_near_each_other_are_alike() -> None:
    random = Random(3)
    taught, asked = (labelled(n, 300, "weight", lambda label: random.uniform(10, 14) * 3**label) for n in (1, 2))
    assert accuracy(ByIds(), taught, asked) > 0.85


def test_products_that_share_rare_attributes_are_alike_before_anything_is_learned() -> None:
    """Every product has one attribute in common with all others, and one with a single other."""
    given = catalogue([{"cast": f"actor {n // 2}", "serial": f"no {n}"} for n in range(60)])
    encoder = AttributesEncoder()
    encoder.fit(*given)
    with torch.inference_mode():
        for alike in encoder(*given):
            assert float((nearest(alike) == torch.arange(60) ^ 1).float().mean()) > 0.9


def test_products_whose_numbers_are_near_each_other_are_alike() -> None:
    """Years that no two products share, in two clusters; a name that the catalogue did not know changes nothing."""
    years = [1900.25 + n / 7 + 90 * (n % 2) for n in range(40)]
    encoder = AttributesEncoder()
    encoder.fit(*catalogue([{"year": year} for year in years]))
    with torch.inference_mode():
        _, likeness = encoder(*catalogue([{"year": year} for year in (1903.0, 1901.0, 1992.0, 1994.0)]))
        _, stranger = encoder(*catalogue([{"year": 1903.0, "weight": 7.0}]))
    assert nearest(likeness).tolist() == [1, 0, 3, 2]
    torch.testing.assert_close(stranger[0], likeness[0])


def test_likeness_of_a_catalogue_is_as_long_as_one_and_the_same_every_time() -> None:
    given = catalogue([{"cast": f"actor {n // 3}", "year": 1900 + n} for n in range(90)])
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        encoder = AttributesEncoder()
        encoder.fit(*given)
        with torch.inference_mode():
            found.append(encoder(*given)[1])
    assert float(found[0].square().sum(1).mean()) == pytest.approx(1, abs=1e-3)
    assert torch.equal(*found)


def people(vectors: Tensor, minds: Tensor, count: int, met: int, seed: int = 5) -> list[Met]:
    """What people did with some of the products [P, K], whose tastes spread by `minds` [K] in each direction."""
    draws = torch.Generator().manual_seed(seed)
    found: list[Met] = []
    for _ in range(count):
        rows = torch.randperm(len(vectors), generator=draws)[:met]
        taste = minds * torch.randn(len(minds), generator=draws)
        done = vectors[rows] @ taste + 0.4 * torch.randn(met, generator=draws)
        found.append((rows.tolist(), done.tolist()))
    return found


def test_directions_in_which_people_differ_are_stretched() -> None:
    """Two of six directions matter, one twice as much; the lists of people are of different lengths."""
    vectors = torch.randn(200, 6, generator=torch.Generator().manual_seed(4))
    minds = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.5, 0.0])
    met = [*people(vectors, minds, 200, FEW), *people(vectors, minds, 200, 80, seed=6)]
    found = stretch(vectors, met)
    lengths = (found @ found.T).diagonal().sqrt()
    assert lengths.argsort(descending=True)[:2].tolist() == [1, 4]
    assert float(lengths[1] / lengths[4]) == pytest.approx(2, rel=0.2)
    assert float(lengths[[0, 2, 3, 5]].max()) < 0.3 * float(lengths[4])
    assert torch.equal(stretch(vectors, met), found)


def test_of_people_who_met_little_nothing_is_learned() -> None:
    vectors = torch.randn(200, 6, generator=torch.Generator().manual_seed(4))
    assert torch.equal(stretch(vectors, people(vectors, torch.ones(6), 300, FEW - 1)), torch.eye(6))
    assert torch.equal(stretch(vectors, people(vectors, torch.ones(6), FEWEST - 1, FEW)), torch.eye(6))
    assert torch.equal(stretch(vectors, []), torch.eye(6))


def test_likeness_is_of_what_tells_people_apart() -> None:
    """Makers are what products differ in most; people mind the colour, which would have no room beside them."""
    makers = LIKENESS_DIM + 8
    products = [{"maker": f"maker {n % makers}", "colour": f"colour {n // makers % 2}"} for n in range(6 * makers)]
    given = catalogue(products)
    colours = torch.tensor([[2.0 * (n // makers % 2) - 1] for n in range(len(products))])
    met = people(colours, torch.ones(1), 200, 80)
    gaps = []
    for known in ([], met):
        encoder = AttributesEncoder()
        torch.manual_seed(0)
        encoder.fit(*given, known)
        with torch.inference_mode():
            _, likeness = encoder(*given)
        other = (likeness[0] - likeness[makers]).square().sum() / (likeness[0] - likeness[1]).square().sum()
        gaps.append(float(other))
    plain, minded = gaps
    assert minded > 5 * plain
    assert minded > 1, "another colour is farther away than another maker"


def test_a_catalogue_without_attributes_teaches_none() -> None:
    encoder = AttributesEncoder()
    nothing = torch.full((5, ATTRIBUTE_NUMBERS), torch.nan)
    encoder.fit(torch.zeros(5, ATTRIBUTE_LENGTH, dtype=torch.int32), nothing, [([0, 1], [1.0, -1.0])])
    unseen = torch.from_numpy(np.stack([attribute_ids(brand, [], {}) for brand in ("Acme", "Ajax", "")]))
    with torch.inference_mode():
        (one, other, none), likeness = encoder(unseen, nothing[:3])
    assert one @ other < 0.9
    assert not none.any()
    assert not likeness.any()


# --- the tower ------------------------------------------------------------------------------------------------------


@pytest.fixture
def products() -> PreparedProducts:
    """Twelve products: every way to have or lack a text, a picture, a video, a sound and attributes in turn."""
    random = np.random.default_rng(1)
    named = [ProductContent(str(n), title="mug" * (n % 2), attributes={"size": n} if n % 3 else {}) for n in range(12)]
    bare = prepare_products(named)
    mask = bare.mask.copy()
    for column, every in ((IMAGE, 2), (VIDEO, 3), (AUDIO, 4)):
        mask[::every, column] = 1
    images, videos, sounds = (int(mask[:, column].sum()) for column in (IMAGE, VIDEO, AUDIO))
    return PreparedProducts(
        bare.text_ids,
        bare.attribute_ids,
        bare.attribute_numbers,
        image=random.integers(0, 256, (images, 64, 64, 3), np.uint8),
        video=random.integers(0, 256, (videos, FRAMES, 64, 64, 3), np.uint8),
        audio=random.uniform(-1, 1, (sounds, MELS, AUDIO_FRAMES)).astype(np.float32),
        mask=mask,
    )


def encoded(encoder: ProductEncoder, products: PreparedProducts) -> Tensor:
    with torch.inference_mode():
        content: Tensor = encoder(*map(torch.from_numpy, products.arrays().values()))
    return content


def test_what_is_missing_is_zeros_and_what_is_there_a_unit_vector(products: PreparedProducts) -> None:
    content = encoded(ProductEncoder(ModelConfig()), products)
    assert content.shape == (12, len(SLOTS), EMBEDDING_DIM)
    np.testing.assert_allclose(content[:, : len(MODALITIES)].norm(dim=2), products.mask, atol=1e-5)


@pytest.mark.parametrize("text", ["pieces", "transformer", "bilstm"])
def test_another_order_gives_the_same_rows(products: PreparedProducts, text: TextForm) -> None:
    encoder = ProductEncoder(ModelConfig(text=text))
    shuffled = np.array([7, 0, 11, 3, 9, 1, 4, 10, 2, 8, 6, 5])
    content = encoded(encoder, products)
    torch.testing.assert_close(encoded(encoder, products.take(shuffled)), content[shuffled], atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded(encoder, products.take(shuffled[:1])), content[shuffled[:1]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("text", ["pieces", "transformer", "bilstm"])
@pytest.mark.parametrize("size", [64, 224])
def test_nothing_gives_nothing(text: TextForm, size: int) -> None:
    config = ModelConfig(text=text, image_size=size)
    nothing = prepare_products([], image_size=size)
    assert encoded(ProductEncoder(config), nothing).shape == (0, len(SLOTS), EMBEDDING_DIM)
    assert QueryEncoder(config)(torch.from_numpy(nothing.text_ids)).shape == (0, EMBEDDING_DIM)


def test_products_are_taken_with_their_media(products: PreparedProducts) -> None:
    taken = products.take(np.array([4, 4, 3]))
    assert taken.mask.tolist() == products.mask[[4, 4, 3]].tolist()
    np.testing.assert_array_equal(taken.image, products.image[[2, 2]])
    np.testing.assert_array_equal(taken.video, products.video[[1]])
    np.testing.assert_array_equal(taken.audio, products.audio[[1, 1]])
