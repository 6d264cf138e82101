"""Lists -> weights: the towers and the ranker together, on real purchases and on drawn shirts, from a seed."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feature_repo.views import BEHAVIOR_COLUMNS, NUMERIC_FIELDS, PRICE_COLUMNS, UNKNOWN
from serving.datasets import online_retail as retail
from serving.datasets import shirts as garments
from serving.errors import ServingError
from serving.model import bundle
from serving.model.config import DEFAULT, ModelConfig
from serving.model.dataset import PAGE, RankedList, Shop, drawn_shirts, online_retail, shirt_pictures
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.model.evaluate import PRICE, Nets, Quality, encode, quality, request, set_index, users
from serving.model.ranker import Ranker, sales_inputs
from serving.preprocess import prepare_texts
from serving.requests import Floats, Ints, ScoreRequest

#: share of rows from which a modality, the price, the sales or the retrieval score is taken away in training, so that
#: a product without it still gets its place
DROPPED: Final = 0.1
#: share of lists trained without a user vector: most shoppers are strangers
STRANGERS: Final = 0.3
#: share of lists trained without a query, as recommendations have none
UNASKED: Final = 0.05


@dataclass(frozen=True)
class TrainConfig:
    """What to learn from and how long. `data` is an Online Retail file, None the project's slice; `weights` is the
    folder that gets one safetensors file per model."""

    weights: Path
    data: Path | None = None
    seed: int = 7
    epochs: int = 5
    lists_per_day: int = 200
    shirts: int = 1200
    shirt_lists: int = 1000
    picture_lists: int = 1000
    batch: int = 16
    learning_rate: float = 2e-3
    threads: int = 1
    model: ModelConfig = DEFAULT


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is; `loss` is the mean of the last epoch, once there is one."""

    stage: str
    done: int
    total: int
    loss: float | None = None


@dataclass(frozen=True)
class TrainReport:
    """What came out. `online_retail` is measured on the week after the weeks learned from, `shirts` on others."""

    online_retail: Quality
    shirts: Quality
    trained_lists: int
    price_weight: float
    silent_features: list[str]
    seconds: float

    def rows(self) -> list[tuple[str, float, float]]:
        """(what is ranked by, NDCG@10 on Online Retail, NDCG@10 on shirts), floors first, then one part masked each."""
        one, other = self.online_retail, self.shirts
        floors = [
            ("popularity (sales_7d)", one.popularity, other.popularity),
            ("text retrieval", one.retrieval, other.retrieval),
            ("model", one.model, other.model),
        ]
        return floors + [(f"model without {part}", one.without[part], other.without[part]) for part in one.without]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


def train(config: TrainConfig, progress: Callable[[Progress], None]) -> TrainReport:
    """Fit all nets, write their weights, and measure them on what they have not seen.

    The same configuration gives the same weights on the same machine.
    """
    started = time.monotonic()
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    history = retail.load(config.data)
    shop = online_retail(
        history, config.seed, config.lists_per_day, lambda done, total: progress(Progress("lists", done, total))
    )
    seen = shop.between(history.start_ms, history.split_ms)
    later = shop.between(history.split_ms, history.end_ms)
    if not seen or not later:
        raise ServingError("the history is too short: it takes a week to fill the windows, some to learn, one to test")
    shirts = garments.products(config.seed, config.shirts)
    others = garments.products(config.seed + 1, config.shirts)
    drawn = drawn_shirts(shirts, config.seed, config.shirt_lists, history.split_ms)
    unseen = drawn_shirts(others, config.seed + 1, len(later), history.split_ms)
    pictures = shirt_pictures(shirts, config.seed, config.picture_lists)
    nets = new_nets(config.model)
    lessons = [Lesson(shop, seen), Lesson(drawn, drawn.lists), Lesson(pictures, pictures.lists)]
    fit(nets, lessons, config, progress)
    silent = silence(nets.ranker, np.concatenate([one.numeric for one in (*seen, *drawn.lists)]))
    report = TrainReport(
        online_retail=quality("online_retail", nets, shop, later),
        shirts=quality("shirts", nets, unseen, unseen.lists),
        trained_lists=sum(len(lesson.lists) for lesson in lessons),
        price_weight=price_weight(nets, lessons[:2]),
        silent_features=silent,
        seconds=round(time.monotonic() - started, 1),
    )
    write(nets, config.model, report, config.weights)
    return report


@dataclass(frozen=True)
class Lesson:
    """Lists of one shop to learn from."""

    shop: Shop
    lists: Sequence[RankedList]


def new_nets(config: ModelConfig) -> Nets:
    """Untrained nets; the towers share their text encoder."""
    nets = Nets(ProductEncoder(config), QueryEncoder(config), Ranker(config))
    nets.query_encoder.text = nets.product_encoder.text
    return nets


