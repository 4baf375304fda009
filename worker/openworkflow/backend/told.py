"""What a run tells while it goes on, as rows of a flush."""

from typing import NamedTuple
from uuid import UUID


class EventWrite(NamedTuple):
    """An event that a claimed run has emitted."""

    run_id: UUID
    claim_no: int
    event_no: int
    topic: str
    value: str | None
    """JSON text."""
    step_name: str | None
    """The step whose function has emitted it; None for the workflow's own."""
    attempt: int | None


class ProgressWrite(NamedTuple):
    """How far a claimed run has come with what it tells."""

    run_id: UUID
    claim_no: int
    events: int
    """The number of its next event."""
    events_from: int
    """Number of the first event since the run continued as new."""
    counts: str
    """JSON text: calls of the workflow function, by what they tell."""
    has_status: bool
    status: str | None
    """JSON text; None is a status too, where `has_status`."""
    tags: str | None
    """JSON text of an object of texts, to be added to those of the run."""
    forget_before: int | None
    """The number of the first event that is kept."""
