"""What stands and what should: rankings, stored rows, dead letters. Pure.

Every function answers with differences in words; none means equal.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from feature_repo.features import behavior_values, catalog_ints, catalog_strings, user_history, user_values
from feature_repo.row import unpack_row
from feature_repo.views import PRODUCT_BEHAVIOR, PRODUCT_CATALOG, USER_BEHAVIOR, View
from streams.dead_letters import DeadLetter
from streams.oracle.expecting import Expectation, Expected, Nothing
from streams.oracle.replaying import Place, Replay
from streams.records import CONTENT, MODELS, Ranking

#: scores as near as this are the same: fp32 sums in another order, then rounded to 5 decimals
TOLERANCE = 2e-5
#: names in a sentence
NAMED = 3

Numbers = NDArray[np.float64]


# --- rankings ------------------------------------------------------------------------------------------------------


def compare(expected: Expectation, got: Ranking | None) -> list[str]:
    """How the newest ranking of a set differs; None is a null or no record."""
    if isinstance(expected, Nothing):
        return [] if got is None else [f"a ranking stands, but nothing should: {expected.why}"]
    if got is None:
        return ["no ranking stands"]
    return [*_about_model(expected, got), *_about_order(expected, got)]


def _about_model(expected: Expected, got: Ranking) -> Iterator[str]:
    if got.model_version != expected.model_version:
        yield f"model: expected {expected.model_version}, got {got.model_version}"
    if got.degraded:
        yield "degraded"


def _about_order(expected: Expected, got: Ranking) -> Iterator[str]:
    places = {product_id: place for place, product_id in enumerate(expected.product_ids)}
    wrong = _about_ids(places.keys(), got.product_ids)
    if wrong:
        yield wrong
        return
    at = np.array([places[product_id] for product_id in got.product_ids], np.int64)
    want, have = expected.scores[at], got.scores.astype(np.float64)
    for rank in np.flatnonzero(~(np.abs(want - have) <= TOLERANCE))[:NAMED]:
        yield f"score of {got.product_ids[rank]}: expected {want[rank]:.5f}, got {have[rank]:.5f}"
    sold_out = expected.sold_out[at]
    if not np.array_equal(sold_out, np.sort(sold_out)):
        rank = int(np.flatnonzero(sold_out)[0])
        yield f"{got.product_ids[rank]} is sold out, but does not stand at the end"
        return
    for group in (np.flatnonzero(~sold_out), np.flatnonzero(sold_out)):
        if (np.diff(have[group]) > 0).any():
            yield "not in the order of its own scores"
        for first, second in _inversions(want[group]):
            names = got.product_ids[group[first]], got.product_ids[group[second]]
            scores = want[group[first]], want[group[second]]
            yield "order: {} stands before {}, by score {:.5f} and {:.5f}".format(*names, *scores)


def _about_ids(expected: Collection[str], got: tuple[str, ...]) -> str:
    missing, extra = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    doubled = len(got) - len(set(got))
    parts = [f"missing {_some(missing)}"] if missing else []
    parts += [f"unexpected {_some(extra)}"] if extra else []
    parts += [f"{doubled} twice"] if doubled else []
    return f"products: {', '.join(parts)}" if parts else ""


def _inversions(scores: Numbers) -> Iterator[tuple[int, int]]:
    """(place of the lower, place of the higher that comes later), for some pairs further apart than TOLERANCE."""
    if not len(scores):
        return
    lowest = np.minimum.accumulate(scores)
    for second in np.flatnonzero(scores > lowest + TOLERANCE)[:NAMED]:
        yield int(np.argmin(scores[:second])), int(second)


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


# --- stored rows ---------------------------------------------------------------------------------------------------


def entities(replay: Replay) -> dict[View, list[str]]:
    """The rows that must be in the store."""
    return {
        PRODUCT_CATALOG: sorted(replay.catalog),
        PRODUCT_BEHAVIOR: sorted(replay.behavior),
        USER_BEHAVIOR: replay.users,
    }


def compare_row(replay: Replay, view: View, entity: str, blob: bytes | None) -> list[str]:
    """How a stored row differs. Its windows may have been evaluated earlier: then no bucket has left them since."""
    if blob is None:
        return ["no such row"]
    try:
        row = unpack_row(view, blob)
    except ValueError as error:
        return [str(error)]
    ints, floats, strings = _values(replay, view, entity)
    return [
        *_unequal((f.name for f in view.ints), ints, row.ints),
        *_unequal((f.name for f in view.floats), np.array(floats, np.float32).tolist(), row.floats.tolist()),
        *_unequal((f.name for f in view.strings), strings, row.strings),
    ]


def _values(replay: Replay, view: View, entity: str) -> tuple[list[int], list[float], list[object]]:
    if view is PRODUCT_CATALOG:
        state = replay.catalog[entity]
        return catalog_ints(state), [], list(catalog_strings(state))
    if view is PRODUCT_BEHAVIOR:
        return [], behavior_values(replay.behavior[entity].state, replay.as_of(entity)), []
    user = replay.user(entity)
    return [], user_values(user), [user_history(user)]


def _unequal(names: Iterable[str], expected: Iterable[object], got: Iterable[object]) -> Iterator[str]:
    for name, wanted, there in zip(names, expected, got, strict=True):
        if wanted != there:
            yield f"{name}: expected {wanted!r:.80}, got {there!r:.80}"


# --- dead letters --------------------------------------------------------------------------------------------------


def place_of(letter: DeadLetter) -> Place:
    return Place(letter.topic, letter.partition, letter.offset, letter.place)


def compare_letters(replay: Replay, found: Mapping[Place, Collection[str]]) -> list[str]:
    """How the dead letters differ from what validation rejects; `found` are reasons by place.

    A letter may come twice: a rewind buries again. Broken media are found where they are decoded, so letters of
    `content` come besides; what `models` rejects may be told of or not. A message that was not read, since it came
    later or was compacted away, proves nothing.
    """
    wanted = {place: reason for place, reason in replay.rejected.items() if place.topic != MODELS}
    differences = [
        f"{_named(place)}: expected {reason}, no dead letter" for place, reason in wanted.items() if place not in found
    ]
    for place, reasons in found.items():
        if place.topic == CONTENT or not replay.has_read(place):
            continue
        expected = replay.rejected.get(place)
        differences += [
            f"{_named(place)}: expected {expected or 'no dead letter'}, got {reason}"
            for reason in sorted(reasons)
            if reason != expected
        ]
    return differences


def _named(place: Place) -> str:
    whole = "" if place.place < 0 else f", record {place.place}"
    return f"{place.topic}[{place.partition}] offset {place.offset}{whole}"
