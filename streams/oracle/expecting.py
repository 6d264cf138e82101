"""States + model -> what should stand in `rankings`. Scorer and media are passed in.

Every candidate of every live set is scored, from its whole state: nothing here knows what changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import Bundle, ResultSet
from feature_repo.features import UserState, behavior_values, catalog_ints, content_of, user_events
from feature_repo.views import (
    BEHAVIOR_COLUMNS,
    EMBEDDING_DIM,
    FAMILIARITY,
    MODALITIES,
    NUMERIC_FIELDS,
    PRICE_COLUMNS,
    PRICE_FIELDS,
    PRODUCT_CATALOG,
    SLOTS,
    UNKNOWN,
    USER_DIM,
)
from serving.errors import BadMedia
from serving.preprocess import MediaLimits, check_medium
from serving.ranking import Doubles, order, rounded
from serving.requests import Floats, ProductContent, Scorer, ScoreRequest
from serving.users import residuals, user_vector
from streams.oracle.replaying import Replay
from streams.validation import MEDIA_FIELDS

#: rows of one scoring call and products of one encoding call: bounds of memory
SCORE_ROWS = 20_000
ENCODE_ROWS = 256

_STOCK, _DELISTED = (PRODUCT_CATALOG.offsets[name] for name in ("stock", "delisted"))
_PRICES = [PRODUCT_CATALOG.offsets[name] for name in PRICE_FIELDS]

#: the bytes of a `sha256:` reference or an address; None when they cannot be had
Fetch: TypeAlias = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Nothing:
    """No ranking may stand: a null or no record. `why` for a human."""

    why: str


@dataclass(frozen=True, slots=True)
class Expected:
    """The ranking that should stand: columns in order of rank."""

    product_ids: tuple[str, ...]
    scores: Doubles
    sold_out: NDArray[np.bool_]
    model_version: str


Expectation: TypeAlias = Expected | Nothing


@dataclass(frozen=True, slots=True)
class Rows:
    """What the model sees of every product that counts, one row each; `slots` says which."""

    slots: Mapping[str, int]
    numeric: Floats
    content: Floats
    mask: Floats
    stock: NDArray[np.int64]
    delisted: NDArray[np.bool_]


@dataclass(frozen=True)
class Shopper:
    """What the model sees of a user: a vector [U], and what was done with each product less what was expected."""

    vector: Floats
    residuals: Mapping[str, float]


NOBODY: Final = Shopper(np.zeros(USER_DIM, np.float32), {})


class Expectations:
    """What should stand after a replay. Vectors of contents are kept for the next time."""

    def __init__(self, scorer: Scorer, fetch: Fetch, limits: MediaLimits | None = None) -> None:
        self._scorer = scorer
        self._fetch = fetch
        self._limits = limits
        #: product -> (encoder, content, vectors [S, D], mask [M])
        self._encoded: dict[str, tuple[int, dict[str, object], Floats, Floats]] = {}

    async def of(self, replay: Replay) -> dict[str, Expectation]:
        """By result set id, for every set that was ever registered. Raises BundleMismatch, ScorerUnavailable."""
        bundle, clock = replay.bundle, replay.clock
        found: dict[str, Expectation] = {}
        live: list[ResultSet] = []
        for result_set_id, registration in sorted(replay.registrations.items()):
            if registration is None:
                found[result_set_id] = Nothing("closed")
            elif clock is None:
                found[result_set_id] = Nothing("not every partition of behavior has a heartbeat")
            elif registration.expires_at is not None and registration.expires_at <= clock:
                found[result_set_id] = Nothing(f"expired at {registration.expires_at}, the log's clock is {clock}")
            elif bundle is None:
                found[result_set_id] = Nothing("no model bundle")
            else:
                live.append(registration)
        if bundle is not None and live:
            found |= await self._rankings(replay, bundle, live)
        return found

    async def _rankings(self, replay: Replay, bundle: Bundle, live: Sequence[ResultSet]) -> dict[str, Expectation]:
        states = {one.user_id: replay.user(one.user_id) for one in live if one.user_id is not None}
        products = {product_id for one in live for product_id, _ in one.candidates}
        products |= {product_id for state in states.values() for _, product_id, _, _ in user_events(state)}
        rows = await self._rows(replay, sorted(products), bundle.models["product_encoder"])
        users = {user_id: _user(state, rows, bundle.click_rates) for user_id, state in states.items()}
        queries = await self._queries([one.query for one in live], bundle.models["query_encoder"])
        model_version = f"{bundle.bundle}/{bundle.version}"
        found: dict[str, Expectation] = {}
        for some in _portions(live):
            logits = await self._score(some, rows, queries, users, bundle.models["ranker"])
            for one in some:
                found[one.result_set_id] = _ranked(one, logits[one.result_set_id], rows, model_version)
        return found

    async def _score(
        self,
        sets: Sequence[ResultSet],
        rows: Rows,
        queries: Mapping[str, Floats],
        users: Mapping[str, Shopper],
        version: int,
    ) -> dict[str, Floats]:
        """Logits by result set id, each in order of product id."""
        unasked = np.zeros(EMBEDDING_DIM, np.float32)
        whose = [NOBODY if one.user_id is None else users[one.user_id] for one in sets]
        candidates = [sorted(one.candidates) for one in sets]
        counts = [len(some) for some in candidates]
        flat = [candidate for some in candidates for candidate in some]
        slots = np.array([rows.slots[product_id] for product_id, _ in flat])
        numeric = rows.numeric[slots]
        numeric[:, FAMILIARITY] = [
            user.residuals.get(product_id, 0.0)
            for user, some in zip(whose, candidates, strict=True)
            for product_id, _ in some
        ]
        request = ScoreRequest(
            query=np.stack([unasked if one.query is None else queries[one.query] for one in sets]),
            user=np.stack([user.vector for user in whose]),
            content=rows.content[slots],
            mask=rows.mask[slots],
            numeric=numeric,
            retrieval=np.array([score for _, score in flat], np.float32),
            set_index=np.repeat(np.arange(len(sets), dtype=np.int32), counts),
        )
        logits = (await self._scorer.score(request, version)).logit
        parts = np.split(logits, np.cumsum(counts)[:-1])
        return {one.result_set_id: part for one, part in zip(sets, parts, strict=True)}

    async def _queries(self, texts: Iterable[str | None], version: int) -> dict[str, Floats]:
        asked = sorted({text for text in texts if text is not None})
        if not asked:
            return {}
        return dict(zip(asked, await self._scorer.encode_queries(asked, version), strict=True))

    # --- rows ------------------------------------------------------------------------------------------------------

    async def _rows(self, replay: Replay, products: Sequence[str], encoder: int) -> Rows:
        count = len(products)
        numeric = np.zeros((count, len(NUMERIC_FIELDS)), np.float32)
        ints = np.zeros((count, len(PRODUCT_CATALOG.ints)), np.int64)
        ints[:, [*_PRICES, _STOCK]] = UNKNOWN
        for row, product_id in enumerate(products):
            if product_id in replay.catalog:
                ints[row] = catalog_ints(replay.catalog[product_id])
            if product_id in replay.behavior:
                numeric[row, BEHAVIOR_COLUMNS] = behavior_values(
                    replay.behavior[product_id].state, replay.as_of(product_id)
                )
        numeric[:, PRICE_COLUMNS] = ints[:, _PRICES]
        await self._encode(replay, products, encoder)
        content = np.zeros((count, len(SLOTS), EMBEDDING_DIM), np.float32)
        mask = np.zeros((count, len(MODALITIES)), np.float32)
        for row, product_id in enumerate(products):
            if product_id in self._encoded:
                _, _, content[row], mask[row] = self._encoded[product_id]
        slots = {product_id: row for row, product_id in enumerate(products)}
        return Rows(slots, numeric, content, mask, ints[:, _STOCK], ints[:, _DELISTED] == 1)

    async def _encode(self, replay: Replay, products: Sequence[str], encoder: int) -> None:
        """Vectors of the contents that are new, or were encoded by another encoder."""
        wanted: list[tuple[str, dict[str, object]]] = []
        for product_id in products:
            content = content_of(replay.catalog[product_id]) if product_id in replay.catalog else {}
            known = self._encoded.get(product_id)
            if content and (known is None or known[:2] != (encoder, content)):
                wanted.append((product_id, content))
            elif not content:
                self._encoded.pop(product_id, None)
        for first in range(0, len(wanted), ENCODE_ROWS):
            some = wanted[first : first + ENCODE_ROWS]
            vectors = await self._scorer.encode_products([self._product(*pair) for pair in some], encoder)
            for (product_id, content), vector, mask in zip(some, vectors.content, vectors.mask, strict=True):
                self._encoded[product_id] = (encoder, content, vector, mask)

    def _product(self, product_id: str, content: Mapping[str, Any]) -> ProductContent:
        """The content as it is encoded; a medium that is missing or broken is a missing modality."""
        texts = {name: content[name] for name in ("title", "description", "brand") if name in content}
        category, attributes = tuple(content.get("category", ())), content.get("attributes", {})
        product = ProductContent(product_id, category=category, attributes=attributes, **texts)
        image, video, audio = (self._medium(name, content.get(name)) for name in MEDIA_FIELDS)
        return replace(product, image=image, video=video, audio=audio)

    def _medium(self, name: str, medium: bytes | str | None) -> bytes | None:
        data = self._fetch(medium) if isinstance(medium, str) else medium
        if data is not None:
            try:
                check_medium(name, data, self._limits)
            except BadMedia:
                return None
        return data


def _user(state: UserState, rows: Rows, click_rates: Sequence[float]) -> Shopper:
    """What a user's last events say, and the contents of their products."""
    history = user_events(state)
    slots = {product_id: rows.slots[product_id] for _, product_id, _, _ in history}
    contents = {product_id: rows.content[slot] for product_id, slot in slots.items() if rows.mask[slot].any()}
    return Shopper(user_vector(history, contents, click_rates), residuals(history, click_rates))


def _ranked(registration: ResultSet, logits: Floats, rows: Rows, model_version: str) -> Expected:
    """In order of rank, without what is delisted."""
    ids = sorted(product_id for product_id, _ in registration.candidates)
    slots = np.array([rows.slots[product_id] for product_id in ids])
    scores, stock = rounded(logits), rows.stock[slots]
    ranked = order(scores, stock)
    ranked = ranked[~rows.delisted[slots[ranked]]]
    return Expected(tuple(ids[at] for at in ranked), scores[ranked], stock[ranked] == 0, model_version)


def _portions(live: Sequence[ResultSet]) -> Iterator[list[ResultSet]]:
    """Sets of about SCORE_ROWS candidates together."""
    portion: list[ResultSet] = []
    size = 0
    for one in live:
        portion.append(one)
        size += len(one.candidates)
        if size >= SCORE_ROWS:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
