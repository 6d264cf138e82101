"""From changed rows to rankings: what is scored, what is published, and what never is."""

from __future__ import annotations

import numpy as np
import pytest

from feature_repo.views import EMBEDDING_DIM, FAMILIARITY
from serving.requests import CONTRIBUTIONS
from streams import reranking
from streams.records import encode_record
from streams.reranking import Work
from streams.standings import Standing, standing_of
from tests.streams.bench import HOUR
from tests.streams.lists import (
    BUNDLE,
    Lists,
    behavior_row,
    catalog_row,
    content_row,
    registration,
    user_row,
)


@pytest.fixture
def lists() -> Lists:
    return Lists()


def ranked(lists: Lists, *candidates: str | tuple[str, float], **fields: object) -> None:
    """A set "s" that was ranked and published once."""
    lists.register("s", candidates, **fields)
    lists.rank()


def sets_of(lists: Lists, work: Work) -> list[str]:
    """Ids of the sets that were taken."""
    members = [lists.reranker.sets.by_number[number] for part in work.parts for number in part.numbers]
    return sorted(live.id for live in members if live is not None)


# --- what is scored ------------------------------------------------------------------------------------------------


def test_a_new_set_is_scored_whole_and_published_with_no_cause(lists: Lists) -> None:
    lists.register("s", [("a", 1.0), ("b", 3.0), ("c", 2.0)])
    work = lists.take()
    assert work.request is not None
    assert (work.request.rows, work.whole_rows) == (3, 3)
    (ranking,) = lists.apply(work)
    assert ranking.product_ids == ("b", "c", "a")
    assert ranking.scores.tolist() == [3.0, 2.0, 1.0]
    assert ranking.previous_ranks.tolist() == [-1, -1, -1]
    assert (ranking.caused_by, ranking.model_version, ranking.degraded) == (None, "default/1", False)
    assert not lists.reranker.is_dirty


def test_only_changed_rows_are_in_the_request(lists: Lists) -> None:
    ranked(lists, "a", "b", "c")
    lists.register("t", ["b", "x"])
    lists.rank()
    lists.price("b", 500)
    work = lists.take()
    assert work.request is not None
    assert work.request.rows == 2, "once for each set that holds it"
    assert work.request.numeric[:, 0].tolist() == [500.0, 500.0]
    assert work.request.set_index.tolist() == [0, 1]
    assert work.whole_rows == 5


def test_a_product_that_no_set_holds_makes_nothing_dirty(lists: Lists) -> None:
    ranked(lists, "a")
    lists.price("z", 500)
    assert lists.reranker.take() is None


def test_what_changes_during_a_call_goes_into_the_next(lists: Lists) -> None:
    ranked(lists, "a", "b", "c")
    lists.price("a", 100)
    work = lists.take()
    lists.price("b", 300)
    lists.price("b", 200)
    assert lists.apply(work)[0].product_ids == ("b", "c", "a")
    following = lists.take()
    assert following.request is not None
    assert following.request.numeric[:, 0].tolist() == [200.0], "the newest value, once"
    assert lists.apply(following)[0].product_ids == ("c", "a", "b")


def test_a_request_is_bounded_and_what_is_left_comes_next(lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "REQUEST_ROWS", 3)
    for name in "stuv":
        lists.register(name, [f"{name}1", f"{name}2"])
    sizes = []
    while (work := lists.reranker.take()) is not None:
        sizes.append(work.request.rows if work.request else 0)
        lists.apply(work)
    assert sizes == [4, 4]
    assert sorted({ranking.result_set_id for ranking in lists.published}) == list("stuv")


def test_a_change_of_the_order_alone_asks_no_model(lists: Lists) -> None:
    ranked(lists, ("a", 2.0), ("b", 1.0))
    lists.change(catalog_row("a", 1, stock=0))
    work = lists.take()
    assert work.request is None
    (ranking,) = lists.apply(work)
    assert ranking.product_ids == ("b", "a")


def test_a_set_whose_rows_are_not_read_is_not_ranked(lists: Lists) -> None:
    found = registration("s", ["a"])
    needs = lists.reranker.register(found, encode_record(found), 0)
    assert needs is not None
    lists.price("a", 100)
    assert lists.reranker.is_dirty
    assert lists.reranker.take() is None
    lists.reranker.begin(needs.live)
    assert lists.reranker.take() is None, "nor is one whose query was not encoded"
    assert lists.reranker.without_query() == [needs.live]
    assert lists.reranker.take(encoded_only=False) is not None, "unless there is no model anyway"


