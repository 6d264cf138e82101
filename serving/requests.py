"""The nouns of serving: what is asked of a model and what it answers.

Q queries, N candidate rows, D = EMBEDDING_DIM, U = USER_DIM, M modalities in the order of MODALITIES, S = len(SLOTS),
F = len(NUMERIC_FIELDS).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Attribute
from feature_repo.views import EMBEDDING_DIM, MODALITIES, NUMERIC_FIELDS, PRICE_COLUMNS, SLOTS, UNKNOWN, USER_DIM

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int32]

#: the models of a repository
MODELS = ("product_encoder", "query_encoder", "ranker")
#: what a score is made of, and the columns of `Scores.contributions`. sales: purchases, orders, returns, carts;
#: clicks: impressions, clicks, their ratio, and what the user did with this product; base: what no part has to answer
#: for, so that they sum to the logit
PARTS = (*MODALITIES, "price", "sales", "clicks", "retrieval")
CONTRIBUTIONS = (*PARTS, "base")


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """N candidate rows of Q result sets, concatenated. A row's score depends on the row itself, its query and user
    vector and its retrieval score; with a model of list scope on the other rows of its set, too: such sets come whole.

    `numeric` holds raw values: price in minor units (-1 unknown), window counts, and what the user of the row's set did
    with the product. A product that nobody knows is price -1, zeros, mask zeros.
    """

    query: Floats  # [Q, D], zeros without a query
    user: Floats  # [Q, U], zeros without a known user
    content: Floats  # [N, S, D]
    mask: Floats  # [N, M], 1 where the modality is there
    numeric: Floats  # [N, F]
    retrieval: Floats  # [N]
    set_index: Ints  # [N], row of `query` and `user`

    @property
    def rows(self) -> int:
        return len(self.set_index)


@dataclass(frozen=True, slots=True)
class Scores:
    """`logit` [N], and, if asked for, `contributions` [N, len(CONTRIBUTIONS)] that sum to it within 1e-5."""

    logit: Floats
    contributions: Floats | None = None


@dataclass(frozen=True, slots=True)
class ProductContent:
    """The content of one product as it is to be encoded; media are encoded files (PNG, JPEG, ...)."""

    product_id: str
    title: str = ""
    description: str = ""
    brand: str = ""
    category: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    image: bytes | None = None
    video: bytes | None = None
    audio: bytes | None = None

    @property
    def text(self) -> str:
        """All text of the product, the most telling first."""
        return " ".join(filter(None, (self.title, self.brand, *self.category, self.description)))


@dataclass(frozen=True, slots=True)
class ContentVectors:
    """`content` [N, S, D], zeros where `mask` [N, M] of the slot's modality is 0."""

    content: Floats
    mask: Floats


class Scorer(Protocol):
    """A model that encodes content and queries and scores rows. Every call may raise ScorerUnavailable."""

    async def encode_queries(self, texts: Sequence[str], version: int | None = None) -> Floats:
        """Query vectors [Q, D]."""
        ...

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        """Content vectors, or BadMedia that names the first product whose medium cannot be decoded."""
        ...

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        """Scores by the given version of the ranker, or by the newest; with their contributions if `explain`."""
        ...

    async def ready(self) -> bool:
        """Whether all models answer."""
        ...

    async def close(self) -> None:
        """Let go of connections; a later call may open them again."""
        ...


def empty_request(queries: int, rows: int) -> ScoreRequest:
    """A request of unknown products: price -1, zeros elsewhere. Its arrays are there to be filled."""
    numeric = np.zeros((rows, len(NUMERIC_FIELDS)), np.float32)
    numeric[:, PRICE_COLUMNS] = UNKNOWN
    return ScoreRequest(
        query=np.zeros((queries, EMBEDDING_DIM), np.float32),
        user=np.zeros((queries, USER_DIM), np.float32),
        content=np.zeros((rows, len(SLOTS), EMBEDDING_DIM), np.float32),
        mask=np.zeros((rows, len(MODALITIES)), np.float32),
        numeric=numeric,
        retrieval=np.zeros(rows, np.float32),
        set_index=np.zeros(rows, np.int32),
    )
