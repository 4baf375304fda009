"""How soon a message is followed: at once, unless those before it led to nothing."""

from itertools import pairwise

from openworkflow.worker.hints import Patience


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def flood(patience: Patience, time: Time, seconds: float, *, useful: bool) -> list[float]:
    """When hints are followed that come all the time."""
    followed, end = [], time.now + seconds
    while (at := time.now + patience.wait(led_to_something=useful)) < end:
        time.now = at
        patience.looked()
        followed.append(at)
        time.now += 0.001
    time.now = end
    return followed


def test_the_first_hint_is_followed_at_once_and_a_flood_less_and_less_often() -> None:
    time = Time()
    patience = Patience(0.01, 0.08, now=time)

    pauses = [round(b - a, 3) for a, b in pairwise(flood(patience, time, 10, useful=False))]

    assert [0.01, 0.02, 0.04, 0.08] == pauses[:4]
    assert {0.08} == set(pauses[3:])


def test_a_hint_that_led_to_something_lets_the_next_be_followed_at_once() -> None:
    time = Time()
    patience = Patience(0.01, 0.08, now=time)
    flood(patience, time, 1, useful=False)

    assert 0.0 < patience.wait(led_to_something=False) <= 0.08
    assert 0.0 == patience.wait(led_to_something=True)


def test_a_hint_after_a_while_of_silence_is_followed_at_once() -> None:
    time = Time()
    patience = Patience(0.01, 0.08, now=time)
    flood(patience, time, 1, useful=False)

    time.now += 0.08

    assert 0.0 == patience.wait(led_to_something=False)
    patience.looked()
    assert 0.01 == patience.wait(led_to_something=False)
