"""The tree of errors: what catches what, and that errors survive pickling."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

import openworkflow
from openworkflow.core import errors
from openworkflow.core.errors import (
    InvalidRunState,
    OpenWorkflowError,
    PayloadTooLarge,
    ResultTimeout,
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
