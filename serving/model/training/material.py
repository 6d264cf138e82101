"""What is learned from and what is measured on: the project's shops, or a shop's own log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from serving.datasets import online_retail as retail
from serving.datasets import shirts as garments
from serving.errors import ServingError
from serving.model.dataset import PAGE, RankedList, Shop, drawn_shirts, online_retail
from serving.model.lessons import films, shirt_attributes, shirt_pictures, sounds
from serving.model.log_lists import first_tested
from serving.model.training.config import TrainConfig

#: share of the last lists to learn from that nothing is learned from but when to end, and how probable a click is
HELD_OUT: Final = 0.1
#: a log with fewer lists in which something was wanted teaches nothing
FEWEST_LISTS: Final = 20


@dataclass(frozen=True)
class Lesson:
    """Lists of one shop."""

    shop: Shop
    lists: Sequence[RankedList]


@dataclass(frozen=True)
class Material:
    """`lessons` are learned from, those first that have live numbers. By the lists of `checked` epochs are compared;
    they belong to the weeks that are learned from, those of the real shop come first. `tested` is what nothing knows.
    """

    lessons: tuple[Lesson, ...]
    numbered: int
    checked: tuple[Lesson, ...]
    tested: dict[str, Lesson]


def examples(config: TrainConfig, tell: Callable[[int, int], None]) -> Material:
    """The weeks of a real shop before its last one, and drawn garments; the last week, and other garments to test on.

    `tell` hears of days made into lists.
    """
    history = retail.load(config.data)
    shop = online_retail(history, config.seed, config.lists_per_day, tell)
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
    bought, held_out = _parted(Lesson(shop, seen))
    looked, looked_later = _parted(Lesson(drawn, drawn.lists), PAGE)
    return Material(
        lessons=(bought, looked, *(Lesson(one, one.lists) for one in alone)),
        numbered=2,
        checked=(held_out, looked_later),
        tested={"online_retail": Lesson(shop, later), "shirts": Lesson(unseen, unseen.lists)},
    )


def of_log(shop: Shop, tested: float) -> Material:
    """A shop's own lists in order of time; the last share of them to test on."""
    lists = shop.lists
    if len(lists) < FEWEST_LISTS:
        raise ServingError(
            f"the log has {len(lists)} lists of which something was clicked, put into a cart or bought, "
            f"expected {FEWEST_LISTS} or more: events name their list by result_set_id"
        )
    first = first_tested(len(lists), tested)
    learned, held_out = _parted(Lesson(shop, lists[:first]))
    return Material((learned,), 1, (held_out,), {"log": Lesson(shop, lists[first:])})


def _parted(lesson: Lesson, together: int = 1) -> tuple[Lesson, Lesson]:
    """The lists, and the last HELD_OUT of them; never through the middle of `together` lists."""
    first = len(lesson.lists) - max(1, int(HELD_OUT * len(lesson.lists)))
    first = max(together, first // together * together)
    return Lesson(lesson.shop, lesson.lists[:first]), Lesson(lesson.shop, lesson.lists[first:])
