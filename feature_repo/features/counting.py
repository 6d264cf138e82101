"""What one event adds to the counts of a product and of a user."""

from feature_repo.events import Behavior

# columns of one bucket and of the totals
VIEWED, CLICKED, CARTED, ORDERED, PURCHASED, RETURNED = range(6)
COLUMNS = 6


def counts_of(event: Behavior) -> tuple[tuple[int, int], ...]:
    match event.type:
        case "impression":
            return ((VIEWED, 1),)
        case "click":
            return ((CLICKED, 1),)
        case "cart":
            return ((CARTED, 1),)
        case "purchase":
            return ((ORDERED, 1), (PURCHASED, event.quantity))
        case "return":
            return ((RETURNED, event.quantity),)
