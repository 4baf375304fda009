"""Why a run is not done: one reason, one sentence, and what both follow from. Pure.

What is not known is not said: where no worker has told what it serves, no run is called unserved.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from openworkflow.core.failure import Failure
from openworkflow.core.limits import LimitWait
from openworkflow.core.phrases import at, finite, limit_told, short, when
from openworkflow.core.served import NOBODY, Served
from openworkflow.core.step_attempt import StepKind
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

MOST_WAITS = 50
"""Waits of one run that are told; a run may have thousands."""
MOST_AHEAD = 1000
"""Due runs that are counted before this one."""


class Reason(StrEnum):
    """Why a run is not done, or that it is."""

    ENDED = "ended"
    POISONED = "poisoned"
    """The run has ended: it killed its workers too often."""
    HELD = "held"
    """A worker executes it."""
    LOST = "lost"
    """The run's worker is gone, and nobody has taken it over yet."""
    PAUSED = "paused"
    """Somebody holds it back, its workflow or the namespace."""
    LIMITED = "limited"
    """The run is due, and others have the slots of its limits, or begin before it."""
    SCHEDULED = "scheduled"
    """The run has not begun, and begins later."""
    RETRYING = "retrying"
    """Something failed, and is tried again later."""
    SLEEPING = "sleeping"
    WAITING = "waiting"
    """For something that others do: a signal, a child."""
    UNSERVED = "unserved"
    """The run is due, and no worker serves its workflow or version, or is of its build."""
    BUILD = "build"
    """The run is due, and only workers of one build take it."""
    DUE = "due"
    """The run is due, and a worker that has room takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something of a run that has begun and not ended, or is to be tried again."""

    id: UUID
    """Id of the step attempt."""
    kind: str
    """The kind of the step: run, sleep, signal and so on."""
    name: str
    """The step's key."""
    since: datetime
    until: datetime | None
    """When it ends by itself; None if something else has to end it."""
    attempt: int = 1
    error: Any = None
    """Error of the failed attempt that is to be made again, as Failure.from_object reads it."""
    child: UUID | None = None
    """The run that it waits for, if it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A pause that a run is under."""

    subject: str
    """What is paused: run, workflow, namespace, or the schedule whose next occurrence it is."""
    by: str | None
    reason: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What there is to know of a run, all at one moment."""

    run: WorkflowRun
    now: datetime
    waits: tuple[Wait, ...] = ()
    """No more than MOST_WAITS, those that end first."""
    waits_in_all: int = 0
    served: Served = NOBODY
    ahead: int = 0
    """Runs of its workflow that are due before it, or that wait before it for its limits, counted
    up to MOST_AHEAD.
    """
    limits: tuple[LimitWait, ...] = ()
    """Limits that the run waits for."""
    pauses: tuple[Held, ...] = ()
    takers: tuple[str, ...] = ()
    """Builds that take runs of its bucket, if it is not pinned; empty if every build does."""
    build_known: bool = True
    """Whether a worker of the build that it is pinned to has ever started, if it is."""
    build_seen_at: datetime | None = None
    """When its last worker was seen, if none is left."""
    behind: UUID | None = None
    """An earlier occurrence of its schedule, if it waits for those."""
    undoing: str | None = None
    """What has become of a run whose steps are to be undone: that it was canceled, or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a run is not done, as a sentence and as data."""

    run_id: UUID
    status: RunStatus
    reason: Reason
    sentence: str
    since: datetime | None = None
    """Since when that is so, if it is known."""
    until: datetime | None = None
    """When it ends by itself, if it does."""
    worker_id: str | None = None
    build_id: str | None = None
    """The build that it waits for."""
    nearest: tuple[str, ...] = ()
    """Served workflows with a name like that of the run's, which nobody serves."""
    ahead: int = 0
    waits: tuple[Wait, ...] = ()
    waits_in_all: int = 0
    pauses: tuple[Held, ...] = ()
    limits: tuple[LimitWait, ...] = ()
    child: "Explanation | None" = None
    """Why the child is not done that the run waits for."""


def with_child(told: Explanation, child: Explanation) -> Explanation:
    """The explanation of a run that waits for a child, with why that one is not done."""
    is_map = any(wait.kind == StepKind.MAP for wait in told.waits if wait.child == child.run_id)
    which = f"of one of them, {child.run_id}" if is_map else "of the child"
    sentence = f"{told.sentence.removesuffix('.')}; {which}: {child.sentence}"
    return replace(told, sentence=sentence, child=child)


