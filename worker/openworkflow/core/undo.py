"""How a step is undone, once its run does not end well. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from openworkflow.core.callee import callee
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.failure import Failure
from openworkflow.core.retry import RetryPolicy, check_policy
from openworkflow.core.shown import shown
from openworkflow.core.workflow import DurableFunction
from openworkflow.core.workflow_run import RunStatus

T = TypeVar("T")

SHOWN = 200
"""Characters of an error in a sentence."""


@dataclass(frozen=True, slots=True)
class Undo(Generic[T]):
    """What undoes a step: `step.run("charge", charge, order, undo=Undo(refund, timeout="30s"))`.

    `uncertain` is called instead for a step that was cut short, so that nobody knows whether it
    took effect, with the idempotency key that the step had (`current_step().key`). Without it such
    a step is named in the run's error as not undone.
    """

    fn: Callable[[T], Any]
    """Called with what the step returned; what it returns itself is not kept."""
    retry: RetryPolicy | None = None
    """By default as for a step: 10 attempts, from 1 s apart to 100 s."""
    timeout: Duration | None = None
    """Time limit of each attempt."""
    uncertain: Callable[[str], Any] | None = None


def undo_of(what: str, given: Any) -> Undo[Any]:
    """The undo that a step was given: a function, or an Undo. Raises ConfigurationError.

    One decorated with `@step` brings its retries and its timeout.
    """
    undo = given if isinstance(given, Undo) else Undo(given)
    for fn in (undo.fn, *([] if undo.uncertain is None else [undo.uncertain])):
        if not callable(fn):
            raise ConfigurationError(
                f"{what}: undo takes a function that is called with what the step returned, or an "
                f"Undo(...) of one, not {shown(fn)}"
            )
        callee(fn)
    if isinstance(undo.fn, DurableFunction):
        own = undo.fn
        undo = replace(
            undo, fn=own.fn, retry=undo.retry or own.retry, timeout=undo.timeout or own.timeout
        )
    if undo.retry is not None:
        check_policy(f"the undo of {what}", undo.retry)
    if undo.timeout is not None:
        parse_duration(undo.timeout)
    return undo


def why_undone(decision: Any) -> str:
    """What has become of a run, as the row says that has it undone."""
    told = decision if isinstance(decision, dict) else {}
    if told.get("end") == RunStatus.CANCELED:
        return "was canceled"
    error = " ".join(Failure.from_object(told.get("error")).summary.split())
    return f"failed with {error if len(error) <= SHOWN else error[: SHOWN - 1] + '…'}"
