"""What goes to the database of children: rows of a flush, as those of records.py."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class NewChild(NamedTuple):
    """A run that a step of a claimed run starts: it comes to be with the step's row, or not."""

    id: UUID
    run_id: UUID
    """The parent."""
    claim_no: int
    step_id: UUID
    """The step attempt that starts it."""
    number: int
    """Which of that step's children it is."""
    workflow_name: str
    version: str | None
    input: str | None
    tags: str | None
    """JSON text; beside those of the parent."""
    available_at: datetime | None
    delay: float | None
    """Seconds from now; `available_at` wins."""
    deadline_at: datetime | None
    deadline: float | None
    """Seconds from now; `deadline_at` wins, and the parent's deadline where that is earlier."""
    on_close: str
    """What becomes of it when the parent ends first: cancel or abandon."""
    wake_at: int | None
    """The parent is woken by an end that leaves so many of the step's children; None: by none."""
    limits: str | None = None
    """Limits, as NewRun has them."""
    priority: int | None = None
    """Priority of the child: the parent's where that is higher."""
    context: str | None = None
    """Trace context, as NewRun has it."""


class Disowned(NamedTuple):
    """A step waits for its children no more: they are to be canceled."""

    step_id: UUID
    run_id: UUID
    """The parent."""
    claim_no: int


class Orphaned(NamedTuple):
    """A run is to be undone: its children that are to end with it are to be canceled."""

    run_id: UUID
    """The parent."""
    claim_no: int


class ChildEnd(NamedTuple):
    """Says of an end beside it that it wakes a parent, in the database; no statement reads this."""

    run_id: UUID
