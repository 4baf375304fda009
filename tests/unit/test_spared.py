"""Runs that refuse to be claimed are found one by one, and left alone for longer each time."""

from uuid import UUID

import pytest

from openworkflow.worker.spared import LONGEST_PAUSE_SECONDS, MOST_FRUITLESS, Spared

RUN, OTHER = UUID(int=1), UUID(int=2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spared(clock: Clock) -> Spared:
    return Spared(10, clock)


def test_after_a_refusal_runs_are_claimed_one_by_one(spared: Spared) -> None:
    assert spared.limit == 10
    assert spared.refused(None)
    assert (spared.limit, spared.ids()) == (1, ())


def test_the_run_that_is_refused_alone_is_passed_over_for_a_while(
    spared: Spared, clock: Clock
) -> None:
    spared.refused(None)
    spared.refused(RUN)
    assert spared.ids() == (RUN,)
    clock.now = 1.0
    assert spared.ids() == ()


def test_each_refusal_doubles_the_pause_of_its_run(spared: Spared, clock: Clock) -> None:
    for _ in range(20):
        clock.now += LONGEST_PAUSE_SECONDS
        spared.refused(RUN)
    clock.now += LONGEST_PAUSE_SECONDS - 1
    assert spared.ids() == (RUN,)
    clock.now += 1
    assert spared.ids() == ()


def test_a_batch_later_or_when_there_is_no_more_claims_are_large_again(spared: Spared) -> None:
    spared.refused(RUN)
    for _ in range(10):
        assert spared.limit == 1
        spared.taken(full=True)
    assert spared.limit == 10
    spared.refused(OTHER)
    spared.taken(full=False)
    assert spared.limit == 10


def test_a_run_that_refuses_no_more_is_forgotten(spared: Spared, clock: Clock) -> None:
    spared.refused(RUN)
    clock.now = 1.0
    spared.taken(full=False)
    spared.refused(RUN)
    clock.now = 2.0
    assert spared.ids() == ()


def test_refusals_without_end_are_left_to_the_polls(spared: Spared) -> None:
    answers = [spared.refused(UUID(int=number)) for number in range(2 * MOST_FRUITLESS)]
    assert answers.count(False) == 2
    assert not answers[-1]
