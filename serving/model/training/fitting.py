"""Epochs: the steps, the best weights, and when to end.

What an epoch draws (the order of the lists, what is taken away from them) follows from the seed and its number. So a
checkpoint need not keep the state of any generator: a training that goes on draws what it would have drawn.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from serving.model.config import ModelConfig
from serving.model.encoders import ProductEncoder, QueryEncoder
from serving.model.encoders.tastes import Met
from serving.model.evaluate import Nets, logits, mean_ndcg, request
from serving.model.losses import losses
from serving.model.ranker import Answers, Ranker
from serving.model.training.batches import Batch, Known, batches, frozen, inputs, learning
from serving.model.training.checkpoint import Checkpoint
from serving.model.training.config import BadConfig, TrainConfig
from serving.model.training.material import Lesson
from serving.requests import PARTS
from serving.users import residuals

WEIGHT_DECAY: Final = 0.01


@dataclass(frozen=True)
class Step:
    """One batch: its losses by name, weighed, and the learning rate."""

    losses: Mapping[str, float]
    learning_rate: float


@dataclass(frozen=True)
class Epoch:
    """One time through all lists, counted from 1: mean losses by name, NDCG@10 on the lists that are checked (None
    without any), and how much the fusion weighs each part, if it has such weights."""

    epoch: int
    losses: Mapping[str, float]
    ndcg: float | None = None
    fusion_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. Of the stage `fit`, a step each; after its last one an epoch that has ended."""

    stage: str
    done: int
    total: int
    step: Step | None = None
    ended: Epoch | None = None


@dataclass(frozen=True)
class Course:
    """How a training went: its epochs; `best` is the number of the one whose weights were kept."""

    epochs: tuple[Epoch, ...] = ()
    best: int = 0

    @property
    def last(self) -> int:
        return len(self.epochs)

    def ndcg(self, epoch: int) -> float:
        found = self.epochs[epoch - 1].ndcg if epoch else None
        return -1.0 if found is None else found


def new_nets(config: ModelConfig) -> Nets:
    """Untrained nets; the towers share their text encoder."""
    nets = Nets(ProductEncoder(config), QueryEncoder(config), Ranker(config))
    nets.query_encoder.text = nets.product_encoder.text
    return nets


def fit(
    nets: Nets,
    lessons: Sequence[Lesson],
    config: TrainConfig,
    progress: Callable[[Progress], None],
    checked: Sequence[Lesson] = (),
    keep: Callable[[Checkpoint], None] | None = None,
    resume: Checkpoint | None = None,
) -> Course:
    """Train until the epochs are over or NDCG@10 on `checked` has not risen for `config.patience` of them; the nets end
    with the weights that were best on them. Without `checked`, the last ones.

    `keep` gets where the training stands after each epoch; `resume` goes on from there, and gives the weights that the
    training would have given without a break.
    """
    training = Training(nets, lessons, config)
    course = Course() if resume is None else training.restore(resume)
    while course.last < config.epochs and not _is_over(course, config.patience):
        found = training.epoch(course.last + 1, progress)
        if checked:
            found = replace(found, ndcg=training.check(checked))
        course = _after(course, found)
        if course.best == course.last:
            training.keep()
        if keep is not None:
            keep(training.checkpoint(course))
        progress(Progress("fit", course.last * training.steps, config.epochs * training.steps, ended=found))
    training.end()
    return course