def test_a_set_that_is_loaded_while_another_query_is_encoded_waits_for_its_own(lists: Lists) -> None:
    ranked(lists, ("a", 1.0), query="red")
    late = registration("t", ["a"], query="blue")
    needs = lists.reranker.register(late, encode_record(late), 0)
    assert needs is not None
    lists.reranker.begin(needs.live)
    lists.price("a", 100)
    work = lists.take()
    assert sets_of(lists, work) == ["s"]
    assert [live.id for live in lists.reranker.without_query()] == ["t"]


def test_with_list_scope_a_set_is_scored_whole_and_others_not_at_all() -> None:
    lists = Lists(scope="list")
    ranked(lists, "a", "b", "c")
    lists.register("t", ["x", "y"])
    lists.rank()
    lists.price("b", 500)
    work = lists.take()
    assert work.request is not None
    assert sets_of(lists, work) == ["s"]
    assert work.request.numeric[:, 0].tolist() == [-1.0, 500.0, -1.0]
    (ranking,) = lists.apply(work)
    assert dict(zip(ranking.product_ids, ranking.scores.tolist(), strict=True)) == {"a": 1.0, "b": -0.5, "c": 1.0}
    lists.change(catalog_row("b", lists.offset + 1, price=500, stock=0))
    assert lists.take().request is None, "the order alone asks no model"


def test_with_list_scope_no_set_is_split_between_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "REQUEST_ROWS", 3)
    lists = Lists(scope="list")
    for name in "st":
        lists.register(name, ["a", "b", "c", "d"])
    lists.rank()
    lists.price("a", 7)
    lists.price("d", 3)
    sizes = []
    while (work := lists.reranker.take()) is not None:
        sizes.append(work.request.rows if work.request else 0)
        lists.apply(work)
    assert sizes == [4, 4]


# --- what is published ---------------------------------------------------------------------------------------------


def test_nothing_is_published_when_neither_order_nor_rounded_score_changed(lists: Lists) -> None:
    ranked(lists, "a", "b")
    lists.change(behavior_row("a", 0, sales_1h=0.00001))
    assert lists.rank() == []
    lists.change(behavior_row("a", 1, sales_1h=0.001))
    assert len(lists.rank()) == 1


def test_a_score_that_changed_is_published_in_the_same_order_with_its_cause(lists: Lists) -> None:
    ranked(lists, ("a", 9.0), "b")
    lists.price("a", 100, time=HOUR + 5)
    (ranking,) = lists.rank()
    assert ranking.product_ids == ("a", "b")
    assert ranking.scores.tolist() == [np.float32(8.9), 0.0]
    assert ranking.previous_ranks.tolist() == [0, 1]
    cause = ranking.caused_by
    assert cause is not None
    assert (cause.view, cause.entity, cause.version, cause.event_time) == ("product_catalog", "a", 2, HOUR + 5)
    assert ranking.cause_kafka_time == HOUR + 1


def test_the_first_of_many_causes_is_named(lists: Lists) -> None:
    ranked(lists, "a", "b")
    lists.price("b", 100)
    lists.price("a", 100)
    (ranking,) = lists.rank()
    assert ranking.caused_by is not None
    assert ranking.caused_by.entity == "b"


def test_out_of_stock_comes_last_and_delisted_is_left_out(lists: Lists) -> None:
    candidates = [("a", 1.0), ("b", 4.0), ("c", 3.0), ("d", 2.0)]
    ranked(lists, *candidates)
    lists.change(catalog_row("b", 1, stock=0), catalog_row("c", 1, delisted=True), catalog_row("a", 1, stock=0))
    (ranking,) = lists.rank()
    assert ranking.product_ids == ("d", "b", "a")
    assert ranking.previous_ranks.tolist() == [2, 0, 3]
    lists.change(catalog_row("c", 2, stock=9))
    assert lists.rank()[0].previous_ranks.tolist() == [-1, 0, 1, 2]
    assert lists.order("s") == ("c", "d", "b", "a")


def test_equal_scores_are_in_order_of_the_ids(lists: Lists) -> None:
    ranked(lists, "c", "b", "a")
    assert lists.order("s") == ("a", "b", "c")


def test_a_list_may_become_empty_and_that_is_published(lists: Lists) -> None:
    ranked(lists, "a")
    lists.change(catalog_row("a", 1, delisted=True))
    (ranking,) = lists.rank()
    assert ranking.product_ids == ()
    assert len(ranking.scores) == len(ranking.previous_ranks) == 0