def explain(found: Situation) -> Explanation:
    """The reason that comes first: what has to change before anything else can matter."""
    run = found.run
    if run.status.finished:
        told = _ended(run)
    elif run.status == RunStatus.RUNNING:
        told = _executed(found)
    elif found.pauses:
        told = _paused(found)
    elif found.limits:
        told = _limited(found)
    elif run.available_at > found.now:
        told = _waiting(found)
    else:
        told = _due(found)
    reason, sentence, more = told
    if found.undoing is not None and not run.status.finished:
        sentence = f"it {found.undoing}, and its steps are undone before it ends: {sentence}"
    return Explanation(
        run_id=run.id,
        status=run.status,
        reason=reason,
        sentence=f"{sentence}.",
        waits=() if run.status.finished else found.waits,
        waits_in_all=0 if run.status.finished else found.waits_in_all,
        pauses=() if run.status.finished else found.pauses,
        limits=found.limits,
        **more,
    )


Told = tuple[Reason, str, dict[str, Any]]


def _ended(run: WorkflowRun) -> Told:
    at = {"since": run.completed_at}
    if run.status == RunStatus.FAILED:
        failure = Failure.from_object(run.error)
        if failure.type.rpartition(":")[2] == "PoisonPill":
            return (
                Reason.POISONED,
                f"it was failed as a poison pill at {when(run.completed_at)}, since workers died "
                f"while they executed it: {short(failure)}",
                at,
            )
        return Reason.ENDED, f"it failed at {when(run.completed_at)}: {short(failure)}", at
    word = "was canceled" if run.status == RunStatus.CANCELED else "succeeded"
    return Reason.ENDED, f"it {word} at {when(run.completed_at)}", at


def _executed(found: Situation) -> Told:
    run = found.run
    if run.available_at <= found.now:
        sentence = (
            f"its worker {run.worker_id!r} was lost, its lease ended at {when(run.available_at)}, "
            "and no other worker has taken it over"
        )
        if complaint := found.served.complaint(run.workflow_name, run.version):
            sentence += f": {complaint}"
        return Reason.LOST, sentence, {"since": run.available_at, "worker_id": run.worker_id}
    # Of later claims the time is not recorded: what is, is the first, and what was done under it.
    since = run.started_at if run.claim_no == 1 else None
    sentence = f"worker {run.worker_id!r} executes it"
    if since is not None:
        sentence += f" since {when(since)}"
    if doing := _list(found.waits, found.waits_in_all):
        sentence += f": it {doing}"
    if found.pauses:
        sentence += f"; it goes no further than its next wait, since {_pauses(found)}"
    return Reason.HELD, sentence, {"since": since, "worker_id": run.worker_id}


def _paused(found: Situation) -> Told:
    run, sentence = found.run, _pauses(found)
    if run.due_at is not None and run.due_at <= found.now:
        sentence += f"; without that it would be due since {when(run.due_at)}"
    elif doing := _list(found.waits, found.waits_in_all):
        sentence += f"; meanwhile it {doing}"
    return Reason.PAUSED, sentence, {"since": found.pauses[0].since, "until": None}


def _pauses(found: Situation) -> str:
    """What holds it: a pause of a run is told before that of its workflow."""
    told = []
    for held in found.pauses:
        what = {
            "run": "it",
            "workflow": f"workflow {found.run.workflow_name!r}",
            "namespace": "the namespace",
            "schedule": f"its schedule {found.run.schedule_name!r}",
        }[held.subject]
        by = f" by {held.by!r}" if held.by else ""
        since = f" at {when(held.since)}" if held.since else ""
        reason = f" ({' '.join(held.reason.split())!r})" if held.reason else ""
        told.append(f"{what} was paused{by}{since}{reason}")
    return " and ".join(told)


def _limited(found: Situation) -> Told:
    """The limits in the way; without one the run is about to begin, or waits for its turn."""
    full = [each for each in found.limits if each.is_full] or list(found.limits)
    behind = f", behind {_count(found.ahead)} with the same" if found.ahead else ""
    sentence = f"it waits for {' and '.join(limit_told(each) for each in full)}{behind}"
    paused = [each.paused_until for each in full if each.paused_until is not None]
    opens = [each.opens_at for each in found.limits if each.opens_at is not None]
    if opens and max(opens) not in paused:
        sentence += f", and may begin {at(max(opens))}"
    until = max([*opens, *paused], default=None)
    return (
        Reason.LIMITED,
        sentence,
        {"since": found.run.due_at, "until": until, "ahead": found.ahead},
    )


