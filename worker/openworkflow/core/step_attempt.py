"""A step attempt as its row says: one try of one step of a workflow run."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

DEFAULT_MAX_STEP_ATTEMPTS = 1000
"""Attempts of steps that one run may make, as in the TypeScript SDK."""


class StepKind(StrEnum):
    """What the step does."""

    RUN = "run"
    """Calls a function."""
    SLEEP = "sleep"
    """Waits until `resume_at`."""
    SIGNAL = "signal"
    """Waits for a signal, until `resume_at` if that is set."""
    CHILD = "child"
    """Waits for a run that has its id, or that its context names, until `resume_at` if set."""
    CHILD_START = "child-start"
    """Starts a run that has its id."""
    MAP = "map"
    """Waits for the runs that it starts, one for each item."""
    UNDO = "undo"
    """Undoes a step; or says that the run's steps are to be undone, and how it ends then."""


class StepStatus(StrEnum):
    """Where an attempt stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAttempt:
    """A row of `step_attempts`, the JSON columns decoded."""

    id: UUID
    workflow_run_id: UUID
    step_name: str
    """The step's key: its name, with an ordinal (`name:1`) when the name came before."""
    kind: StepKind
    status: StepStatus
    config: Any
    context: Any
    output: Any
    error: Any
    """What Failure.from_object reads, or None."""
    created_at: datetime
    completed_at: datetime | None
    attempt: int = 1
    """Counts from 1 within the step."""
    claim_no: int = 0
    """The claim of the run under which it was made."""
    resume_at: datetime | None = None
    """When a sleep ends, or when a failed attempt may be repeated."""


def told_status(status: StepStatus, claim_no: int, context: Any) -> str:
    """What people are told of a row that is stored as running, succeeded or failed.

    One that a retry from an earlier step has left behind is discarded, and what the workflow itself
    has cancelled is canceled: that is no failure, for all that nothing came of it.
    """
    if claim_no < 0:
        return "discarded"
    return "canceled" if isinstance(context, dict) and context.get("canceled") else status
