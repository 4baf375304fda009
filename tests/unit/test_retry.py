"""Retry policies: the bounds of a delay, when it is over, which errors count."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.errors import ConfigurationError, NonRetryableError
from openworkflow.core.retry import DEFAULT_STEP_RETRY, DEFAULT_WORKFLOW_RETRY, RetryPolicy

policies = st.builds(
    lambda initial, longer, factor, jitter: RetryPolicy(
        initial=initial, max_delay=initial + longer, factor=factor, jitter=jitter
    ),
    initial=st.floats(0, 1e4),
    longer=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
)
attempts = st.integers(1, 10**9)


@given(policies, attempts, st.floats(0, 1))
def test_a_delay_never_leaves_its_bounds(policy: RetryPolicy, attempt: int, luck: float) -> None:
    longest = policy.delay(attempt, lambda: 0.0)
    drawn = policy.delay(attempt, lambda: luck)

    assert timedelta(0) <= drawn <= longest <= timedelta(seconds=float(str(policy.max_delay)))
    assert drawn >= longest * (1 - policy.jitter) - timedelta(microseconds=1)


@given(policies, attempts)
def test_without_luck_a_delay_is_never_shorter_than_the_one_before(
    policy: RetryPolicy, attempt: int
) -> None:
    assert policy.delay(attempt, lambda: 0.0) <= policy.delay(attempt + 1, lambda: 0.0)


def test_the_default_delays_double_from_a_second_to_a_hundred() -> None:
    delays = [DEFAULT_STEP_RETRY.delay(n, lambda: 0.0).total_seconds() for n in range(1, 10)]

    assert [1, 2, 4, 8, 16, 32, 64, 100, 100] == delays


def test_by_default_a_step_has_ten_attempts_and_a_run_one() -> None:
    assert [False, True] == [DEFAULT_STEP_RETRY.exhausted(n) for n in (9, 10)]
    assert DEFAULT_WORKFLOW_RETRY.exhausted(1)


@given(attempts)
def test_zero_attempts_mean_no_limit(attempt: int) -> None:
    assert not RetryPolicy(max_attempts=0).exhausted(attempt)


def test_some_errors_are_never_retried() -> None:
    policy = RetryPolicy(non_retryable=(LookupError,))

    assert policy.retries(ValueError())
    assert not policy.retries(KeyError())
    assert not policy.retries(NonRetryableError())
    assert not policy.retries(KeyboardInterrupt())


def test_durations_may_be_written_as_text() -> None:
    policy = RetryPolicy(initial="250ms", max_delay="1m", jitter=0)

    assert timedelta(milliseconds=500) == policy.delay(2)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_attempts": -1}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"max_attempts": 1.5}, "max_attempts"),
        ({"factor": 0.5}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"jitter": 1.1}, "jitter"),
        ({"jitter": "a lot"}, "jitter"),
        ({"initial": "-1s"}, "initial"),
        ({"max_delay": "soon"}, "max_delay"),
        ({"initial": "5m"}, "longer than max_delay"),
        ({"non_retryable": ("ValueError",)}, "non_retryable"),
        ({"non_retryable": (KeyboardInterrupt,)}, "non_retryable"),
    ],
)
def test_an_impossible_policy_is_refused_by_the_name_of_the_field(
    wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"RetryPolicy: .*{named}"):
        RetryPolicy(**wrong)
