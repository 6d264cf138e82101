"""The vector of a user is a mean over events, in their order."""

import numpy as np

from feature_repo.events import BEHAVIOR_TYPES
from feature_repo.views import EMBEDDING_DIM
from serving.users import EVENT_WEIGHTS, user_vector

ONE, TWO = (np.full(EMBEDDING_DIM, value, np.float32) for value in (1.0, 2.0))
TEXTS = {"one": ONE, "two": TWO}


def test_every_type_of_event_has_its_weight() -> None:
    assert set(EVENT_WEIGHTS) == set(BEHAVIOR_TYPES)


def test_the_mean_of_what_was_bought() -> None:
    vector = user_vector([("purchase", "one", None, 1), ("click", "two", 3, 2)], TEXTS)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, np.full(EMBEDDING_DIM, 1.5, np.float32))


def test_a_return_takes_back_its_purchase() -> None:
    assert not user_vector([("purchase", "one", None, 1), ("return", "one", None, 2)], TEXTS).any()


def test_impressions_and_unknown_products_tell_nothing() -> None:
    history = [("impression", "two", 0, 1), ("purchase", "gone", None, 2), ("purchase", "one", None, 3)]
    np.testing.assert_array_equal(user_vector(history, TEXTS), ONE)


def test_a_stranger_is_zeros() -> None:
    np.testing.assert_array_equal(user_vector([], TEXTS), np.zeros(EMBEDDING_DIM, np.float32))
