"""What one event adds to the counts of a product and of a user."""

from feature_repo.events import Behavior

# columns of one bucket and of the totals
VIEWED, CLICKED, CARTED, ORDERED, PURCHASED, RETURNED = range(6)
COLUMNS = 6

#: (column, count) pairs
Counts = tuple[tuple[int, int], ...]

#: column of the events that count one, and nothing besides
COUNTED_ONCE = {"impression": VIEWED, "click": CLICKED, "cart": CARTED}
_ONE: dict[str, Counts] = {kind: ((column, 1),) for kind, column in COUNTED_ONCE.items()}


def counts_of(event: Behavior) -> Counts:
    counts = _ONE.get(event.type)
    if counts is not None:
        return counts
    if event.type == "purchase":
        return ((ORDERED, 1), (PURCHASED, event.quantity))
    return ((RETURNED, event.quantity),)
