"""How soon what was refused, or undone, is tried again."""

from __future__ import annotations

import contextlib

import pytest

from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster import attempts
from openworkflow_operator.cluster.attempts import Attempts, Contested, Waiting, What

KEY, APPLY = Key("shop", "orders"), What("Service", "orders-worker", "apply", "a")
REFUSED = ValueError("no")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tries(known: Attempts, clock: Clock, seconds: float, error: Exception) -> int:
    """How often it is tried in this time, at a visit each tenth of a second."""
    count, ends = 0, clock.now + seconds
    while clock.now < ends:
        clock.now += 0.1
        with contextlib.suppress(Waiting):
            known.check(KEY, APPLY)
            known.failed(KEY, APPLY, error)
            count += 1
    return count


def test_what_is_refused_is_tried_four_times_a_minute_at_last(clock: Clock) -> None:
    known = Attempts(clock)
    assert 5 <= tries(known, clock, 15, REFUSED) <= 6
    tries(known, clock, 60, REFUSED)
    assert tries(known, clock, 60, REFUSED) == 4


def test_what_works_or_is_desired_anew_waits_for_nothing(clock: Clock) -> None:
    known = Attempts(clock)
    tries(known, clock, 60, REFUSED)
    known.check(KEY, What("Service", "orders-worker", "apply", "b"))
    known.check(KEY, What("Service", "orders-worker", "delete", "a"))
    known.worked(KEY, APPLY)
    known.check(KEY, APPLY)


def test_changes_by_hand_are_put_right_at_once_and_a_fight_is_no_more_than_told(
    clock: Clock,
) -> None:
    known, contested = Attempts(clock), Contested("Service", "orders-worker", "spec.ports")
    assert tries(known, clock, 0.25, contested) == attempts.FREE_CORRECTIONS
    assert known.contests(KEY) == []
    tries(known, clock, 150, contested)
    assert known.contests(KEY) == [contested]
    assert 2 <= tries(known, clock, 120, contested) <= 3
    clock.now += attempts.TOLD_SECONDS
    assert known.contests(KEY) == []
    clock.now += attempts.FORGOTTEN_SECONDS
    assert tries(known, clock, 0.25, contested) == attempts.FREE_CORRECTIONS


def test_nothing_is_undone_that_was_not_done_so_and_nothing_known_of_who_is_gone(
    clock: Clock,
) -> None:
    known = Attempts(clock)
    assert not known.is_undone(KEY, APPLY)
    known.worked(KEY, APPLY)
    assert known.is_undone(KEY, APPLY)
    assert not known.is_undone(KEY, What("Service", "orders-worker", "apply", "b"))
    known.failed(KEY, APPLY, REFUSED)
    known.forget(KEY)
    known.check(KEY, APPLY)
    assert not known.is_undone(KEY, APPLY)
