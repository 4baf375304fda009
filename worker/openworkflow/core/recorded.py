"""What the engine is given of a run: the claim, and the rows of its history. Plain data.

Named tuples, since a busy worker makes ten thousand of them a second. JSON values are text here;
whoever needs the value decodes it.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

UNREADABLE = "unreadable"
"""The kind and status of the one row that stands for a history which could not be decoded."""


class Occurrence(NamedTuple):
    """The schedule that a run is an occurrence of, and the instant."""

    schedule_name: str
    scheduled_for: datetime
    serial: bool = False
    """Whether others may wait for its end."""


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
    """Whether a former lease expired."""
    has_history: bool
    """Whether the run was claimed before, so that it may have recorded steps."""
    wake_no: int = 0
    """How often the run had been woken when it was claimed; a park carries it back."""
    history_from: int = 0
    """The first claim whose steps count: later than 0 once the run was continued as new."""
    occurrence: Occurrence | None = None
    """None for a run that no schedule has started."""
    names_limits: bool = True
    """False if its workflow may have limits, and it names none."""
    was_limited: bool = False
    """Whether the run was due before, and waited for its limits."""
    trace: str | None = None
    """JSON text of the trace that it was started in; None too where nobody traces."""
    server_started_at: datetime | None = None
    """When the server was started that made the claim."""


class Message(NamedTuple):
    """A signal that was sent to a run, or to a topic that it waits for."""

    id: UUID
    name: str
    payload: str | None
    """JSON text."""
    of_topic: bool = False
    sent_at: datetime | None = None


class Awaited(NamedTuple):
    """What of its children a run waits for: one, or all that a map has started."""

    id: UUID
    """Id of the child, or of the map's step attempt."""
    is_map: bool = False
    tolerated: int = 0
    """Children of a map that may fail without it."""


class ChildState(NamedTuple):
    """How a child stands, or all those of a map."""

    status: str | None = None
    """None for a run that is not there, and for a map."""
    output: str | None = None
    """JSON text, as is `error`."""
    error: str | None = None
    started: int = 0
    """Children of a map that were started; `open` of them go on, `failed` did not succeed."""
    open: int = 0
    failed: int = 0
    ended_at: datetime | None = None
    """When it has ended, or one child of a map more than may fail had; None while it goes on."""


class MapItem(NamedTuple):
    """A child of a map."""

    number: int
    """Which item it is for."""
    id: UUID
    state: ChildState


class RecordedStep(NamedTuple):
    """A row of a run's history, as a replay needs it."""

    step_name: str
    """The step's key: its name, or `name:1` and so on where a name is used again."""
    kind: str
    """Text, not StepKind: a kind that a newer version wrote is refused with its own run only."""
    status: str
    """Text, for the same reason."""
    attempt: int
    claim_no: int
    output: str | None
    """JSON text, as are `error` and `context`."""
    error: str | None
    context: str | None
    resume_at: datetime | None
    id: UUID
    completion_no: int | None = None
    """The place of its result among all that reached the workflow; None if it has none (yet)."""
    final: bool = False
    """The failure that spent the last retry."""
    interrupted: bool = False
    """Cut short by a crash or a drain: no failure of the step's own."""
    reopened: bool = False
    """Was final until somebody retried the run."""
    canceled: bool = False
    """The workflow itself cancelled the branch that waited for it."""
