"""The vector of a user: residuals times content vectors, by modality; a regression in likeness."""

from math import log1p

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.events import BEHAVIOR_TYPES
from feature_repo.views import EMBEDDING_DIM, LIKENESS, LIKENESS_DIM, MODALITIES, SLOTS, TASTE_SLOTS, USER_DIM
from serving.requests import Floats
from serving.users import EVENT_WEIGHTS, PRIOR_PRODUCTS, RIDGE, residuals, user_vector


def content(**values: float) -> Floats:
    """[S, D], the same number all over a slot of a modality, or over likeness."""
    found = np.zeros((len(SLOTS), EMBEDDING_DIM), np.float32)
    for name, value in values.items():
        found[list(LIKENESS) if name == "likeness" else MODALITIES.index(name)] = value
    return found


CONTENTS = {"one": content(text=1.0, attributes=4.0, audio=9.0, likeness=0.5), "two": content(text=2.0)}


def tastes(vector: Floats) -> dict[str, float]:
    """The taste in text, image and likeness, which is the same number all over it."""
    found = vector[: len(TASTE_SLOTS) * EMBEDDING_DIM].reshape(len(TASTE_SLOTS), EMBEDDING_DIM)
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], found.shape), rtol=1e-5)
    np.testing.assert_allclose(found[2:], found[2, 0], rtol=1e-5)
    return dict(zip(("text", "image", "likeness"), found[:3, 0].tolist(), strict=True))


def ridge(*products: tuple[float, float]) -> float:
    """The taste by hand for products (residual, number all over likeness): one unknown in equal equations."""
    square = LIKENESS_DIM * sum(value**2 for _, value in products)
    return sum(residual * value for residual, value in products) / (square + RIDGE)


def test_every_type_of_event_says_something() -> None:
    assert {*EVENT_WEIGHTS, "impression"} == set(BEHAVIOR_TYPES)


def test_what_was_bought_and_clicked() -> None:
    vector = user_vector([("purchase", "one", None, 1), ("click", "two", 3, 2)], CONTENTS)
    assert vector.dtype == np.float32
    assert vector.shape == (USER_DIM,)
    known = 2 + PRIOR_PRODUCTS
    found = tastes(vector)
    assert np.isclose(found["text"], 3 / known)
    assert np.isclose(found["likeness"], ridge((1, 0.5)))
    assert found["image"] == 0
    np.testing.assert_allclose(vector[-2:], [log1p(2), 2 / known], rtol=1e-6)


def test_a_return_takes_back_its_purchase() -> None:
    vector = user_vector([("purchase", "one", None, 1), ("return", "one", None, 2)], CONTENTS)
    assert not any(tastes(vector).values())


def test_what_is_passed_over_counts_by_where_it_stood() -> None:
    rates = (0.5, 0.25)
    history = [("impression", "one", 0, 1), ("impression", "two", 1, 1), ("click", "two", None, 2)]
    known = 2 + PRIOR_PRODUCTS
    assert np.isclose(tastes(user_vector(history, CONTENTS, rates))["text"], (-0.5 * 1 + 0.75 * 2) / known)
    for position in (1, 7, None, -1):
        far = user_vector([("impression", "one", position, 1)], CONTENTS, rates)
        assert np.isclose(far[-1], -0.25 / (1 + PRIOR_PRODUCTS)), "the last rate, further down and where nobody knows"


def test_what_products_have_in_common_is_not_counted_again_and_again() -> None:
    """Nine of one kind and one of another, all clicked: in a sum the first kind would count nine times."""
    contents = {}
    for name, column in (*((f"a{n}", 0) for n in range(9)), ("b", 1)):
        contents[name] = content()
        contents[name][LIKENESS[0], column] = 1
    vector = user_vector([("click", name, None, 1) for name in contents], contents)
    likeness = vector[TASTE_SLOTS.index(LIKENESS[0]) * EMBEDDING_DIM :]
    np.testing.assert_allclose(likeness[:2], [9 / (9 + RIDGE), 1 / (1 + RIDGE)], rtol=1e-6)


def test_what_was_done_with_each_product_less_what_was_expected() -> None:
    history = [
        ("impression", "liked", 0, 1),
        ("click", "liked", 0, 2),
        ("purchase", "liked", None, 3),
        ("impression", "passed", 1, 1),
        ("impression", "passed", 7, 4),
        ("purchase", "sent back", None, 5),
        ("return", "sent back", None, 6),
    ]
    found = residuals(history, (0.3, 0.2))
    assert found == {"liked": 2 - 0.3, "passed": -0.4, "sent back": 0.0}
    assert residuals(history) == {"liked": 2.0, "sent back": 0.0}, "nothing was expected, and nothing done with passed"


def test_without_rates_impressions_tell_nothing() -> None:
    history = [("impression", "two", 0, 1), ("purchase", "gone", None, 2), ("purchase", "one", None, 3)]
    alone = user_vector([("purchase", "one", None, 3)], CONTENTS)
    np.testing.assert_array_equal(user_vector(history, CONTENTS), alone)


def test_a_stranger_is_zeros() -> None:
    np.testing.assert_array_equal(user_vector([], CONTENTS), np.zeros(USER_DIM, np.float32))
    np.testing.assert_array_equal(user_vector([("click", "gone", 0, 1)], CONTENTS), np.zeros(USER_DIM, np.float32))


EVENTS = st.tuples(
    st.sampled_from(BEHAVIOR_TYPES), st.sampled_from("abcd"), st.none() | st.integers(-1, 5), st.integers(0, 9)
)


@given(st.lists(EVENTS, max_size=20).flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_the_order_of_events_does_not_matter(
    histories: tuple[list[tuple[str, str, int | None, int]], list[tuple[str, str, int | None, int]]],
) -> None:
    draws = np.random.default_rng(0)
    shape = (len(SLOTS), EMBEDDING_DIM)
    contents = {name: draws.normal(size=shape).astype(np.float32) for name in "abc"}
    one, other = (user_vector(history, contents, (0.3, 0.2)) for history in histories)
    np.testing.assert_allclose(one, other, atol=1e-6)