def fit(nets: Nets, lessons: Sequence[Lesson], config: TrainConfig, progress: Callable[[Progress], None]) -> None:
    """Batches of lists, each of one lesson, in an order drawn from the seed."""
    random = Random(config.seed)
    parameters = {id(p): p for net in nets.by_name.values() for p in net.parameters()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.learning_rate, weight_decay=0.01)
    steps = config.epochs * sum(-(-len(lesson.lists) // config.batch) for lesson in lessons)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps)
    loss_of_epoch: float | None = None
    done = 0
    for _ in range(config.epochs):
        losses = []
        for lesson, some, vectors in _epoch(nets, lessons, config.batch, random):
            loss = _loss(nets, lesson, some, vectors)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            done += 1
            progress(Progress("fit", done, steps, loss_of_epoch))
        loss_of_epoch = float(np.mean(losses))


def silence(ranker: Ranker, numeric: Floats) -> list[str]:
    """Take out the sales features that never varied in what was learned from: nothing was learned about them.

    Their constant goes into the bias, so that the lists learned from keep their scores. Returns their names.
    """
    values = sales_inputs(torch.from_numpy(numeric))
    constant = values.amax(0) == values.amin(0)
    layer = ranker.sales.hidden
    with torch.no_grad():
        layer.bias.add_(layer.weight[:, constant] @ values[0, constant])
        layer.weight[:, constant] = 0
    names = NUMERIC_FIELDS[BEHAVIOR_COLUMNS]
    return [name for name, silent in zip(names, constant.tolist(), strict=True) if silent]


def price_weight(nets: Nets, lessons: Sequence[Lesson]) -> float:
    """Mean fall of the logit per unit of ln(price) over all rows with a price: what a degraded ranking corrects a
    change of price by. 0 where the model likes what is dear."""
    falls = np.concatenate([_falls(nets, lesson) for lesson in lessons])
    return max(0.0, round(float(falls.mean()), 4))


def _falls(nets: Nets, lesson: Lesson) -> Floats:
    """[n] -d logit / d ln(price) of each row whose price is known."""
    asked = request(nets, lesson.shop, lesson.lists)
    tensors = {name: torch.from_numpy(getattr(asked, name)) for name in ScoreRequest.__slots__}
    numeric = tensors["numeric"].requires_grad_()
    logit = nets.ranker(**tensors)
    (slope,) = torch.autograd.grad(logit.sum(), numeric)
    price = asked.numeric[:, PRICE]
    falls: Floats = -slope[:, PRICE].numpy() * price
    return falls[price > 0]


def write(nets: Nets, config: ModelConfig, report: TrainReport, folder: Path) -> None:
    """One safetensors file per model; the ranker's carries the price weight and the metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {
        "ndcg10": report.online_retail.model,
        "ndcg10_popularity": report.online_retail.popularity,
        "ndcg10_shirts": report.shirts.model,
    }
    for name, net in nets.by_name.items():
        facts = {"price_weight": str(report.price_weight), "metrics": json.dumps(metrics)} if name == "ranker" else {}
        bundle.save(net, folder / f"{name}.safetensors", config, facts)


def _epoch(
    nets: Nets, lessons: Sequence[Lesson], batch: int, random: Random
) -> list[tuple[Lesson, list[RankedList], Floats]]:
    """Batches of all lessons, mixed; the lists of a page stay together. User vectors are those of the text encoder as
    the epoch begins."""
    batches = []
    for lesson in lessons:
        vectors = users(lesson.shop, encode(nets.product_encoder, lesson.shop), lesson.lists)
        pages = range(0, len(lesson.lists), PAGE)
        shuffled = random.sample(pages, len(pages))
        order = [n for page in shuffled for n in range(page, min(page + PAGE, len(lesson.lists)))]
        for first in range(0, len(order), batch):
            some = order[first : first + batch]
            batches.append((lesson, [lesson.lists[n] for n in some], vectors[some]))
    random.shuffle(batches)
    return batches


def _loss(nets: Nets, lesson: Lesson, lists: Sequence[RankedList], user_vectors: Floats) -> Tensor:
    """Click-through (BCE) of each row plus listwise softmax of each list."""
    products = lesson.shop.prepared
    items, place = np.unique(np.concatenate([one.items for one in lists]), return_inverse=True)
    some = products.take(items)
    tensors = {**some.arrays(), "text_ids": _trimmed(some.text_ids), "attribute_ids": _trimmed(some.attribute_ids)}
    content = nets.product_encoder(*map(torch.from_numpy, tensors.values()))[torch.from_numpy(place)]
    mask = torch.from_numpy(products.mask[items[place]])
    retrieval = torch.from_numpy(np.concatenate([one.retrieval for one in lists]))
    bought = torch.from_numpy(np.concatenate([one.bought for one in lists]))
    query = nets.query_encoder(torch.from_numpy(prepare_texts([one.query for one in lists])))
    logit = nets.ranker(
        query * _kept((len(lists), 1), UNASKED),
        torch.from_numpy(user_vectors) * _kept((len(lists), 1), STRANGERS),
        content,
        mask * _kept(mask.shape, DROPPED),
        _forgotten(torch.from_numpy(np.concatenate([one.numeric for one in lists]))),
        retrieval * _kept(retrieval.shape, DROPPED),
        torch.from_numpy(set_index(lists)),
    )
    sizes = [len(one.items) for one in lists]
    pairs = zip(torch.split(logit, sizes), torch.split(bought, sizes), strict=True)
    listwise = torch.stack([_softmax_loss(one, wanted) for one, wanted in pairs]).mean()
    return F.binary_cross_entropy_with_logits(logit, bought) + listwise


def _trimmed(ids: Ints) -> Ints:
    """Ids without the columns that are padding in every row."""
    return ids[:, : max(1, int((ids > 0).sum(1).max()))]


def _softmax_loss(logit: Tensor, bought: Tensor) -> Tensor:
    return -(logit.log_softmax(0) * bought).sum() / bought.sum()


def _forgotten(numeric: Tensor) -> Tensor:
    """Some rows without their price, some without their sales, as unknown products have none."""
    priced, sold = (_kept((len(numeric), 1), DROPPED) for _ in range(2))
    prices = torch.where(priced.bool(), numeric[:, PRICE_COLUMNS], float(UNKNOWN))
    return torch.cat((prices, numeric[:, BEHAVIOR_COLUMNS] * sold), 1)


def _kept(shape: Sequence[int] | torch.Size, dropped: float) -> Tensor:
    return (torch.rand(*shape) >= dropped).float()
