"""Lists -> tensors on a device: what a step of training reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_repo.views import FAMILIARITY, USER_DIM
from serving.model.dataset import PAGE, RankedList
from serving.model.evaluate import Nets, encode, encode_queries, set_index, users
from serving.model.losses import Targets
from serving.model.training.material import Lesson
from serving.preprocess import prepare_texts
from serving.requests import Floats, Ints

#: share of lists trained without a query, as recommendations have none
UNASKED: Final = 0.05


@dataclass(frozen=True)
class Known:
    """Vectors of a lesson that no step changes: `users` [L, U]; with frozen towers `content` [P, S, D] and `queries`
    [L, D], too."""

    users: Floats
    content: Tensor | None = None
    queries: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Some lists of a lesson: `rows` [B] says which."""

    lesson: Lesson
    known: Known
    rows: NDArray[np.int64]

    @property
    def lists(self) -> list[RankedList]:
        return [self.lesson.lists[row] for row in self.rows]


@dataclass(frozen=True)
class Inputs:
    """What the ranker reads, in its order, and what happened; Q lists, N rows."""

    query: Tensor
    user: Tensor
    content: Tensor
    mask: Tensor
    numeric: Tensor
    retrieval: Tensor
    set_index: Tensor
    targets: Targets

    @property
    def of_ranker(self) -> tuple[Tensor, ...]:
        return (self.query, self.user, self.content, self.mask, self.numeric, self.retrieval, self.set_index)


def learning(nets: Nets, lesson: Lesson) -> Known:
    """What stands still for an epoch while towers learn: users as the text encoder sees them when it begins."""
    if not any(one.history for one in lesson.lists):
        return Known(np.zeros((len(lesson.lists), USER_DIM), np.float32))
    return Known(users(lesson.shop, encode(nets.product_encoder, lesson.shop), lesson.lists))


def frozen(nets: Nets, lesson: Lesson, device: torch.device) -> Known:
    """What towers that do not learn say of a lesson, once and for all."""
    content = encode(nets.product_encoder, lesson.shop)
    queries = encode_queries(nets.query_encoder, [one.query for one in lesson.lists])
    return Known(
        users(lesson.shop, content, lesson.lists),
        torch.from_numpy(content).to(device),
        torch.from_numpy(queries).to(device),
    )


def batches(known: Sequence[tuple[Lesson, Known]], size: int, random: Random) -> list[Batch]:
    """All lists of all lessons once, `size` of one lesson at a time, mixed; the lists of a page stay together."""
    found = []
    for lesson, vectors in known:
        pages = range(0, len(lesson.lists), PAGE)
        shuffled = random.sample(pages, len(pages))
        order = [row for page in shuffled for row in range(page, min(page + PAGE, len(lesson.lists)))]
        found += [Batch(lesson, vectors, np.array(order[at : at + size])) for at in range(0, len(order), size)]
    random.shuffle(found)
    return found


def inputs(nets: Nets, batch: Batch, device: torch.device, strangers: float) -> Inputs:
    """The batch as the ranker reads it; a share of lists without a user, some without a query."""
    lists = batch.lists
    content, mask = _content(nets, batch, device)
    query = _queries(nets, batch, device) * _kept(len(lists), UNASKED, device)
    known = _kept(len(lists), strangers, device)
    of = _there(set_index(lists), device)
    numeric = _there(batch.lesson.shop.numbers(lists), device)
    numeric[:, FAMILIARITY] *= known[of.long(), 0]
    return Inputs(
        query=query,
        user=_there(batch.known.users[batch.rows], device) * known,
        content=content,
        mask=mask,
        numeric=numeric,
        retrieval=_there(np.concatenate([one.retrieval for one in lists]), device),
        set_index=of,
        targets=Targets(
            _there(np.concatenate([one.bought for one in lists]), device),
            _there(np.concatenate([one.relevance for one in lists]), device),
        ),
    )


def _content(nets: Nets, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Content vectors [N, S, D] and mask [N, M]; every product of the batch is encoded once."""
    products = batch.lesson.shop.prepared_at(nets.product_encoder.image_size)
    rows = np.concatenate([one.items for one in batch.lists])
    mask = _there(products.mask[rows], device)
    if batch.known.content is not None:
        return batch.known.content[_there(rows, device).long()], mask
    items, place = np.unique(rows, return_inverse=True)
    some = products.take(items)
    arrays = {**some.arrays(), "text_ids": _trimmed(some.text_ids), "attribute_ids": _trimmed(some.attribute_ids)}
    content = nets.product_encoder(*(_there(array, device) for array in arrays.values()))
    return content[_there(place, device)], mask


def _queries(nets: Nets, batch: Batch, device: torch.device) -> Tensor:
    if batch.known.queries is not None:
        return batch.known.queries[_there(batch.rows, device)]
    query: Tensor = nets.query_encoder(_there(prepare_texts([one.query for one in batch.lists]), device))
    return query


def _trimmed(ids: Ints) -> Ints:
    """Without the columns that are padding in all rows."""
    return ids[:, : max(1, int((ids > 0).sum(1).max()))]


def _kept(count: int, dropped: float, device: torch.device) -> Tensor:
    """[count, 1] 1 or 0"""
    return (torch.rand(count, 1, device=device) >= dropped).float()


def _there(array: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