def _waiting(found: Situation) -> Told:
    run, until = found.run, finite(found.run.available_at)
    if found.behind is not None:
        sentence = f"it waits for the end of earlier occurrences of schedule {run.schedule_name!r}"
        return Reason.WAITING, f"{sentence}, such as run {found.behind}", {}
    if run.has_not_begun and not found.waits:
        return Reason.SCHEDULED, f"it is to begin {at(until)}", {"until": until}
    more: dict[str, Any] = {"until": until}
    if doing := _list(found.waits, found.waits_in_all):
        more["since"] = min(wait.since for wait in found.waits)
        return _kind(found.waits), f"it {doing}", more
    if run.error is not None:
        error = short(Failure.from_object(run.error))
        sentence = f"attempt {run.attempts} of it failed with {error}, and the next is {at(until)}"
        return Reason.RETRYING, sentence, more
    if until is None:
        return Reason.WAITING, "it waits until something wakes it", more
    return Reason.SLEEPING, f"it waits until {when(until)}", more


def _due(found: Situation) -> Told:
    run, served = found.run, found.served
    more: dict[str, Any] = {"since": run.available_at, "ahead": found.ahead}
    due = f"it is due since {when(run.available_at)}"
    if complaint := served.complaint(run.workflow_name, run.version):
        near = () if served.versions_of(run.workflow_name) else served.nearest(run.workflow_name)
        return Reason.UNSERVED, f"{due}, and {complaint}", {**more, "nearest": near}
    behind = f", behind {_count(found.ahead)} of its workflow" if found.ahead else ""
    if not found.build_known or found.build_seen_at is not None:
        ever = "has ever started" if not found.build_known else "is left"
        sentence = f"{due} and pinned to build {run.build_id!r}, of which no worker {ever}"
        if found.build_seen_at is not None:
            sentence += f": the last said so at {when(found.build_seen_at)}"
        return Reason.UNSERVED, sentence + behind, {**more, "build_id": run.build_id}
    if run.pinned:
        sentence = f"{due} and pinned to build {run.build_id!r}, so that only its workers take it"
        return Reason.BUILD, sentence + behind, {**more, "build_id": run.build_id}
    if found.takers:
        builds = " or ".join(map(repr, found.takers))
        sentence = f"{due}, and build {builds} takes runs like it"
        return Reason.BUILD, sentence + behind, {**more, "build_id": found.takers[0]}
    nobody = "" if served.known else "; whether one serves it is not known"
    return Reason.DUE, f"{due}, and waits for a worker with room{behind}{nobody}", more


def _kind(waits: Iterable[Wait]) -> Reason:
    """What the waits come to: one for others is told first, since no time ends it."""
    kinds = {"retry" if wait.error is not None else wait.kind for wait in waits}
    if kinds == {StepKind.SLEEP}:
        return Reason.SLEEPING
    return Reason.RETRYING if kinds <= {StepKind.SLEEP, "retry"} else Reason.WAITING


def _list(waits: Sequence[Wait], in_all: int) -> str:
    """What a run does or waits for; the first three, and how many more there are."""
    told = " and ".join(_wait(wait) for wait in waits[:3])
    more = max(in_all, len(waits)) - min(3, len(waits))
    return f"{told} and {more} more" if more else told


def _wait(wait: Wait) -> str:
    name = repr(wait.name)
    if wait.error is not None:
        error = short(Failure.from_object(wait.error))
        tried = f"attempt {wait.attempt} of step {name} failed with {error}"
        return f"tries again {at(wait.until)}, since {tried}"
    if wait.kind == StepKind.SLEEP:
        return f"sleeps in {name} until {when(wait.until)}"
    if wait.kind in (StepKind.RUN, StepKind.UNDO):
        return f"executes step {name} since {when(wait.since)}"
    until = f", until {when(wait.until)}" if wait.until is not None else ""
    what = wait.kind if wait.child is None else f"child {wait.child} of step"
    what = "the children of map" if wait.kind == StepKind.MAP else what
    return f"waits for {what} {name} since {when(wait.since)}{until}"


def _count(ahead: int) -> str:
    return f"{ahead} or more" if ahead >= MOST_AHEAD else str(ahead)
