"""What a writer knows of its own records is exactly what it need not read back."""

from hypothesis import given
from hypothesis import strategies as st

from streams.own_runs import OwnRuns

#: whose each run of records of a partition is, and how many they are
Runs = list[tuple[bool, int]]


@given(runs=st.lists(st.tuples(st.booleans(), st.integers(1, 4))), read_every=st.integers(1, 5))
def test_others_are_read_and_own_passed_over(runs: Runs, read_every: int) -> None:
    """A reader that stops at whatever is not known to be own reads all that is others', once and in order."""
    own = OwnRuns()
    log: list[bool] = []
    read: list[int] = []
    position = 0
    for number, (is_own, count) in enumerate(runs):
        if is_own:
            own.add(len(log), count)
        log += [is_own] * count
        if number % read_every == 0 or number == len(runs) - 1:
            while (position := own.passed(position)) < len(log):
                read.append(position)
                position += 1
    assert read == [offset for offset, is_own in enumerate(log) if not is_own]


def test_a_run_is_passed_once() -> None:
    own = OwnRuns()
    own.add(3, 2)
    assert [own.passed(offset) for offset in (0, 3, 5)] == [0, 5, 5]
    own.add(5, 1)
    assert own.passed(5) == 6


def test_what_was_read_before_its_acknowledgement_came_is_not_gone_back_to() -> None:
    own = OwnRuns()
    own.add(0, 4)
    assert own.passed(10) == 10
    own.add(8, 3)
    assert own.passed(10) == 11


def test_an_unknown_place_is_read() -> None:
    own = OwnRuns()
    own.add(-1, 5)
    assert own.passed(0) == 0