def test_contributions_are_there_where_they_are_asked_for(lists: Lists) -> None:
    ranked(lists, ("a", 1.0), ("b", 2.0))
    assert lists.published[-1].contributions is None
    lists.reranker.remove("s")
    lists.register("t", [("a", 1.0), ("b", 2.0)], context={"explain": True})
    (ranking,) = lists.rank()
    assert ranking.contributions is not None
    assert ranking.contributions[:, CONTRIBUTIONS.index("retrieval")].tolist() == [2.0, 1.0], "in order of rank"
    lists.price("b", 4000)
    (ranking,) = lists.rank()
    assert ranking.contributions is not None
    assert np.allclose(ranking.contributions.sum(axis=1), ranking.scores)


def test_ages_are_by_the_logs_clock_and_missing_rows_have_none(lists: Lists) -> None:
    lists.register("s", ["a", "b", "c"])
    lists.change(catalog_row("a", 0, price=1, time=HOUR - 50), catalog_row("b", 0, price=1, time=HOUR + 5))
    (ranking,) = lists.rank()
    assert ranking.feature_age_ms == {"product_catalog": (0, 50)}


# --- registering ---------------------------------------------------------------------------------------------------


def test_the_same_bytes_again_do_nothing(lists: Lists) -> None:
    ranked(lists, "a", "b")
    same = registration("s", ["a", "b"])
    assert lists.reranker.register(same, encode_record(same), 0) is None
    assert not lists.reranker.is_dirty


def test_other_bytes_score_the_whole_set_and_keep_its_previous_ranks(lists: Lists) -> None:
    ranked(lists, ("a", 1.0), ("b", 2.0))
    lists.register("s", [("c", 3.0), ("a", 1.0)])
    (ranking,) = lists.rank()
    assert ranking.product_ids == ("c", "a")
    assert ranking.previous_ranks.tolist() == [-1, 1]
    lists.register("s", [("a", 1.0), ("c", 3.0)])
    assert lists.rank() == [], "the same list in other bytes"


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_set_that_goes_during_a_call_is_not_published(lists: Lists, how: str) -> None:
    ranked(lists, "a", "b")
    lists.price("a", 100)
    work = lists.take()
    if how == "removed":
        assert lists.reranker.remove("s")
    else:
        lists.register("s", [("b", 1.0), ("c", 2.0)])
    assert lists.apply(work) == []
    assert [ranking.product_ids for ranking in lists.rank()] == ([] if how == "removed" else [("c", "b")])


def test_a_set_that_is_removed_leaves_no_user_behind(lists: Lists) -> None:
    lists.register("s", ["a"], user_id="u")
    lists.register("t", ["a"], user_id="u")
    lists.change(user_row("u", 0, "x"))
    lists.register("s", ["b"], user_id="v")
    assert lists.reranker.remove("t")
    assert not lists.reranker.remove("t")
    assert "u" not in lists.reranker.users
    assert "x" not in lists.reranker.rows.slots
    assert lists.reranker.remove("s")
    assert not lists.reranker.rows.slots
    lists.change(user_row("u", 1, "y"), catalog_row("a", 1, price=5))
    assert not lists.reranker.is_dirty


def test_what_a_set_depends_on(lists: Lists) -> None:
    lists.register("s", ["a"], user_id="u")
    lists.change(user_row("u", 0, "x"))
    dependencies = [catalog_row("a", 0), content_row("x", 0), user_row("u", 1)]
    strangers = [catalog_row("u", 0), user_row("a", 0), behavior_row("b", 0)]
    assert all(lists.reranker.depends_on(change) for change in dependencies)
    assert not any(lists.reranker.depends_on(change) for change in strangers)


# --- users ---------------------------------------------------------------------------------------------------------


def test_a_user_who_does_something_has_every_one_of_their_sets_scored_whole(lists: Lists) -> None:
    for name, user in (("s", "u"), ("t", "u"), ("v", "other"), ("w", None)):
        lists.register(name, ["a", "b"], user_id=user)
    lists.change(content_row("a", 0, text="red"), content_row("b", 0, text="blue"))
    lists.rank()
    lists.change(user_row("u", 0, "b"))
    work = lists.take()
    assert sets_of(lists, work) == ["s", "t"]
    assert work.request is not None
    assert work.request.rows == 4
    assert work.request.user[0].any()
    for ranking in lists.apply(work):
        assert ranking.caused_by is not None
        assert (ranking.caused_by.view, ranking.caused_by.entity) == ("user_behavior", "u")


