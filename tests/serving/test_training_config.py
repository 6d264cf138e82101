"""The configuration of a training: what is said in a file, what stands over it, and what is told of mistakes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.model.config import LossWeights, ModelConfig
from serving.model.training.config import (
    BadConfig,
    LogConfig,
    TrainConfig,
    as_values,
    difference,
    parse,
    read,
    to_toml,
)

CONFIG = """
[train]
epochs = 9
learning_rate = 1
data = "retail.csv"

[model]
fusion = "gated"
heads = ["click", "relevance"]
losses.relevance = 0.5

[log]
visible_after_ms = 0
"""


def test_a_file_says_what_differs_from_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text(CONFIG)
    assert read(file) == TrainConfig(
        epochs=9,
        learning_rate=1.0,
        data=Path("retail.csv"),
        model=ModelConfig(fusion="gated", heads=("click", "relevance"), losses=LossWeights(relevance=0.5)),
        log=LogConfig(visible_after_ms=0),
    )


def test_what_is_said_stands_over_its_base() -> None:
    base = parse({"train": {"epochs": 9}, "model": {"losses": {"click": 0.25}}})
    told = parse({"train": {"seed": 1}, "model": {"losses": {"softmax": 2}}}, base)
    assert (told.epochs, told.seed) == (9, 1)
    assert told.model.losses == LossWeights(click=0.25, softmax=2.0)


configs = st.builds(
    TrainConfig,
    weights=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(Path),
    data=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(Path),
    only=st.sampled_from([None, "ranker"]),
    seed=st.integers(0, 2**40),
    learning_rate=st.floats(0, 1, exclude_min=True),
    device=st.text(),
    model=st.builds(
        ModelConfig,
        text=st.sampled_from(["pieces", "transformer", "bilstm"]),
        heads=st.just(("click", "relevance")),
        losses=st.builds(LossWeights, relevance=st.floats(0, 10)),
        relative=st.booleans(),
    ),
    log=st.builds(LogConfig, by_arrival=st.booleans(), horizon_ms=st.integers(1, 10**12)),
)


@given(configs)
def test_a_printed_configuration_is_read_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: TrainConfig
) -> None:
    file = tmp_path_factory.getbasetemp() / "printed.toml"
    file.write_text(to_toml(config), "utf-8")
    assert read(file) == config
    assert parse(as_values(config)) == config


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[train]\nepoch = 3", "unknown field train.epoch, expected weights, data, "),
        ("[trian]\nepochs = 3", "unknown section trian, expected train, model, log"),
        ("train = 3", "train is 3, expected a table"),
        ("[train]\nepochs = 'many'", "train.epochs is 'many', expected a whole number >= 1"),
        ("[train]\nepochs = 0", "train.epochs is 0, expected a whole number >= 1"),
        ("[train]\nlearning_rate = 0", "train.learning_rate is 0, expected a number > 0"),
        ("[train]\nseed = 1.5", "train.seed is 1.5, expected a whole number >= 0"),
        ("[train]\nonly = 'towers'", "train.only is 'towers', expected ranker"),
        ("[train]\ndata = 3", "train.data is 3, expected a path"),
        ("[train]\nweights = ''", "train.weights is '', expected a path"),
        ("[log]\ntested = 1", "log.tested is 1, expected a number > 0 and < 1"),
        ("[log]\nby_arrival = 'yes'", "log.by_arrival is 'yes', expected true or false"),
        ("[model]\nfusion = 'mean'", "model.fusion is 'mean', expected sum or concatenation or attention or gated"),
        ("[model]\nimage_size = 32", "model.image_size is 32, expected a whole number >= 64 and <= 224"),
        ("[model]\nheads = ['click', 'cart']", "expected a list of click or relevance"),
        ("[model]\nlosses = 3", "model.losses is 3, expected a table"),
        ("[model.losses]\nclick = -1", "model.losses.click is -1, expected a number >= 0"),
        ("[model.losses]\nclicks = 1", "unknown field model.losses.clicks, expected click, relevance, "),
        ("[model.losses]\nrelevance = 1", "losses.relevance is 1.0, but heads are"),
        ("[train\n", "is no TOML: "),
    ],
)
def test_a_mistake_is_told_by_field_and_what_was_expected(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "train.toml"
    file.write_text(text)
    with pytest.raises(BadConfig) as raised:
        read(file)
    assert str(raised.value).startswith(str(file))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="is no TOML"):
        read(file)


def test_the_first_difference_is_told() -> None:
    one = TrainConfig()
    assert difference(one, one) is None
    assert difference(one, TrainConfig(epochs=9)) == "train.epochs = 5, not 9"
    other = TrainConfig(model=ModelConfig(losses=LossWeights(softmax=2.0)))
    assert difference(one, other) == "model.losses.softmax = 1.0, not 2.0"
    assert difference(one, TrainConfig(data=Path("a.csv"))) == "train.data = not set, not 'a.csv'"
