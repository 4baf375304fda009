"""The tree of errors: what catches what, and that errors survive pickling."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import openworkflow
from openworkflow.core import errors
from openworkflow.core.errors import (
    ChildFailed,
    ChildTimeout,
    InvalidRunState,
    OpenWorkflowError,
    PayloadTooLarge,
    ResultTimeout,
    RunExists,
    RunNotFound,
    StepFailed,
    StepTimeout,
    Suspended,
    WorkflowCanceled,
    WorkflowFailed,
)
from openworkflow.core.failure import Failure

FAILURE = Failure("builtins:ValueError", "no stock", args=("no stock",))


def test_one_root_catches_every_error() -> None:
    assert _raised()
    assert all(issubclass(each, OpenWorkflowError) for each in _raised())


def test_every_error_can_be_imported_from_the_package_itself() -> None:
    public = {each.__name__: each for each in _raised()}

    assert public == {name: getattr(openworkflow, name, None) for name in public}
    assert set(public) <= set(openworkflow.__all__)


def test_every_error_has_its_section_in_the_catalogue_and_no_other_has() -> None:
    """Its link is what a failure leads to; a section says what it means, and what to do."""
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    _, *sections = text.split("\n## ")

    assert {each.__name__ for each in _raised()} == {part.split("\n")[0] for part in sections}
    for each in _raised():
        assert (
            f"docs/errors.md#{each.__name__.lower()}"
            == Failure.from_exception(each.__new__(each)).page
        )


@pytest.mark.parametrize("error", [ValueError("no"), Suspended()])
def test_an_error_that_is_not_ours_has_no_page(error: BaseException) -> None:
    assert Failure.from_exception(error).page is None


def test_except_exception_does_not_swallow_a_suspension() -> None:
    assert not issubclass(Suspended, Exception)


@pytest.mark.parametrize("timeout", [ResultTimeout("id", 1.5), StepTimeout("too long")])
def test_timeouts_are_also_the_builtin_timeout(timeout: Exception) -> None:
    assert isinstance(timeout, TimeoutError)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRunState("id", "succeeded", "canceled"),
        PayloadTooLarge("input", 5, 4),
        ResultTimeout("id", 1.5),
        RunNotFound("id"),
        StepFailed("charge", 3, FAILURE),
        WorkflowCanceled("id"),
        WorkflowFailed("id", FAILURE),
    ],
)
def test_errors_can_be_pickled_and_copied(error: OpenWorkflowError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(error) is type(twin)
        assert str(error) == str(twin)
        assert vars(error) == vars(twin)


@pytest.mark.parametrize(
    "make",
    [
        RunNotFound,
        WorkflowCanceled,
        lambda run_id: ChildFailed("bill", run_id, "failed", FAILURE),
        lambda run_id: ChildTimeout("bill", run_id),
        lambda run_id: InvalidRunState(run_id, "succeeded"),
        lambda run_id: ResultTimeout(run_id, 1.5),
        lambda run_id: RunExists(run_id, "ann"),
        lambda run_id: WorkflowFailed(run_id, FAILURE),
    ],
)
def test_the_id_of_a_run_is_one_that_a_client_takes(make: Callable[[UUID], Any]) -> None:
    run_id = UUID("0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a")
    error = make(run_id)
    recorded = Failure.from_json(Failure.from_exception(error).to_json()).rebuild()

    assert run_id == error.run_id
    assert run_id == getattr(recorded, "run_id", None)
    assert run_id == copy.copy(error).run_id


def test_an_id_that_is_none_is_not_there() -> None:
    assert not hasattr(ChildFailed("bill", "of item 3", "gone", FAILURE), "run_id")


def test_a_failed_workflow_carries_the_original_error_as_its_cause() -> None:
    error = WorkflowFailed("id", FAILURE)

    assert "workflow run id failed: ValueError: no stock" == str(error)
    assert isinstance(error.__cause__, ValueError)


def test_a_payload_error_says_size_limit_and_what_to_do() -> None:
    message = str(PayloadTooLarge("result of step 'a'", 10_000_000, 1_048_576))

    assert message.startswith("result of step 'a' is 10,000,000 bytes")
    assert "1,048,576" in message
    assert "pass a reference" in message


def _raised() -> list[type[Exception]]:
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, Exception)]