def test_rows_say_what_their_own_user_did_with_the_product(lists: Lists) -> None:
    for name, candidates, user in (("s", ["a", "b"], "u"), ("t", ["b", "c"], None), ("v", ["b", "c"], "other")):
        lists.register(name, candidates, user_id=user)
    lists.change(user_row("u", 0, "b", "b", "c"), user_row("other", 0, "c"))
    work = lists.take()
    assert sets_of(lists, work) == ["s", "t", "v"]
    assert work.request is not None
    assert work.request.numeric[:, FAMILIARITY].tolist() == [0, 2, 0, 0, 0, 1]
    lists.apply(work)
    lists.change(behavior_row("b", 0, sales_1h=3))
    request = lists.take().request
    assert request is not None
    assert request.numeric[:, FAMILIARITY].tolist() == [2, 0, 0], "of the rows that changed"
    assert not lists.reranker.rows.numeric[:, FAMILIARITY].any(), "a product's own row is for everybody"


def test_content_of_a_product_in_a_users_history_is_a_dependency(lists: Lists) -> None:
    lists.register("s", ["a"], user_id="u")
    lists.change(user_row("u", 0, "x"), content_row("a", 0, text="red"))
    (before,) = lists.rank()
    assert lists.reranker.users.unread == {"x"}
    lists.change(content_row("x", 0, text="red"))
    (after,) = lists.rank()
    assert after.scores[0] > before.scores[0]
    assert after.caused_by is not None
    assert after.caused_by.entity == "x"
    lists.change(catalog_row("x", 0, price=5), behavior_row("x", 0, sales_1h=3))
    assert not lists.reranker.is_dirty, "its price says nothing about the user's taste"


# --- without a model -----------------------------------------------------------------------------------------------


def test_without_a_model_and_without_scores_the_retrieval_orders(lists: Lists) -> None:
    lists.register("s", [("a", 1.0), ("b", 3.0), ("c", 2.0)])
    (ranking,) = lists.rank(away=True)
    assert (ranking.product_ids, ranking.degraded) == (("b", "c", "a"), True)
    lists.reranker.touch_stopgaps()
    (ranking,) = lists.rank()
    assert (ranking.product_ids, ranking.degraded) == (("b", "c", "a"), False)
    lists.reranker.touch_stopgaps()
    assert not lists.reranker.is_dirty


def test_without_a_model_the_last_scores_are_corrected_by_the_price(lists: Lists) -> None:
    lists.register("s", [("a", 5.0), ("b", 5.1)])
    lists.price("a", 1000)
    lists.price("b", 1000)
    lists.rank()
    assert lists.order("s") == ("b", "a")
    lists.price("b", 2000)
    (ranking,) = lists.rank(away=True)
    assert (ranking.product_ids, ranking.degraded) == (("a", "b"), True)
    assert np.allclose(ranking.scores, [4.0, 4.1 - np.log(2)])
    lists.price("a", 500)
    (ranking,) = lists.rank(away=True)
    assert np.allclose(ranking.scores, [4.0 + np.log(2), 4.1 - np.log(2)]), "from the model's score, not the stopgap"
    lists.reranker.touch_stopgaps()
    (ranking,) = lists.rank()
    assert not ranking.degraded
    assert np.allclose(ranking.scores, [4.5, 3.1])


def test_what_is_scored_after_a_stopgap_is_scored_whole(lists: Lists) -> None:
    """One change comes before anybody has noticed that the model is back: no other row keeps its stopgap."""
    lists.register("s", [("a", 5.0), ("b", 5.1)])
    lists.rank()
    lists.price("b", 2000)
    lists.rank(away=True)
    lists.price("a", 1000)
    work = lists.take()
    assert work.request is not None
    assert work.request.rows == 2
    (ranking,) = lists.apply(work)
    assert not ranking.degraded
    assert np.allclose(ranking.scores, [4.0, 3.1])


def test_sold_out_comes_last_without_a_model_too(lists: Lists) -> None:
    lists.register("s", [("a", 1.0), ("b", 3.0)])
    lists.change(catalog_row("b", 0, stock=0))
    assert lists.rank(away=True)[0].product_ids == ("a", "b")


def test_a_change_of_the_order_alone_degrades_nothing(lists: Lists) -> None:
    ranked(lists, ("a", 2.0), ("b", 1.0))
    lists.change(catalog_row("a", 1, stock=0))
    (ranking,) = lists.rank(away=True)
    assert (ranking.product_ids, ranking.degraded) == (("b", "a"), False)


