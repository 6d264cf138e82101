"""Rows, registrations and bundles for the ranking side, and one reranker that is driven by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from msgspec import structs

from feature_repo.events import Bundle, ResultSet
from feature_repo.row import Stamps, pack_row
from feature_repo.views import (
    EMBEDDING_DIM,
    MODALITIES,
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    PRODUCT_CONTENT,
    SLOTS,
    USER_BEHAVIOR,
    input_hash,
)
from serving.requests import Scores
from streams.dirty import Since
from streams.packing import pack_rankings
from streams.records import Change, Ranking, decode_ranking, encode_record
from streams.reordering import Reordered
from streams.reranking import Needs, Reranker, Times, Work
from tests.streams.bench import HOUR
from tests.streams.fakes import Scope, fake_contributions, word_vector

BUNDLE = Bundle(
    bundle="default",
    version=1,
    models={"product_encoder": 1, "query_encoder": 1, "ranker": 1},
    input_hash=input_hash(),
    price_weight=1.0,
)


def catalog_row(
    product: str,
    offset: int,
    *,
    price: int = -1,
    usual: int | None = None,
    stock: int = -1,
    delisted: bool = False,
    time: int = HOUR,
    stamps: Stamps | None = None,
) -> Change:
    """`usual` is the price itself unless it is given."""
    blob = pack_row(
        PRODUCT_CATALOG,
        as_of=time,
        event_time=time,
        kafka_time=time + 1,
        ints=[price, price if usual is None else usual, stock, int(delisted)],
        floats=[],
        strings=["", "", "", ""],
        stamps=stamps or {0: offset},
    )
    return Change(PRODUCT_CATALOG.name, product, blob)


def behavior_row(product: str, offset: int, *, sales_1h: float = 0, as_of: int = HOUR) -> Change:
    floats = [0.0] * PRODUCT_BEHAVIOR.float_width
    floats[PRODUCT_BEHAVIOR.offsets["sales_1h"]] = sales_1h
    blob = pack_row(
        PRODUCT_BEHAVIOR,
        as_of=as_of,
        event_time=HOUR,
        kafka_time=HOUR + 1,
        ints=[],
        floats=floats,
        strings=[],
        stamps={0: offset},
    )
    return Change(PRODUCT_BEHAVIOR.name, product, blob)


def content_row(product: str, offset: int, *, text: str = "") -> Change:
    vectors = np.zeros((len(SLOTS), EMBEDDING_DIM), np.float32)
    mask = np.zeros(len(MODALITIES), np.float32)
    vectors[MODALITIES.index("text")], mask[MODALITIES.index("text")] = word_vector(text), bool(text)
    blob = pack_row(
        PRODUCT_CONTENT,
        as_of=HOUR,
        event_time=HOUR,
        kafka_time=HOUR + 1,
        ints=[],
        floats=np.concatenate([vectors.ravel(), mask]),
        strings=["1", "hash"],
        stamps={0: offset},
    )
    return Change(PRODUCT_CONTENT.name, product, blob)


def user_row(user: str, offset: int, *products: str, kind: str = "click") -> Change:
    """A user who clicked these products, or did what `kind` says, the oldest first."""
    history = msgpack.packb([[kind, product, -1, HOUR + place] for place, product in enumerate(products)])
    blob = pack_row(
        USER_BEHAVIOR,
        as_of=HOUR,
        event_time=HOUR,
        kafka_time=HOUR + 1,
        ints=[],
        floats=[0.0] * USER_BEHAVIOR.float_width,
        strings=[history],
        stamps={0: offset},
    )
    return Change(USER_BEHAVIOR.name, user, blob)


def registration(result_set_id: str, candidates: Sequence[str | tuple[str, float]], **fields: Any) -> ResultSet:
    """A search with these candidates; a product without a score has retrieval score 0."""
    pairs = [(one, 0.0) if isinstance(one, str) else one for one in candidates]
    return ResultSet(result_set_id=result_set_id, event_time=HOUR, kind="search", candidates=pairs, **fields)


@dataclass(slots=True)
class Lists:
    """A reranker and what it would have published, newest last."""

    reranker: Reranker = field(default_factory=Reranker)
    published: list[Ranking] = field(default_factory=list)
    now: int = HOUR
    offset: int = 0

    scope: Scope = "row"

    def __post_init__(self) -> None:
        self.reranker.bundle = structs.replace(BUNDLE, scope=self.scope)

    def register(self, result_set_id: str, candidates: Sequence[str | tuple[str, float]], **fields: Any) -> Needs:
        """A set whose rows are all read and whose query is encoded."""
        found = registration(result_set_id, candidates, **fields)
        needs = self.reranker.register(found, encode_record(found), 0)
        assert needs is not None
        self.reranker.begin(needs.live)
        self.reranker.sets.take_query_vector(needs.live, word_vector(found.query or ""))
        return needs

    def change(self, *changes: Change) -> None:
        for change in changes:
            self.reranker.apply_change(change, Since(HOUR + 1))

    def price(self, product: str, price: int, **fields: Any) -> None:
        self.offset += 1
        self.change(catalog_row(product, self.offset, price=price, **fields))

    def take(self) -> Work:
        work = self.reranker.take()
        assert work is not None
        return work

    def apply(self, work: Work, *, away: bool = False) -> list[Ranking]:
        """Score the work, or say that there is no model; what must be published."""
        scores = None
        if not away:
            contributions = np.zeros((0, 0), np.float32)
            if work.request is not None:
                contributions = fake_contributions(work.request, self.scope)
            scores = Scores(contributions.sum(axis=1), contributions)
        found = self.decoded(self.reranker.apply(work, scores, Times(self.now, self.now)))
        self.published += found
        return found

    def decoded(self, reordered: Iterable[Reordered]) -> list[Ranking]:
        """As a reader of `rankings` gets them."""
        packed_ids = self.reranker.rows.packed_ids
        return [
            decode_ranking(value)
            for some in reordered
            for value in pack_rankings(
                some, [live.id.encode() for live in some.sets], packed_ids, np.zeros(len(some), np.int64), self.now
            )
        ]

    def rank(self, *, away: bool = False) -> list[Ranking]:
        """Take everything that is dirty and apply it."""
        found: list[Ranking] = []
        while (work := self.reranker.take(encoded_only=not away)) is not None:
            found += self.apply(work, away=away)
        return found

    def order(self, result_set_id: str) -> tuple[str, ...]:
        """The newest published order of a set."""
        return next(r.product_ids for r in reversed(self.published) if r.result_set_id == result_set_id)
