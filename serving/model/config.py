"""What a model is built from: its encoders, its fusion, its heads and what it learns by.

The configuration is part of the header of every weights file, so whoever loads weights builds the net they belong to.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from serving.errors import BundleMismatch

TextForm = Literal["pieces", "transformer", "bilstm"]
FusionForm = Literal["sum", "concatenation", "attention", "gated"]
Head = Literal["click", "relevance"]
#: what the score of a row depends on: the row alone, or all rows of its set
Scope = Literal["row", "list"]
Weight = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; 0 leaves it out. What they are is told in serving.model.losses."""

    click: Weight = 1.0
    relevance: Weight = 0.0
    softmax: Weight = 1.0
    lambdarank: Weight = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """The form of a model. The defaults are those of the committed weights."""

    text: TextForm = "pieces"
    #: side in pixels of the square picture that the image encoder sees
    image_size: Annotated[int, Meta(ge=64, le=224)] = 64
    fusion: FusionForm = "sum"
    #: what a product is counts by itself, and not only by how it matches query and taste. Without, nothing can be
    #: learned by heart where there are few products and many clicks
    own_content: bool = True
    #: a user's taste is read together with the counters, as one part with the clicks, instead of with each modality
    joint_taste: bool = False
    #: features of a row relative to its list: price rank, z-scores
    relative: bool = False
    #: attention over the rows of a list
    list_attention: bool = False
    heads: tuple[Head, ...] = ("click",)
    losses: LossWeights = LossWeights()
    #: share of rows from which a part is taken away in training, so that a product without it still gets its place
    part_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads are {self.heads}, expected click, relevance or both, each once")
        learned = {"click": self.losses.click, "relevance": self.losses.relevance}
        for head, weight in learned.items():
            if weight and head not in self.heads:
                raise ValueError(f"losses.{head} is {weight}, but heads are {self.heads}: expected 0, or that head")

    @property
    def scope(self) -> Scope:
        return "list" if self.relative or self.list_attention else "row"

    def to_json(self) -> str:
        return json.dumps(asdict(self))


DEFAULT: Final = ModelConfig()


def config_of(values: Mapping[str, Any]) -> ModelConfig:
    """A configuration from plain values, defaults where there are none. Raises ValueError that names the field."""
    _refuse_unknown(values, ModelConfig, "")
    losses = values.get("losses", {})
    if isinstance(losses, Mapping):
        _refuse_unknown(losses, LossWeights, "losses.")
    try:
        return msgspec.convert(values, ModelConfig)
    except msgspec.ValidationError as error:
        raise ValueError(f"model configuration: {error}") from error


def config_from_header(header: Mapping[str, str]) -> ModelConfig:
    """The configuration of a weights file. Raises BundleMismatch for one that this code cannot build."""
    try:
        return config_of(json.loads(header.get("config", "{}")))
    except ValueError as error:
        raise BundleMismatch(f"weights of a model that this code does not have: {error}") from error


def _refuse_unknown(values: Mapping[str, Any], kind: type[Any], prefix: str) -> None:
    known = [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            raise ValueError(f"model configuration: unknown field {prefix}{name}, expected {', '.join(known)}")
