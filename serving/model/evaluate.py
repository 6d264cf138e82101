"""How good an order is: NDCG@10 of the model, of the floors, and of the model without one of its parts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_repo.views import BEHAVIOR_COLUMNS, FAMILIARITY, MODALITIES, NUMERIC_FIELDS, PRICE_COLUMNS, UNKNOWN
from serving.model.dataset import RankedList, Shop
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.model.metrics import mean, ndcg
from serving.model.ranker import Ranker
from serving.preprocess import prepare_texts
from serving.requests import Floats, Ints, ScoreRequest
from serving.users import user_vector

TOP: Final = 10
PRICE: Final = NUMERIC_FIELDS.index("price")
SALES: Final = NUMERIC_FIELDS.index("sales_7d")
TEXT: Final = MODALITIES.index("text")
#: products encoded at a time: bounds the memory of the media
ENCODED_ROWS: Final = 256


@dataclass(frozen=True)
class Nets:
    """The three nets. In training the two towers hold one and the same text encoder."""

    product_encoder: ProductEncoder
    query_encoder: QueryEncoder
    ranker: Ranker

    @property
    def by_name(self) -> dict[str, torch.nn.Module]:
        """The nets by their names in a model repository."""
        return {
            "product_encoder": self.product_encoder,
            "query_encoder": self.query_encoder,
            "ranker": self.ranker,
        }


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean NDCG@10 over the lists of a shop; `without` has one entry for each part that was masked."""

    shop: str
    lists: int
    model: float
    popularity: float
    retrieval: float
    without: dict[str, float]


def quality(name: str, nets: Nets, shop: Shop, lists: Sequence[RankedList]) -> Quality:
    """NDCG@10 of the model and of the floors (sales_7d at that moment, the retrieval's own order) on the same lists."""
    whole = request(nets, shop, lists)
    gains = np.concatenate([one.relevance for one in lists])

    def ndcg(scores: Floats) -> float:
        return mean_ndcg(scores, gains, whole.set_index)

    return Quality(
        shop=name,
        lists=len(lists),
        model=ndcg(logits(nets.ranker, whole)),
        popularity=ndcg(whole.numeric[:, SALES]),
        retrieval=ndcg(whole.retrieval),
        without={part: ndcg(logits(nets.ranker, mask(whole))) for part, mask in MASKS.items()},
    )


def request(nets: Nets, shop: Shop, lists: Sequence[RankedList]) -> ScoreRequest:
    """All lists as one request, with content, query and user vectors as the nets make them now."""
    content = encode(nets.product_encoder, shop)
    items = np.concatenate([one.items for one in lists])
    return ScoreRequest(
        query=encode_queries(nets.query_encoder, [one.query for one in lists]),
        user=users(shop, content, lists),
        content=content[items],
        mask=shop.prepared_at(nets.product_encoder.image_size).mask[items],
        numeric=shop.numbers(lists),
        retrieval=np.concatenate([one.retrieval for one in lists]),
        set_index=set_index(lists),
    )


def encode(encoder: ProductEncoder, shop: Shop) -> Floats:
    """Content vectors [P, S, D] of the whole catalogue."""
    products = shop.prepared_at(encoder.image_size)
    parts: list[Tensor] = []
    with torch.inference_mode():
        for first in range(0, len(products.mask), ENCODED_ROWS):
            some = products.take(np.arange(len(products.mask))[first : first + ENCODED_ROWS])
            parts.append(encoder(*_tensors(encoder, some.arrays().values())))
        vectors: Floats = torch.cat(parts).numpy(force=True)
    return vectors


def encode_queries(encoder: QueryEncoder, queries: Sequence[str]) -> Floats:
    """Query vectors [Q, D]."""
    with torch.inference_mode():
        vectors: Floats = encoder(*_tensors(encoder, [prepare_texts(queries)])).numpy(force=True)
    return vectors


def users(shop: Shop, content: Floats, lists: Sequence[RankedList]) -> Floats:
    """User vectors [Q, U] from the content vectors [P, S, D]; a product without content says nothing about a taste."""
    vectors = zip(shop.products, content, strict=True)
    contents = {product.product_id: vector for product, vector in vectors if vector.any()}
    return np.stack([user_vector(one.history, contents, shop.click_rates) for one in lists])


def set_index(lists: Sequence[RankedList]) -> Ints:
    """[N] which list a row belongs to."""
    return np.repeat(np.arange(len(lists), dtype=np.int32), [len(one.items) for one in lists])


def logits(ranker: Ranker, asked: ScoreRequest) -> Floats:
    """[N]"""
    with torch.inference_mode():
        logit = ranker(*_tensors(ranker, [getattr(asked, name) for name in ScoreRequest.__slots__]))
        values: Floats = logit.numpy(force=True)
    return values


def _tensors(net: torch.nn.Module, arrays: Iterable[NDArray[Any]]) -> list[Tensor]:
    """Where the net is."""
    device = next(net.parameters()).device
    return [torch.from_numpy(array).to(device) for array in arrays]


def mean_ndcg(scores: Floats, gains: Floats, of_list: Ints) -> float:
    """Mean NDCG@10 over lists of rows [N]; equal scores stay in the order they come in."""
    return mean(ndcg(scores, gains, of_list, TOP))


def _without_price(asked: ScoreRequest) -> ScoreRequest:
    numeric = asked.numeric.copy()
    numeric[:, PRICE_COLUMNS] = UNKNOWN
    return replace(asked, numeric=numeric)


def _without_sales(asked: ScoreRequest) -> ScoreRequest:
    numeric = asked.numeric.copy()
    numeric[:, BEHAVIOR_COLUMNS] = 0
    return replace(asked, numeric=numeric)


def _without_user(asked: ScoreRequest) -> ScoreRequest:
    numeric = asked.numeric.copy()
    numeric[:, FAMILIARITY] = 0
    return replace(asked, user=np.zeros_like(asked.user), numeric=numeric)


def _without_modality(column: int) -> Callable[[ScoreRequest], ScoreRequest]:
    def masked(asked: ScoreRequest) -> ScoreRequest:
        mask = asked.mask.copy()
        mask[:, column] = 0
        return replace(asked, mask=mask)

    return masked


#: what is masked, and how the request looks then: as that of a product of which it is not known
MASKS: Final[dict[str, Callable[[ScoreRequest], ScoreRequest]]] = {
    "price": _without_price,
    "sales": _without_sales,
    **{name: _without_modality(column) for column, name in enumerate(MODALITIES)},
    "user": _without_user,
    "retrieval": lambda asked: replace(asked, retrieval=np.zeros_like(asked.retrieval)),
}