class Training:
    """Nets, optimizer and schedule on their way through the epochs."""

    def __init__(self, nets: Nets, lessons: Sequence[Lesson], config: TrainConfig) -> None:
        self._nets = nets
        self._lessons = lessons
        self._config = config
        self._device = device_of(config.device)
        if config.only is None:
            see_catalogues(nets.product_encoder, lessons)
        for net in nets.by_name.values():
            net.to(self._device)
        self._learners = {name: net for name, net in nets.by_name.items() if config.only in (None, name)}
        parameters = {id(p): p for net in self._learners.values() for p in net.parameters()}
        self._optimizer = torch.optim.AdamW(parameters.values(), config.learning_rate, weight_decay=WEIGHT_DECAY)
        self.steps = sum(-(-len(lesson.lists) // config.batch) for lesson in lessons)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, config.learning_rate, total_steps=config.epochs * self.steps
        )
        self._best: dict[str, Tensor] = {}
        self._known: list[tuple[Lesson, Known]] | None = None

    def epoch(self, number: int, progress: Callable[[Progress], None]) -> Epoch:
        """All lists once."""
        done, total = (number - 1) * self.steps, self._config.epochs * self.steps
        self._rest()
        known = self._vectors()
        random = _draws(self._config.seed, number)
        for net in self._learners.values():
            net.train()
        found = []
        for batch in batches(known, self._config.batch, random):
            done += 1
            step = self._step(batch)
            found.append(step.losses)
            progress(Progress("fit", done, total, step))
        means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
        return Epoch(number, means, fusion_weights=fusion_weights(self._nets.ranker))

    def check(self, checked: Sequence[Lesson]) -> float:
        """Mean over the lessons of NDCG@10."""
        self._rest()
        return float(np.mean([_ndcg(self._nets, lesson) for lesson in checked]))

    def keep(self) -> None:
        """These weights are the best so far."""
        self._best = {name: tensor.detach().clone() for name, tensor in self._weights().items()}

    def end(self) -> None:
        """The best weights, on the processor."""
        for name, net in self._learners.items():
            net.load_state_dict(_below(f"{name}/", self._best))
        for net in self._nets.by_name.values():
            net.to("cpu").eval()

    def checkpoint(self, course: Course) -> Checkpoint:
        """All that the next epoch starts from."""
        state = self._optimizer.state_dict()
        moments = {f"{n}/{name}": tensor for n, each in state["state"].items() for name, tensor in each.items()}
        return Checkpoint(
            {**_under("now/", self._weights()), **_under("best/", self._best), **_under("optimizer/", moments)},
            {
                "course": asdict(course),
                "optimizer": state["param_groups"],
                "schedule": self._schedule.state_dict(),
                "steps": course.last * self.steps,
            },
        )

    def restore(self, checkpoint: Checkpoint) -> Course:
        """Go on from a checkpoint. Nets and optimizer take its tensors to where they are themselves."""
        self._best = _below("best/", checkpoint.tensors)
        weights = _below("now/", checkpoint.tensors)
        for name, net in self._learners.items():
            net.load_state_dict(_below(f"{name}/", weights))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer/", checkpoint.tensors).items():
            number, _, moment = name.partition("/")
            moments.setdefault(int(number), {})[moment] = tensor
        self._optimizer.load_state_dict({"state": moments, "param_groups": checkpoint.facts["optimizer"]})
        self._schedule.load_state_dict(checkpoint.facts["schedule"])
        course = checkpoint.facts["course"]
        return Course(tuple(Epoch(**epoch) for epoch in course["epochs"]), course["best"])

    def _vectors(self) -> list[tuple[Lesson, Known]]:
        """What stands still: for an epoch, with frozen towers for all of them."""
        if self._config.only != "ranker":
            return [(lesson, learning(self._nets, lesson)) for lesson in self._lessons]
        if self._known is None:
            self._known = [(lesson, frozen(self._nets, lesson, self._device)) for lesson in self._lessons]
        return self._known

    def _step(self, batch: Batch) -> Step:
        with self._precision():
            read = inputs(self._nets, batch, self._device, self._config.strangers)
            answers = self._nets.ranker.answers(*read.of_ranker)
        exact = Answers(answers.score.float(), {name: head.float() for name, head in answers.heads.items()})
        terms = losses(self._config.model.losses, exact, read.targets, read.set_index.long())
        self._optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        (rate,) = self._schedule.get_last_lr()
        self._optimizer.step()
        self._schedule.step()
        values = torch.stack([term.detach() for term in terms.values()]).tolist()
        return Step(dict(zip(terms, values, strict=True)), float(rate))

    def _precision(self) -> AbstractContextManager[Any]:
        """bfloat16 where it is fast; what needs float32 keeps it."""
        return torch.autocast("cuda", torch.bfloat16) if self._device.type == "cuda" else nullcontext()

    def _rest(self) -> None:
        for net in self._nets.by_name.values():
            net.eval()

    def _weights(self) -> dict[str, Tensor]:
        """The weights of the nets that learn."""
        return {
            f"{name}/{place}": tensor
            for name, net in self._learners.items()
            for place, tensor in net.state_dict().items()
        }


def see_catalogues(encoder: ProductEncoder, lessons: Sequence[Lesson]) -> None:
    """What an encoder takes from the products as they are, before anything is learned from what was done with them."""
    catalogues = [lesson.shop.prepared_at(encoder.image_size) for lesson in lessons]
    ids, numbers = ([getattr(one, name) for one in catalogues] for name in ("attribute_ids", "attribute_numbers"))
    first = 0
    met: list[Met] = []
    for lesson in lessons:
        met += [([first + row for row in rows], done) for rows, done in _met(lesson)]
        first += len(lesson.shop.products)
    encoder.attributes.fit(torch.from_numpy(np.concatenate(ids)), torch.from_numpy(np.concatenate(numbers)), met)


def _met(lesson: Lesson) -> Iterator[Met]:
    """What the people of each list had met before, as rows of the catalogue. Where nobody says what was passed over,
    nobody can be told apart."""
    if not lesson.shop.click_rates:
        return
    rows = {product.product_id: row for row, product in enumerate(lesson.shop.products)}
    for one in lesson.lists:
        found = residuals(one.history, lesson.shop.click_rates)
        known = [name for name in found if name in rows]
        yield [rows[name] for name in known], [found[name] for name in known]


def device_of(name: str) -> torch.device:
    """Raises BadConfig for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise BadConfig(f"train.device is {name!r}, expected auto, cpu or a device that is there: {first}") from error
    return device


def fusion_weights(ranker: Ranker) -> dict[str, float]:
    """How much each part counts; nothing for a fusion that has no such weights."""
    found = dict(ranker.fusion.named_parameters()).get("weights")
    return {} if found is None else dict(zip(PARTS, found.tolist(), strict=True))


def _ndcg(nets: Nets, lesson: Lesson) -> float:
    asked = request(nets, lesson.shop, lesson.lists)
    gains = np.concatenate([one.relevance for one in lesson.lists])
    return mean_ndcg(logits(nets.ranker, asked), gains, asked.set_index)


def _after(course: Course, epoch: Epoch) -> Course:
    """The later one is the better one where NDCG does not decide."""
    better = epoch.ndcg is None or epoch.ndcg > course.ndcg(course.best)
    return Course((*course.epochs, epoch), epoch.epoch if better else course.best)


def _is_over(course: Course, patience: int) -> bool:
    return patience > 0 and course.last - course.best >= patience


def _draws(seed: int, epoch: int) -> Random:
    """The generators of an epoch, torch's own among them."""
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return Random(digest)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
