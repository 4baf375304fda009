"""What goes to the database and comes back, as rows.

Those that a busy worker makes by the ten thousand a second are named tuples: immutable as a frozen
dataclass, but made in half the time, and `zip(*rows)` turns them into the columns of a statement.
JSON values are text here; whoever needs the value decodes it.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from openworkflow.backend.family import ChildEnd, Disowned, NewChild, Orphaned
from openworkflow.backend.told import EventWrite, ProgressWrite
from openworkflow.core.asked import check_asked
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.recorded import ClaimedRun, Message, RecordedStep
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

__all__ = [
    "KEY_SEPARATOR",
    "Begun",
    "ChildEnd",
    "ClaimRequest",
    "ClaimedOccurrence",
    "ClaimedRun",
    "Completion",
    "Continuation",
    "CreatedRun",
    "Delivery",
    "Disowned",
    "EventWrite",
    "Flush",
    "Flushed",
    "Leftover",
    "NewChild",
    "NewRun",
    "Orphaned",
    "Outgoing",
    "Page",
    "ProgressWrite",
    "RecordedStep",
    "RunEnd",
    "RunFilter",
    "StepSuccess",
    "StepWrite",
    "Waiting",
    "Wake",
    "Write",
    "claim_key",
]

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
    tags: str | None = None
    """JSON text of an object of texts."""
    limits: str | None = None
    """What it names of the limits of its workflow, as Limits.of gives it."""
    priority: int | None = None
    """From 1 to 9; None for none of its own."""
    context: str | None = None
    """JSON text: the trace that it was started in, where there is one."""


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


class ClaimedOccurrence(NamedTuple):
    """A claim of a run that may be an occurrence."""

    run_id: UUID
    claim_no: int
    claimed_at: datetime
    deadline: float | None
    """Seconds its workflow has from the beginning of a run, if it has a limit."""


class Begun(NamedTuple):
    """An occurrence that runs; without a schedule's name it is an ordinary run."""

    schedule_name: str | None
    scheduled_for: datetime | None
    deadline_at: datetime | None
    serial: bool = False
    """Whether others may wait for its end."""
    supersedes: tuple[UUID, ...] = ()
    """Earlier occurrences that are to be canceled first."""


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
    completion_no: int | None
    """The place of this result among all that reached the workflow."""
    context: str | None = None
    """JSON text, such as which branch asked."""


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
    """The row is there, as `running`; this is its end. `context` is merged into the row's."""
    completion_no: int | None = None
    """None for what does not reach the workflow: a beginning, a failure that is retried."""


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
    wake_no: int | None = None
    """The number that a wait has seen: a run that was woken since is due at once."""
    forever: bool = False
    """Due at no time, unless its deadline or a wake makes it so; or, with an `available_at`, due
    then, whatever its deadline."""


class Continuation(NamedTuple):
    """A claimed run that starts afresh, at once, with a new input and no history."""

    run_id: UUID
    claim_no: int
    input: str | None


class Wake(NamedTuple):
    """Something that a run may wait for has happened. Any run; no claim is needed."""

    run_id: UUID


class Leftover(NamedTuple):
    """A step attempt of a claim that is lost, whose row may say that it still runs."""

    id: UUID
    run_id: UUID


Write = (
    StepSuccess
    | StepWrite
    | Completion
    | RunEnd
    | Continuation
    | Wake
    | Leftover
    | EventWrite
    | ProgressWrite
    | NewChild
    | Disowned
    | Orphaned
    | ChildEnd
)
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
    suspects: int = 0
    """How many runs may be taken that crashed `trusted_crashes` times or more."""
    trusted_crashes: int = 2
    recover: bool = True
    """Whether expired leases of other workers are taken at all."""
    deadlines: Mapping[str, float] = field(default_factory=dict)
    """By key: seconds from a run's creation to its deadline, where it was given none."""
    spared: Sequence[UUID] = ()
    """Runs that are left alone, because the database refuses to let them be claimed."""
    limited: bool = False
    """Whether some of these workflows have limits, so that it counts which runs name theirs."""
    priorities: Mapping[str, int] = field(default_factory=dict)
    """By key, where a workflow has one: its runs count as due so many hours earlier."""
    traced: bool = False
    """Whether it asks in which trace each run was started."""


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything a worker sends in one statement."""

    worker_id: str
    lease: timedelta
    rows: Mapping[type[Write], Sequence[Any]] = field(default_factory=dict)
    """The writes by their type; none of the lists is empty."""
    claim: ClaimRequest | None = None


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of a flush."""

    now: datetime
    lost: Set[UUID]
    """The steps, by their own ids, and the ends of runs whose claim no longer stood."""
    claimed: list[ClaimedRun]
    set_aside: int = 0
    """Due runs that the claim came upon and set aside, as far as it counts them."""


class Outgoing(NamedTuple):
    """A signal to send: to a run, or to a topic if `run_id` is None."""

    id: UUID
    """Id of the message: a second one with this id is not stored."""
    name: str
    payload: str | None
    """JSON text."""
    run_id: UUID | None = None
    idempotency_key: str | None = None
    keep_for: timedelta | None = None
    """How long one to a topic is kept."""


class Waiting(NamedTuple):
    """A run that waits for signals of these names, and the messages that it has had."""

    run_id: UUID
    names: Sequence[str]
    had: Sequence[UUID]
    had_of_topics: Sequence[UUID]


class Delivery(NamedTuple):
    """What a run finds in its inbox."""

    wake_no: int
    """All that the run was woken for up to this number is here, or was had before."""
    messages: list[Message]
    """The oldest of each name, up to a hundred."""


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
    schedule_name: str | None = None
    parent_run_id: UUID | None = None

    def __post_init__(self) -> None:
        kinds = {"status": RunStatus, "parent_run_id": UUID}
        for name in self.__slots__:
            kind = datetime if name.startswith("created") else kinds.get(name, str)
            check_asked(name, kind, getattr(self, name))

    @property
    def takes_all(self) -> bool:
        """Whether it restricts nothing but the time."""
        return self == RunFilter(
            created_after=self.created_after, created_before=self.created_before
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the runs that were asked for, newest first; `next_cursor` is None on the last."""

    runs: list[WorkflowRun]
    next_cursor: str | None
