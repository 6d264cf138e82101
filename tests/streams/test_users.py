"""Users of live sets: their vectors, and the products of their histories as dependencies."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_repo.views import EMBEDDING_DIM
from serving.users import PRIOR_PRODUCTS
from streams.candidate_rows import CandidateRows
from streams.records import Change
from streams.users import Users
from tests.streams.fakes import word_vector
from tests.streams.lists import content_row, user_row


class World:
    def __init__(self) -> None:
        self.rows = CandidateRows(8)
        self.users = Users(self.rows)

    def put(self, change: Change) -> bool:
        return self.users.put(change.entity, change.blob)

    def content(self, product: str, offset: int, text: str) -> None:
        change = content_row(product, offset, text=text)
        self.rows.put(change.view, self.rows.slots[product], change.blob)


@pytest.fixture
def world() -> World:
    return World()


def test_a_user_is_read_once_however_many_sets_there_are(world: World) -> None:
    assert world.users.acquire("u")
    assert not world.users.acquire("u")
    world.put(user_row("u", 0, "a"))
    assert world.users.release("u") == []
    assert "u" in world.users
    assert world.users.release("u") == ["a"]
    assert "u" not in world.users
    assert world.users.acquire("u"), "and again"
    assert not world.users.row("u").history


def test_a_row_of_nobody_is_not_taken(world: World) -> None:
    assert not world.put(user_row("u", 0, "a"))


def test_products_of_the_history_are_held_and_must_be_read(world: World) -> None:
    world.users.acquire("u")
    world.rows.acquire("b")
    assert world.put(user_row("u", 0, "a", "b", "a"))
    assert world.users.unread == {"a"}, "somebody else has read b"
    assert world.rows.users[world.rows.slots["b"]] == 2
    assert world.users.watching(world.rows.slots["a"]) == ("u",)
    world.put(user_row("u", 1, "b", "c"))
    assert "a" not in world.rows.slots
    assert world.users.unread == {"a", "c"}
    assert world.rows.users[world.rows.slots["b"]] == 2


def test_only_another_history_is_news(world: World) -> None:
    world.users.acquire("u")
    assert world.put(user_row("u", 5, "a"))
    assert not world.put(user_row("u", 6, "a"))
    assert not world.put(user_row("u", 4, "b")), "older"
    assert world.put(user_row("u", 6, "b")), "equal is taken"
    assert world.users.row("u").version == 7


def test_the_vector_is_made_of_what_the_products_look_like_now(world: World) -> None:
    rates: tuple[float, ...] = ()

    def text_taste() -> NDArray[np.float32]:
        return world.users.vector("u", rates)[:EMBEDDING_DIM]

    world.users.acquire("u")
    assert not text_taste().any()
    world.put(user_row("u", 0, "a", "b"))
    assert not text_taste().any(), "their content is not known"
    world.content("a", 0, "red")
    assert not text_taste().any(), "made once, kept until it is forgotten"
    world.users.forget_vector("u")
    assert np.allclose(text_taste(), word_vector("red") / (1 + PRIOR_PRODUCTS))
    world.content("b", 0, "blue")
    world.users.forget_vector("u")
    assert np.allclose(text_taste(), (word_vector("red") + word_vector("blue")) / (2 + PRIOR_PRODUCTS))
    world.put(user_row("u", 1, "b"))
    assert np.allclose(text_taste(), word_vector("blue") / (1 + PRIOR_PRODUCTS)), "a new history is a new vector"


def test_the_rates_of_another_bundle_make_other_vectors(world: World) -> None:
    world.users.acquire("u")
    world.put(user_row("u", 0, "a", kind="impression"))
    world.content("a", 0, "red")
    assert not world.users.vector("u", []).any()
    assert np.isclose(world.users.vector("u", [0.5])[-1], -0.5 / (1 + PRIOR_PRODUCTS))


def test_what_a_user_did_with_a_product_is_told_by_its_slot(world: World) -> None:
    world.users.acquire("u")
    candidates = np.array([world.rows.acquire(name)[0] for name in ("c", "b", "a", "c2")], np.int32)
    assert world.users.familiarity("u", candidates, []).tolist() == [0, 0, 0, 0]
    world.put(user_row("u", 0, "a", "x", "b", "a"))
    assert world.users.familiarity("u", candidates, []).tolist() == [0, 1, 2, 0]
    world.put(user_row("u", 1, "c"))
    assert world.users.familiarity("u", candidates, []).tolist() == [1, 0, 0, 0], "a new history"
    world.put(user_row("u", 2, "c2", kind="impression"))
    assert world.users.familiarity("u", candidates, [0.25]).tolist() == [0, 0, 0, -0.25]
    assert world.users.familiarity("u", candidates, [0.5]).tolist() == [0, 0, 0, -0.5], "the rates of another bundle"


def test_a_product_of_two_users_is_watched_until_both_have_gone(world: World) -> None:
    for user in ("u", "v"):
        world.users.acquire(user)
        world.put(user_row(user, 0, "a"))
    slot = world.rows.slots["a"]
    assert sorted(world.users.watching(slot)) == ["u", "v"]
    assert world.users.release("u") == []
    assert world.users.watching(slot) == ("v",)
    assert world.users.release("v") == ["a"]
    assert world.users.watching(slot) == ()
