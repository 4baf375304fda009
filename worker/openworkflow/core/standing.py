"""Where a run stands, in a word: what a list of runs tells of each. Pure.

The words are those of `Reason`, and "queued" for what is due. For why it stands there, see
explanation.py, which looks at one run.
"""

from collections.abc import Collection
from dataclasses import dataclass

from openworkflow.core.explanation import Reason
from openworkflow.core.served import Served
from openworkflow.core.step_attempt import StepKind
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

QUEUED = "queued"
STANDINGS = frozenset(
    {
        QUEUED,
        Reason.BUILD,
        Reason.LIMITED,
        Reason.LOST,
        Reason.PAUSED,
        Reason.RETRYING,
        Reason.SCHEDULED,
        Reason.SLEEPING,
        Reason.UNSERVED,
        Reason.WAITING,
    }
)
"""The words that are no status: none is stored, so no run is found by them."""
RETRY = "retry"
"""The kind of wait of a step that failed and is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a list has to know of a run that has not ended, besides its row."""

    due: bool
    """Whether a worker may claim it by its time; of a running run, since its lease is over."""
    held: bool
    """Whether somebody paused it, its workflow or the namespace."""
    limited: bool = False
    """Whether it waits for a slot of its limits, or for its turn at a rate."""
    queued: bool = False
    """Whether it waits for earlier occurrences of its schedule."""
    build_known: bool = True
    """Whether there are workers of the build that it is pinned to, if it is, as far as is known."""
    waits: Collection[str]
    """The kinds of steps that it waits for, and RETRY."""


def word(run: WorkflowRun, standing: Standing | None, served: Served) -> str:
    """Where it stands; its status where nothing more is known."""
    if standing is None or run.status.finished:
        return run.status
    if run.status is RunStatus.RUNNING:
        return Reason.LOST if standing.due else run.status
    if standing.held:
        return Reason.PAUSED
    if standing.limited:
        return Reason.LIMITED
    if standing.due:
        unserved = served.complaint(run.workflow_name, run.version) is not None
        if unserved or not standing.build_known:
            return Reason.UNSERVED
        return Reason.BUILD if run.pinned else QUEUED
    if standing.queued:
        return Reason.WAITING
    if run.has_not_begun and not standing.waits:
        return Reason.SCHEDULED
    return _waiting(run, set(standing.waits))


def _waiting(run: WorkflowRun, kinds: set[str]) -> str:
    """Told alike by `runs explain`: what others have to do comes before what time ends."""
    if not kinds:
        return Reason.RETRYING if run.error is not None else Reason.WAITING
    if kinds == {StepKind.SLEEP}:
        return Reason.SLEEPING
    return Reason.RETRYING if kinds <= {StepKind.SLEEP, RETRY} else Reason.WAITING
