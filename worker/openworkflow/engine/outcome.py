"""How one execution of a claimed run ended, as data; `run_end` is the one fenced write for it."""

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from openworkflow.backend.records import ClaimedRun, Completion, RunEnd
from openworkflow.core.errors import OpenWorkflowError
from openworkflow.core.failure import Failure
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.workflow_run import RunStatus


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned; `output` is JSON text, or None for None."""

    output: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The run is over, unsuccessfully."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The function raised and the run's policy grants another attempt after `delay` seconds."""

    failure: Failure
    delay: float


@dataclass(frozen=True, slots=True)
class Parked:
    """Every branch waits; nothing happens before `resume_at` (the database's clock)."""

    resume_at: datetime


@dataclass(frozen=True, slots=True)
class Released:
    """Handed back by a draining worker: available to others at once, no attempt spent."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The claim belongs to somebody else, or the run was canceled: nothing may be written."""


Outcome = Completed | Failed | Rescheduled | Parked | Released | Lost


def after_error(
    error: BaseException, policy: RetryPolicy, attempt: int, of_a_step: bool
) -> Failed | Rescheduled:
    """What an error that left the function means; `attempt` counts this execution, from 1.

    A step's own error has had the step's retries; for anything else the run's policy decides.
    """
    failure = Failure.from_exception(error)
    final = of_a_step or not isinstance(error, Exception) or isinstance(error, OpenWorkflowError)
    if final or not policy.retries(error) or policy.exhausted(attempt):
        return Failed(failure)
    return Rescheduled(failure, policy.delay(attempt).total_seconds())


def run_end(run: ClaimedRun, outcome: Outcome, *, progress: bool) -> Completion | RunEnd | None:
    """The write that records `outcome`, or None where nothing may be written.

    `progress` tells whether this claim recorded a step, which forgives earlier crashes.
    """
    match outcome:
        case Completed(output):
            return Completion(run.id, run.claim_no, output)
        case Failed(failure):
            return _end(run, RunStatus.FAILED, error=failure.to_json())
        case Rescheduled(failure, delay):
            return _end(
                run,
                RunStatus.PENDING,
                error=failure.to_json(),
                delay=delay,
                attempts=run.attempts + 1,
                progress=True,
            )
        case Parked(resume_at):
            return _end(run, RunStatus.PENDING, available_at=resume_at, progress=True)
        case Released():
            return _end(run, RunStatus.PENDING, delay=0.0, progress=progress)
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
    )
