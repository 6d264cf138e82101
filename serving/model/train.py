"""Lists -> weights: the towers and the ranker together, on real purchases and on drawn shirts, from a seed."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import torch
from torch import Tensor

from serving.datasets import online_retail as retail
from serving.datasets import shirts as garments
from serving.errors import ServingError
from serving.model import bundle, calibration
from serving.model.config import DEFAULT, LossWeights, ModelConfig
from serving.model.dataset import PAGE, RankedList, Shop, drawn_shirts, online_retail
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.model.evaluate import PRICE, Nets, Quality, encode, logits, quality, request, set_index, users
from serving.model.lessons import films, shirt_attributes, shirt_pictures, sounds
from serving.model.live_numbers import inputs_of
from serving.model.losses import Targets, loss
from serving.model.ranker import Ranker
from serving.preprocess import prepare_texts
from serving.requests import Floats, Ints

#: share of lists trained without a user vector: most shoppers are strangers
STRANGERS: Final = 0.3
#: share of lists trained without a query, as recommendations have none
UNASKED: Final = 0.05
#: share of the last lists of the real shop that nothing is learned from but how probable a click is
HELD_OUT: Final = 0.1
#: the step of a price by which its weight is measured, and how many rows of each list take it
PRICE_STEP: Final = 1.1
PRICE_ROWS: Final = 8


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
    #: films, and as many sounds; and lists of films, of sounds, and of products told by their attributes only
    media: int = 240
    media_lists: int = 400
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
    alone = (
        shirt_pictures(shirts, config.seed, config.picture_lists),
        shirt_attributes(shirts, config.seed, config.media_lists),
        films(config.seed, config.media, config.media_lists),
        sounds(config.seed, config.media, config.media_lists),
    )
    nets = new_nets(config.model)
    learned, held_out = seen[: -max(1, int(HELD_OUT * len(seen)))], seen[-max(1, int(HELD_OUT * len(seen))) :]
    lessons = [Lesson(shop, learned), Lesson(drawn, drawn.lists), *(Lesson(one, one.lists) for one in alone)]
    fit(nets, lessons, config, progress)
    silent = silence(nets.ranker, [*learned, *drawn.lists])
    calibrate(nets, Lesson(shop, held_out))
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
    for net in nets.by_name.values():
        net.train()
    parameters = {id(p): p for net in nets.by_name.values() for p in net.parameters()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.learning_rate, weight_decay=0.01)
    steps = config.epochs * sum(-(-len(lesson.lists) // config.batch) for lesson in lessons)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps)
    loss_of_epoch: float | None = None
    done = 0
    for _ in range(config.epochs):
        losses = []
        for lesson, some, vectors in _epoch(nets, lessons, config.batch, random):
            wrong = _loss(nets, config.model.losses, lesson, some, vectors)
            optimizer.zero_grad()
            wrong.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(wrong.item())
            done += 1
            progress(Progress("fit", done, steps, loss_of_epoch))
        loss_of_epoch = float(np.mean(losses))
    for net in nets.by_name.values():
        net.eval()


def silence(ranker: Ranker, lists: Sequence[RankedList]) -> list[str]:
    """Take out the numbers that never varied in what was learned from. Returns their names."""
    numeric, retrieval, of = (
        np.concatenate([one.numeric for one in lists]),
        np.concatenate([one.retrieval for one in lists]),
        set_index(lists).astype(np.int64),
    )
    parts = ranker.parts
    with torch.no_grad():
        inputs = parts.numbers(*map(torch.from_numpy, (numeric, retrieval, of)), len(lists))
    silent = parts.figures.silence(inputs).tolist()
    return [name for (_, name), is_silent in zip(inputs_of(parts.numbers.relative), silent, strict=True) if is_silent]


def calibrate(nets: Nets, held_out: Lesson) -> None:
    """Make the sigmoid of a score the probability that the row is bought."""
    score = torch.from_numpy(logits(nets.ranker, request(nets, held_out.shop, held_out.lists)))
    bought = torch.from_numpy(np.concatenate([one.bought for one in held_out.lists]))
    calibration.fold(nets.ranker.heads, calibration.fit(score, bought))


def price_weight(nets: Nets, lessons: Sequence[Lesson]) -> float:
    """Mean fall of the logit per unit of ln(price) over all rows with a price: what a degraded ranking corrects a
    change of price by. 0 where the model likes what is dear."""
    falls = np.concatenate([_falls(nets, lesson) for lesson in lessons])
    return max(0.0, round(float(falls.mean()), 4))


def _falls(nets: Nets, lesson: Lesson) -> Floats:
    """[n] -d logit / d ln(price) of some rows of each list, one at a time, while the others keep their price."""
    asked = request(nets, lesson.shop, lesson.lists)
    before = logits(nets.ranker, asked)
    draws = np.random.default_rng(0)
    falls = []
    for _ in range(PRICE_ROWS):
        order = draws.permutation(np.flatnonzero(asked.numeric[:, PRICE] > 0))
        rows = order[np.unique(asked.set_index[order], return_index=True)[1]]
        numeric = asked.numeric.copy()
        numeric[rows, PRICE] *= PRICE_STEP
        after = logits(nets.ranker, replace(asked, numeric=numeric))
        falls.append((before[rows] - after[rows]) / np.log(PRICE_STEP))
    return np.concatenate(falls).astype(np.float32)


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


def _loss(
    nets: Nets, weights: LossWeights, lesson: Lesson, lists: Sequence[RankedList], user_vectors: Floats
) -> Tensor:
    """What a batch of lists says against the nets: bought is clicked, and as relevant as can be."""
    products = lesson.shop.prepared
    items, place = np.unique(np.concatenate([one.items for one in lists]), return_inverse=True)
    some = products.take(items)
    tensors = {**some.arrays(), "text_ids": _trimmed(some.text_ids), "attribute_ids": _trimmed(some.attribute_ids)}
    content = nets.product_encoder(*map(torch.from_numpy, tensors.values()))[torch.from_numpy(place)]
    mask = torch.from_numpy(products.mask[items[place]])
    retrieval = torch.from_numpy(np.concatenate([one.retrieval for one in lists]))
    bought = torch.from_numpy(np.concatenate([one.bought for one in lists]))
    query = nets.query_encoder(torch.from_numpy(prepare_texts([one.query for one in lists])))
    of = torch.from_numpy(set_index(lists))
    answers = nets.ranker.answers(
        query * _kept((len(lists), 1), UNASKED),
        torch.from_numpy(user_vectors) * _kept((len(lists), 1), STRANGERS),
        content,
        mask,
        torch.from_numpy(np.concatenate([one.numeric for one in lists])),
        retrieval,
        of,
    )
    return loss(weights, answers, Targets(bought, bought), of.long())


def _trimmed(ids: Ints) -> Ints:
    """Ids without the columns that are padding in every row."""
    return ids[:, : max(1, int((ids > 0).sum(1).max()))]


def _kept(shape: Sequence[int] | torch.Size, dropped: float) -> Tensor:
    return (torch.rand(*shape) >= dropped).float()
