"""A workflow run as its row says: one call of a workflow, from enqueue to its end.

pending ──claim──> running ──> succeeded | failed
   ^                  │
   └─ sleep, retry, ──┘        canceled: from pending or running
      release
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

DEFAULT_REST_SECONDS = 2.0
"""A run that waits no longer than this stays in memory, if there is room, instead of parking."""
DEFAULT_RESIDENT_RUNS = 0
"""Runs that are parked and stay in the memory of their worker, which replays none of them."""


class RunStatus(StrEnum):
    """Where a run stands; a sleeping run is pending with `available_at` in the future."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def finished(self) -> bool:
        """Whether no worker will touch the run again by itself."""
        return self in _FINISHED


_FINISHED = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRun:
    """A row of `workflow_runs`, the JSON columns decoded."""

    id: UUID
    namespace_id: str
    workflow_name: str
    version: str | None
    status: RunStatus
    worker_id: str | None
    """Who holds the claim; None unless the run is running."""
    config: Any
    context: Any
    input: Any
    output: Any
    error: Any
    """What Failure.from_object reads, or None."""
    available_at: datetime
    """When a worker may claim it; while running, when the lease ends."""
    deadline_at: datetime | None
    created_at: datetime
    completed_at: datetime | None
    idempotency_key: str | None = None
    claim_no: int = 0
    """The number of claims so far: the fence of every write made under a claim."""
    attempts: int = 0
    """Failed attempts of the whole run, as its retry policy counts them."""
    crashes: int = 0
    """Workers lost in a row without a step recorded in between."""
    started_at: datetime | None = None
    """The first claim."""
    build_id: str | None = None
    """The build that began it."""
    pinned: bool = False
    """Whether only workers of that build may claim it."""
    schedule_name: str | None = None
    """The schedule that started it."""
    scheduled_for: datetime | None = None
    """The instant of that schedule which it is for."""
    forked_from: UUID | None = None
    """The run whose history it began with."""
    paused: bool = False
    """Whether somebody holds it back."""
    due_at: datetime | None = None
    """When a paused run that waits would be due."""
    pause: Any = None
    """Pause of this run alone: {"by": …, "reason": …, "at": …}."""
    tags: dict[str, str] | None = None
    """None without tags."""
    parent_run_id: UUID | None = None
    """The run whose step started it."""
    limits: list[str] | None = None
    """The limits that it is under, each with its key; None without limits."""
    priority: int | None = None
    """Priority of this run, from 1 to 9, beside that of its workflow; None for none."""

    @property
    def has_not_begun(self) -> bool:
        """Whether none of its code was called: a claim may have set it aside again."""
        return self.started_at is None
