"""What a worker is told of a log that is not the one it began with."""

from dataclasses import replace

import pytest

from streams.topics import TopicIds
from streams.watching import describe_change

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
