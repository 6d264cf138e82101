"""The vector of a user: residuals times content vectors, by modality."""

from math import log1p

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.events import BEHAVIOR_TYPES
from feature_repo.views import EMBEDDING_DIM, MODALITIES, TASTES, USER_DIM
from serving.requests import Floats
from serving.users import EVENT_WEIGHTS, PRIOR_PRODUCTS, user_vector


def content(**values: float) -> Floats:
    """[M, D], the same number all over a modality."""
    found = np.zeros((len(MODALITIES), EMBEDDING_DIM), np.float32)
    for modality, value in values.items():
        found[MODALITIES.index(modality)] = value
    return found


CONTENTS = {"one": content(text=1.0, attributes=4.0, audio=9.0), "two": content(text=2.0)}


def tastes(vector: Floats) -> dict[str, float]:
    """The taste in each modality, which is the same number all over it."""
    found = vector[: len(TASTES) * EMBEDDING_DIM].reshape(len(TASTES), EMBEDDING_DIM)
    assert (found == found[:, :1]).all()
    return dict(zip(TASTES, found[:, 0].tolist(), strict=True))


def test_every_type_of_event_says_something() -> None:
    assert {*EVENT_WEIGHTS, "impression"} == set(BEHAVIOR_TYPES)


def test_what_was_bought_and_clicked() -> None:
    vector = user_vector([("purchase", "one", None, 1), ("click", "two", 3, 2)], CONTENTS)
    assert vector.dtype == np.float32
    assert vector.shape == (USER_DIM,)
    known = 2 + PRIOR_PRODUCTS
    found = tastes(vector)
    assert np.isclose(found["text"], 3 / known)
    assert np.isclose(found["attributes"], 4 / known)
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
    shape = (len(MODALITIES), EMBEDDING_DIM)
    contents = {name: draws.normal(size=shape).astype(np.float32) for name in "abc"}
    one, other = (user_vector(history, contents, (0.3, 0.2)) for history in histories)
    np.testing.assert_allclose(one, other, atol=1e-6)