def test_rows_that_were_scored_while_others_were_not_do_not_make_a_set_whole(lists: Lists) -> None:
    """A bundle comes while a partial call is in flight: what it brings is not the new model's word on the rest."""
    ranked(lists, ("a", 2.0), ("b", 1.0))
    lists.price("a", 100)
    work = lists.take()
    lists.reranker.touch_all()
    for ranking in lists.apply(work):
        assert ranking.degraded
    (ranking,) = lists.rank()
    assert not ranking.degraded


def test_another_bundle_scores_every_set_whole_and_publishes_it(lists: Lists) -> None:
    ranked(lists, "a", "b")
    lists.register("t", ["c"])
    lists.rank()
    lists.reranker.bundle = type(BUNDLE)(
        **{name: getattr(BUNDLE, name) for name in BUNDLE.__struct_fields__} | {"version": 2}
    )
    lists.reranker.touch_all()
    found = {ranking.result_set_id: ranking for ranking in lists.rank()}
    assert {name: ranking.model_version for name, ranking in found.items()} == {"s": "default/2", "t": "default/2"}


def test_without_a_bundle_nothing_is_ranked(lists: Lists) -> None:
    lists.register("s", ["a"])
    lists.reranker.bundle = None
    assert lists.reranker.take() is None
    assert lists.reranker.is_dirty


# --- what stands ---------------------------------------------------------------------------------------------------


def theirs(*product_ids: str) -> Standing:
    lists = Lists()
    ranked(lists, *product_ids)
    return standing_of(lists.published[-1])


def test_what_stands_already_is_not_published_again(lists: Lists) -> None:
    """A new owner that computes what the last one had published says nothing."""
    lists.reranker.standings.put("s", theirs("a", "b"))
    lists.register("s", ["a", "b"])
    assert lists.rank() == []
    lists.register("s", ["a", "b", "c"])
    assert lists.rank()[0].previous_ranks.tolist() == [0, 1, -1]


def test_a_null_that_stands_is_overwritten(lists: Lists) -> None:
    lists.reranker.standings.put("s", theirs("a"))
    lists.reranker.standings.forget("s")
    assert "s" not in lists.reranker.standings
    lists.register("s", ["a"])
    assert len(lists.rank()) == 1


@pytest.mark.parametrize("null", [True, False])
def test_another_writers_record_is_answered_with_what_should_stand(lists: Lists, null: bool) -> None:
    ranked(lists, ("a", 2.0), ("b", 1.0))
    lists.reranker.contest("s", None if null else theirs("b", "a"))
    (ranking,) = lists.rank()
    assert (ranking.product_ids, ranking.previous_ranks.tolist()) == (("a", "b"), [0, 1])
    lists.price("z", 1)
    assert not lists.reranker.is_dirty
    lists.reranker.contest("s", None)
    lists.rank()
    assert lists.rank() == []


@pytest.mark.parametrize("when", ["before it is registered", "while it is loaded", "while it is scored"])
def test_another_writers_record_is_answered_whenever_it_comes(lists: Lists, when: str) -> None:
    """What stands is what this set will be ranked to: without the contest nothing would be published."""
    lists.reranker.standings.put("s", theirs("a", "b"))
    if when == "before it is registered":
        lists.reranker.contest("s", theirs("b"))
    found = registration("s", ["a", "b"])
    needs = lists.reranker.register(found, encode_record(found), 0)
    assert needs is not None
    if when == "while it is loaded":
        lists.reranker.contest("s", theirs("b"))
    lists.reranker.begin(needs.live)
    lists.reranker.sets.take_query_vector(needs.live, np.zeros(EMBEDDING_DIM, np.float32))
    work = lists.take()
    if when == "while it is scored":
        lists.reranker.contest("s", theirs("b"))
    published = lists.apply(work) + lists.rank()
    assert [ranking.product_ids for ranking in published] == [("a", "b")]


def test_a_contest_outlives_a_set_that_is_replaced_during_a_call(lists: Lists) -> None:
    ranked(lists, "a", "b")
    lists.reranker.contest("s", theirs("b"))
    work = lists.take()
    lists.register("s", ["b", "a"])
    assert lists.apply(work) == []
    assert [ranking.product_ids for ranking in lists.rank()] == [("a", "b")]


def test_what_another_writer_left_for_a_set_that_is_awaited_can_be_withdrawn(lists: Lists) -> None:
    lists.reranker.contest("s", theirs("a"))
    assert "s" in lists.reranker.standings
    standing = lists.reranker.standings.adopt("s")
    assert isinstance(standing, Standing)
    assert (standing.product_ids, standing.contested) == (("a",), True)
