"""How one execution of a claimed run ended, as data; `run_end` is the one fenced write for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from openworkflow.backend.records import Completion, Continuation, RunEnd
from openworkflow.core.errors import OpenWorkflowError
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.history import FROM_STEP


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned; `output` is JSON text, or None for None."""

    output: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The run is over, unsuccessfully."""

    failure: Failure
    steps: tuple[str, ...] = ()
    """The keys of the steps whose failure this is: a retry by hand begins with those."""
    undo: Mapping[str, Any] | None = None
    """What was undone, and what was not and why; None where nothing had to be."""


@dataclass(frozen=True, slots=True)
class Undoing:
    """The run is over, but for what is undone before its end: by whoever claims it next."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Canceled:
    """The run was canceled, and what it had done is undone."""


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The function raised and the run's policy grants another attempt after `delay` seconds."""

    failure: Failure
    delay: float


@dataclass(frozen=True, slots=True)
class Parked:
    """Every branch waits; nothing happens before `resume_at` (the database's clock), or ever.

    Unless something woke the run since it was claimed with `wake_no`: then it is due at once.
    """

    resume_at: datetime | None
    wake_no: int = 0
    overdue: bool = False
    """Whether its deadline does not wake it, since what it waits for comes after that."""


@dataclass(frozen=True, slots=True)
class Released:
    """Handed back, no attempt spent: available to others after `delay` seconds."""

    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Continued:
    """The run starts afresh, with this input (JSON text) and no history."""

    input: str | None


@dataclass(frozen=True, slots=True)
class Lost:
    """The claim belongs to somebody else, or the run was canceled: nothing may be written."""


Outcome = (
    Completed | Failed | Undoing | Canceled | Rescheduled | Parked | Released | Continued | Lost
)


def after_error(error: BaseException, policy: RetryPolicy, attempt: int) -> Failed | Rescheduled:
    """What an error that left the function means; `attempt` counts this execution, from 1.

    A step's own error has had the step's retries; for anything else the run's policy decides. One
    that does not let itself be looked at is final, or its run would never end.
    """
    failure = Failure.from_exception(error)
    try:
        steps = failed_steps(error)
        final = _of_steps(error) or not isinstance(error, Exception)
    except BaseException:  # its own methods raise what they like
        return Failed(failure)
    if final or isinstance(error, OpenWorkflowError):
        return Failed(failure, steps)
    if not policy.retries(error) or policy.exhausted(attempt):
        return Failed(failure, steps)
    return Rescheduled(failure, policy.delay(attempt).total_seconds())


def failed_steps(error: BaseException) -> tuple[str, ...]:
    """The keys of the steps whose errors are in `error`: itself, its causes, or its group."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if (key := getattr(each, FROM_STEP, None)) is not None:
            found[key] = None
            continue
        if isinstance(each, BaseExceptionGroup):
            left += reversed(each.exceptions)
        left += (each.__cause__, None if each.__suppress_context__ else each.__context__)
    return tuple(found)


def _of_steps(error: BaseException) -> bool:
    """Whether it is nothing but what steps raised whose retries are spent."""
    left = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
        elif not hasattr(each, FROM_STEP):
            return False
    return True


def run_end(
    run: ClaimedRun, outcome: Outcome, *, progress: bool
) -> Completion | RunEnd | Continuation | None:
    """The write that records `outcome`, or None where nothing may be written.

    `progress` tells whether this claim recorded a step, which forgives earlier crashes.
    """
    match outcome:
        case Completed(output):
            return Completion(run.id, run.claim_no, output)
        case Failed(failure, steps, undo):
            return _end(run, RunStatus.FAILED, error=_with_steps(failure, steps, undo))
        case Undoing():
            return _end(run, RunStatus.PENDING, progress=True)
        case Canceled():
            return _end(run, RunStatus.CANCELED)
        case Rescheduled(failure, delay):
            return _end(
                run,
                RunStatus.PENDING,
                error=failure.to_json(),
                delay=delay,
                attempts=run.attempts + 1,
                progress=True,
            )
        case Parked(resume_at, wake_no, overdue):
            return _end(
                run,
                RunStatus.PENDING,
                available_at=resume_at,
                progress=True,
                wake_no=wake_no,
                forever=resume_at is None or overdue,
            )
        case Released(delay):
            return _end(run, RunStatus.PENDING, delay=delay, progress=progress)
        case Continued(text):
            return Continuation(run.id, run.claim_no, text)
        case Lost():
            return None
        case _:
            assert_never(outcome)


def _end(
    run: ClaimedRun,
    status: RunStatus,
    *,
    output: str | None = None,
    error: str | None = None,
    available_at: datetime | None = None,
    delay: float | None = None,
    attempts: int | None = None,
    progress: bool = False,
    wake_no: int | None = None,
    forever: bool = False,
) -> RunEnd:
    return RunEnd(
        run_id=run.id,
        claim_no=run.claim_no,
        status=status,
        output=output,
        error=error,
        available_at=available_at,
        delay=delay,
        attempts=attempts,
        progress=progress,
        wake_no=wake_no,
        forever=forever,
    )


def _with_steps(
    failure: Failure, steps: tuple[str, ...], undo: Mapping[str, Any] | None = None
) -> str:
    text = failure.to_json()
    if steps:
        text = f'{text[:-1]},"steps":{json.dumps(steps)}}}'
    return f'{text[:-1]},"undo":{json.dumps(undo)}}}' if undo else text


def decision(failed: Failed) -> str:
    """The JSON text that says how a run ends after its steps are undone; see `decided`."""
    return f'{{"end":"failed","error":{_with_steps(failed.failure, failed.steps)}}}'


def decided(decision: Mapping[str, Any]) -> Failed | Canceled:
    """How the run ends, if all can be undone."""
    if decision["end"] == "canceled":
        return Canceled()
    error = decision.get("error")
    steps = error.get("steps") if isinstance(error, dict) else None
    return Failed(Failure.from_object(error), tuple(map(str, steps or ())))
