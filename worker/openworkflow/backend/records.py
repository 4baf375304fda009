"""What goes to the database and comes back, as rows.

Those that a busy worker makes by the ten thousand a second are named tuples: immutable as a frozen
dataclass, but made in half the time, and `zip(*rows)` turns them into the columns of a statement.
JSON values are text here; whoever needs the value decodes it.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

KEY_SEPARATOR = "\x1f"


class NewRun(NamedTuple):
    """A run to create."""

    workflow_name: str
    version: str | None = None
    input: str | None = None
    """JSON text; None is SQL's NULL."""
    idempotency_key: str | None = None
    available_at: datetime | None = None
    delay: timedelta | None = None
    """From now by the database's clock; `available_at` wins."""
    deadline_at: datetime | None = None
    deadline: timedelta | None = None
    """From now by the database's clock; `deadline_at` wins."""
    config: str = "{}"
    id: UUID | None = None
    """A new UUIDv7 if None."""


def claim_key(name: str, version: str) -> str:
    """Name and version as SQL compares them; the version "" means none."""
    key = f"{name}{KEY_SEPARATOR}{version}"
    if key.count(KEY_SEPARATOR) > 1:
        raise ConfigurationError(
            "the name and version of a workflow may not contain the character U+001F"
        )
    return key


@dataclass(frozen=True, slots=True)
class CreatedRun:
    """A run that was asked for; `created` is False if its idempotency key had made it before."""

    id: UUID
    created: bool
    status: RunStatus


class StepSuccess(NamedTuple):
    """A first attempt that succeeded before anybody was told that it runs: the usual step."""

    id: UUID
    run_id: UUID
    claim_no: int
    step_name: str
    """The step's key: its name, or `name:1` and so on where a name is used again."""
    output: str | None
    duration: float
    """Seconds since it began: `created_at` is the database's now less this."""


class StepWrite(NamedTuple):
    """Any step attempt to record under a claim."""

    id: UUID
    run_id: UUID
    claim_no: int
    step_name: str
    kind: StepKind
    status: StepStatus
    attempt: int
    output: str | None
    error: str | None
    context: str | None
    duration: float
    resume_at: datetime | None
    update: bool
    """The row is there, as `running`; this is its end."""


class Completion(NamedTuple):
    """A claimed run that succeeded: the usual end."""

    run_id: UUID
    claim_no: int
    output: str | None


class RunEnd(NamedTuple):
    """What becomes of a claimed run; `pending` parks it, repeats it or hands it back."""

    run_id: UUID
    claim_no: int
    status: RunStatus
    output: str | None
    error: str | None
    available_at: datetime | None
    delay: float | None
    """Seconds from now, if no `available_at` is given; with neither it is due at once."""
    attempts: int | None
    """The new count of failed attempts; None keeps it."""
    progress: bool
    """Forgive earlier crashes."""


Write = StepSuccess | StepWrite | Completion | RunEnd
"""One row of a flush; its first column is the id that an answer names it by."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Take up to `limit` due runs of the workflows with these keys, as a worker of `build_id`.

    Runs of `pinned_keys` are bound to the build by this claim; without a build there are none.
    """

    limit: int
    keys: list[str]
    build_id: str | None = None
    pinned_keys: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything a worker sends in one statement."""

    worker_id: str
    lease: timedelta
    steps: Sequence[StepWrite] = ()
    ends: Sequence[RunEnd] = ()
    claim: ClaimRequest | None = None
    successes: Sequence[StepSuccess] = ()
    completions: Sequence[Completion] = ()


class ClaimedRun(NamedTuple):
    """A run that is ours until the lease ends."""

    id: UUID
    workflow_name: str
    version: str | None
    input: str | None
    """JSON text."""
    claim_no: int
    """The fence of everything written for it."""
    attempts: int
    crashes: int
    """Expired leases since it last made progress, this one included."""
    deadline_at: datetime | None
    due_at: datetime
    """`available_at` before the claim."""
    claimed_at: datetime
    recovered: bool
    """Its former lease expired."""
    has_history: bool
    """It was claimed before, so it may have recorded steps."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of a flush."""

    now: datetime
    lost: Set[UUID]
    """The steps, by their own ids, and the ends of runs whose claim no longer stood."""
    claimed: list[ClaimedRun]


class RecordedStep(NamedTuple):
    """A row of a run's history, as a replay needs it."""

    step_name: str
    kind: StepKind
    status: StepStatus
    attempt: int
    claim_no: int
    output: str | None
    error: str | None
    final: bool
    """The failure that spent the last retry."""
    interrupted: bool
    """Cut short by a crash or a drain: no failure of the step's own."""
    reopened: bool
    """Was final until somebody retried the run."""
    resume_at: datetime | None
    id: UUID


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None does not restrict."""

    status: RunStatus | None = None
    workflow_name: str | None = None
    version: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    worker_id: str | None = None
    build_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the runs that were asked for, newest first; `next_cursor` is None on the last."""

    runs: list[WorkflowRun]
    next_cursor: str | None
