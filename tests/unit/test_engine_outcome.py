"""What the end of a function means for its run: which write, which verdict, whose failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from openworkflow import NonRetryableError, RetryPolicy
from openworkflow.backend.records import Completion, Continuation, RunEnd
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.history import step_error
from openworkflow.engine.outcome import (
    Completed,
    Continued,
    Failed,
    Lost,
    Parked,
    Released,
    Rescheduled,
    after_error,
    failed_steps,
    run_end,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = ClaimedRun(
    uuid4(), "w", None, None, 7, 2, 0, None, NOW, NOW, recovered=False, has_history=True
)
NEVER, THREE = RetryPolicy(max_attempts=1), RetryPolicy(max_attempts=3, jitter=0)


def of_step(key: str, error: Exception | None = None) -> Exception:
    return step_error(Failure.from_exception(error or ValueError(key)), key, 1)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error with a cause, as `raise ... from ...` leaves it."""
    error.__cause__ = cause
    return error


def during(error: BaseException, context: BaseException) -> BaseException:
    """The error, raised while another one was handled."""
    error.__context__ = context
    return error


def hushed(error: BaseException, context: BaseException) -> BaseException:
    """The error, raised `from None` while another one was handled."""
    error.__context__, error.__suppress_context__ = context, True
    return error


@pytest.mark.parametrize(
    ("error", "steps"),
    [
        (of_step("a"), ("a",)),
        (ExceptionGroup("g", [of_step("a"), of_step("b")]), ("a", "b")),
        (ExceptionGroup("g", [of_step("a"), ExceptionGroup("h", [of_step("b")])]), ("a", "b")),
        (ExceptionGroup("g", [KeyError("mine"), of_step("b")]), ("b",)),
        (raised(KeyError("mine"), of_step("a")), ("a",)),
        (during(KeyError("mine"), of_step("a")), ("a",)),
        (hushed(KeyError("mine"), of_step("a")), ()),
        (raised(KeyError("mine"), ExceptionGroup("g", [of_step("a"), of_step("b")])), ("a", "b")),
        (ExceptionGroup("g", [of_step("a"), of_step("a")]), ("a",)),
        (KeyError("mine"), ()),
    ],
    ids=repr,
)
def test_the_steps_whose_failure_ended_the_run_are_found_through_groups_and_causes(
    error: BaseException, steps: tuple[str, ...]
) -> None:
    assert steps == failed_steps(error)


def test_a_ring_of_causes_has_an_end() -> None:
    a, b = KeyError("a"), KeyError("b")
    a.__cause__, b.__cause__ = b, a

    assert () == failed_steps(a)


def test_a_step_s_error_has_had_its_retries_and_ends_the_run() -> None:
    outcome = after_error(of_step("a"), THREE, 1)

    assert isinstance(outcome, Failed)
    assert ("a",) == outcome.steps


def test_a_group_of_steps_errors_ends_the_run_but_one_with_an_error_of_its_own_is_retried() -> None:
    group = ExceptionGroup("g", [of_step("a"), of_step("b")])
    mixed = ExceptionGroup("g", [of_step("a"), KeyError("mine")])

    assert isinstance(after_error(group, THREE, 1), Failed)
    assert isinstance(after_error(mixed, THREE, 1), Rescheduled)


def test_the_run_s_policy_decides_about_errors_of_the_function_itself() -> None:
    assert isinstance(after_error(ValueError("x"), THREE, 2), Rescheduled)
    assert isinstance(after_error(ValueError("x"), THREE, 3), Failed)
    assert isinstance(after_error(ValueError("x"), NEVER, 1), Failed)


@pytest.mark.parametrize(
    "error",
    [
        NonRetryableError("no"),
        ConfigurationError("no"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("a panic"),
        BaseExceptionGroup("g", [KeyboardInterrupt()]),
    ],
    ids=repr,
)
def test_what_no_repetition_helps_against_ends_the_run(error: BaseException) -> None:
    assert isinstance(after_error(error, THREE, 1), Failed)


# -- the write -----------------------------------------------------------------------------------


def end(outcome: Any, *, progress: bool = False) -> RunEnd:
    written = run_end(RUN, outcome, progress=progress)
    assert isinstance(written, RunEnd)
    assert (RUN.id, RUN.claim_no) == (written.run_id, written.claim_no)
    return written


def test_a_result_is_a_completion() -> None:
    assert Completion(RUN.id, 7, "1") == run_end(RUN, Completed("1"), progress=True)


def test_a_failure_names_the_steps_that_a_retry_by_hand_begins_with() -> None:
    written = end(Failed(Failure("x:Y", "m"), ("a", 'quote"d')))

    assert RunStatus.FAILED == written.status
    assert ["a", 'quote"d'] == json.loads(written.error or "")["steps"]


def test_a_failure_of_no_step_names_none() -> None:
    assert "steps" not in json.loads(end(Failed(Failure("x:Y", "m"))).error or "")


def test_a_rescheduled_run_has_spent_an_attempt() -> None:
    written = end(Rescheduled(Failure("x:Y", "m"), 5.0))

    assert (RunStatus.PENDING, 3, 5.0) == (written.status, written.attempts, written.delay)


def test_a_parked_run_carries_the_number_of_wakes_it_has_seen() -> None:
    written = end(Parked(NOW, 9))

    assert (RunStatus.PENDING, NOW, 9, False) == (
        written.status,
        written.available_at,
        written.wake_no,
        written.forever,
    )


def test_a_run_that_waits_for_no_time_is_parked_for_ever_explicitly() -> None:
    written = end(Parked(None, 9))

    assert (None, True, 9) == (written.available_at, written.forever, written.wake_no)


@pytest.mark.parametrize("progress", [True, False])
def test_a_released_run_has_spent_nothing_and_made_progress_only_if_it_did(progress: bool) -> None:
    written = end(Released(30.0), progress=progress)

    assert (RunStatus.PENDING, None, 30.0, progress) == (
        written.status,
        written.attempts,
        written.delay,
        written.progress,
    )


def test_a_continued_run_begins_with_its_new_input() -> None:
    assert Continuation(RUN.id, 7, "2") == run_end(RUN, Continued("2"), progress=True)


def test_for_a_lost_claim_nothing_is_written() -> None:
    assert run_end(RUN, Lost(), progress=True) is None


class Closed(Exception):
    """Lets nobody look at it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Picky(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("do not ask")


class Unasked(Exception, metaclass=Picky):
    """A class that nothing can be compared with."""


def nested(error: Exception, depth: int) -> Exception:
    """A group in a group, and so on."""
    for _ in range(depth):
        error = ExceptionGroup("", [error])
    return error


def test_an_error_that_cannot_be_looked_at_ends_its_run() -> None:
    """It was a defect of the engine's, and the run was executed again each half minute forever."""
    assert isinstance(after_error(nested(ValueError(), 3000), NEVER, 1), Failed)
    assert isinstance(after_error(Closed(), NEVER, 1), Failed)


def test_a_deep_group_of_nothing_but_steps_is_final() -> None:
    outcome = after_error(nested(of_step("a"), 3000), THREE, 1)

    assert isinstance(outcome, Failed)
    assert ("a",) == outcome.steps


def test_a_class_that_cannot_be_compared_with_is_not_tried_again() -> None:
    policy = RetryPolicy(max_attempts=3, non_retryable=(Unasked,))

    assert not policy.retries(ValueError())
