"""What a worker is told of a log that is not the one it began with."""

from dataclasses import replace

import pytest

from streams.records import is_from, origin_headers
from streams.topics import TopicIds
from streams.watching import describe_change, member_of, origins_of

BEFORE = TopicIds("c", {"catalog": "1", "behavior": "2"}, {"catalog": 4, "behavior": 4})


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (BEFORE, ""),
        (replace(BEFORE, differs=("topic catalog has retention.ms=1, expected -1",)), ""),
        (replace(BEFORE, cluster="d"), "cluster d answers in the place of c"),
        (replace(BEFORE, topics={"catalog": "1", "behavior": "9"}), "topic behavior was made anew"),
        (replace(BEFORE, partitions={"catalog": 6, "behavior": 4}), "topic catalog has 6 partitions, had 4"),
    ],
)
def test_a_change_is_one_sentence(now: TopicIds, told: str) -> None:
    assert describe_change(BEFORE, now) == told


@pytest.mark.parametrize(
    "now", [replace(BEFORE, topics={"catalog": "1", "behavior": "9"}), replace(BEFORE, partitions={"catalog": 6})]
)
def test_a_static_member_of_another_log_is_another_member(now: TopicIds) -> None:
    """Under its old name it would be given back what it had, and nobody would look at the topics again."""
    ours = member_of("product", "product-0", BEFORE)
    assert ours == member_of("product", "product-0", replace(BEFORE, differs=("retention",)))
    assert len({ours, member_of("product", "product-0", now), member_of("product", "product-1", BEFORE)}) == 3


def test_records_are_of_their_inputs_only() -> None:
    ours, now = origins_of(BEFORE), origins_of(replace(BEFORE, topics={"catalog": "1", "behavior": "9"}))
    assert {topic: ours[topic] == now[topic] for topic in ours} == {
        "content": True,
        "user-behavior": False,
        "feature-changes": False,
    }
    assert is_from(origin_headers(ours["content"]), now["content"])
    assert not is_from(origin_headers(ours["user-behavior"]), now["user-behavior"])
    assert is_from((), now["user-behavior"]), "written before records said so"
