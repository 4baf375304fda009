"""What becomes of the schedules that a resource declares: what to store, and where. Pure.

An entry that can never run is left out by itself, and whoever made a schedule keeps it: those of
code and those made by hand are not touched, nor do they touch these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from openworkflow_contract.recurrence import due_at, run_id
from openworkflow_operator.api.nesting import depth_of
from openworkflow_operator.api.schedules import ScheduleEntry
from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.decide import recurrence
from openworkflow_operator.decide.observation import DatabaseProblem
from openworkflow_operator.decide.recurrence import NoRecurrence

CONDITION: Final = "SchedulesStored"
NOT_DECLARED: Final = "NotDeclared"
#: What the workers write of what a resource declares.
SOURCE: Final = "resource"
#: Of one schedule, as JSON text.
LARGEST_INPUT: Final = 64 * 2**10
DEEPEST_INPUT: Final = 100

_OVERLAPS: Final = {
    "Skip": "skip",
    "QueueOne": "queue_one",
    "QueueAll": "queue_all",
    "CancelRunning": "cancel_running",
    "Allow": "allow",
}


class ScheduleReason(StrEnum):
    """Why an entry is not stored; part of the API. The first of them is the one to report."""

    INVALID = "SchedulesInvalid"
    NAME_TAKEN = "NameTaken"
    REFUSED = "SchedulesRefused"


@dataclass(frozen=True, slots=True)
class ScheduleFault:
    """One entry that is not stored as desired."""

    name: str
    reason: ScheduleReason
    message: str


@dataclass(frozen=True, slots=True)
class Kept:
    """How it went to have the schedules of a resource stored."""

    faults: Sequence[ScheduleFault] = ()
    problem: DatabaseProblem | None = None
    """Why it is not known of any."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a schedule is, as the columns of its row."""

    workflow_name: str
    version: str | None
    cron: str
    time_zone: str
    input: str | None
    """JSON text."""
    overlap: str
    catch_up: str
    jitter_seconds: float

    def matches(self, other: Definition) -> bool:
        """Whether the two say the same, however PostgreSQL writes the input."""
        return all(
            _same_json(self.input, other.input)
            if name == "input"
            else getattr(self, name) == getattr(other, name)
            for name in self.__slots__
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """The row that has the name of an entry."""

    id: UUID
    source: str
    definition: Definition
    is_paused: bool
    is_retired: bool
    next_at: datetime | None
    next_run_id: UUID | None
    has_run: bool
    """Whether the next run has not ended."""


@dataclass(frozen=True, slots=True)
class Aim:
    """The run that a schedule is to have next."""

    instant: datetime
    run_id: UUID
    due_at: datetime | None
    """None: at no time."""


def concerns(resource: WorkflowNamespace) -> bool:
    """Whether the resource has schedules in its database, or may have some to take back.

    What was last reported tells: a resource that has none is not asked about, and what an operator
    before this one stored is not forgotten.
    """
    return bool(resource.schedules) or reported(resource) != NOT_DECLARED


def is_announced(resource: WorkflowNamespace) -> bool:
    """Whether the status says already that there may be something in the database."""
    return reported(resource) not in (None, NOT_DECLARED)


def reported(resource: WorkflowNamespace) -> str | None:
    """The reason of the condition as last reported; None before it ever was."""
    conditions = resource.status.get("conditions") or ()
    return next((c["reason"] for c in conditions if c["type"] == CONDITION), None)


def defined(entry: ScheduleEntry) -> Definition | ScheduleFault:
    """The row of an entry, or why it can have none."""
    try:
        for what, text in (("name", entry.name), ("workflow", entry.workflow)):
            if not text.isprintable():
                raise NoRecurrence(f"its {what} has invisible characters")
        recurrence.check(entry.cron, entry.time_zone)
        catch_up = {"None": "none", "All": "all"}.get(entry.catch_up)
        return Definition(
            workflow_name=entry.workflow,
            version=entry.version,
            cron=entry.cron,
            time_zone=entry.time_zone,
            input=_input(entry.input),
            overlap=_OVERLAPS[entry.overlap],
            catch_up=catch_up or str(float(entry.catch_up_seconds)),
            jitter_seconds=float(entry.jitter_seconds),
        )
    except NoRecurrence as error:
        return ScheduleFault(entry.name, ScheduleReason.INVALID, str(error))


def name_taken(name: str, source: str) -> ScheduleFault:
    """The fault of an entry whose name somebody else's schedule has."""
    places = {"code": "the code of its workflow", "api": "hand"}
    message = (
        f"there is one of this name, made by {places.get(source, 'somebody else')}: it is left "
        "alone; give this one another name, or delete that one (openworkflow schedules delete)"
    )
    return ScheduleFault(name, ScheduleReason.NAME_TAKEN, message)


def is_settled(wanted: Definition, there: Stored) -> bool:
    """Whether nothing is to be done about it."""
    goes_on = (there.has_run and there.next_at is not None) or there.is_paused
    return goes_on and not there.is_retired and wanted.matches(there.definition)


def first_aim(wanted: Definition, schedule_id: UUID, now: datetime) -> Aim:
    """Where a schedule that is new begins. `now` is the database's time."""
    return aimed(wanted, schedule_id, _after(now, wanted), is_paused=False)


def next_aim(wanted: Definition, there: Stored, now: datetime) -> Aim:
    """Where a schedule goes on that is to be something else, or whose next run is gone."""
    instant = there.next_at
    is_moved = (wanted.cron, wanted.time_zone) != (
        there.definition.cron,
        there.definition.time_zone,
    )
    # One that is due already is of the former times, and is not to be lost.
    is_due = instant is not None and instant <= now and there.has_run
    if instant is None or there.is_retired or there.is_paused or (is_moved and not is_due):
        instant = _after(now, wanted)
    elif not there.has_run:  # somebody canceled that occurrence
        instant = _after(instant, wanted)
    return aimed(wanted, there.id, instant, is_paused=there.is_paused)


def aim_after(aim: Aim, wanted: Definition, there: Stored) -> Aim:
    """The aim that follows one whose place is taken."""
    return aimed(wanted, there.id, _after(aim.instant, wanted), is_paused=there.is_paused)


def aimed(wanted: Definition, schedule_id: UUID, instant: datetime, *, is_paused: bool) -> Aim:
    """The run of an instant."""
    run = run_id(schedule_id, instant)
    due = None if is_paused else due_at(run, instant, wanted.jitter_seconds)
    return Aim(instant, run, due)


def _after(instant: datetime, wanted: Definition) -> datetime:
    return recurrence.first_after(instant, wanted.cron, wanted.time_zone)


def _input(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) > LARGEST_INPUT:
        raise NoRecurrence(f"its input is larger than {LARGEST_INPUT // 2**10} KiB of JSON")
    if not text or depth_of(text) > DEEPEST_INPUT:  # what is far deeper has arrived without its end
        raise NoRecurrence(f"its input is nested more than {DEEPEST_INPUT} deep")
    return text


def _same_json(one: str | None, other: str | None) -> bool:
    return one == other or (one is not None and other is not None and _exact(one) == _exact(other))


def _exact(text: str) -> Any:
    """JSON in which 1 is 1.0, as to PostgreSQL, but not true, as to Python."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> tuple[str, Decimal]:
    return ("number", Decimal(text))
