"""A schedule as its row says, and what becomes of the occurrence whose time has come. Pure.

A schedule has exactly one run that waits for its next instant. Whoever claims that run decides,
under a lock of the schedule, and puts the run of the following instant in its place.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from openworkflow.core.cron import Cron, Recurrence, lateness, recurrence
from openworkflow.core.duration import parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import NAME_LIMIT, storable_text
from openworkflow_contract.recurrence import due_at, run_id

COUNTED = 100
"""Missed occurrences that are counted, of one outage."""


class Source(StrEnum):
    """Who says what a schedule is; only they change it."""

    CODE = "code"
    """`@workflow(schedule=...)`, by the workers that serve the workflow."""
    API = "api"
    """`ow.schedules`, by hand."""
    RESOURCE = "resource"
    """A WorkflowNamespace, by the operator."""


def schedule_name(name: object) -> str:
    """Return `name` if a schedule can be called so. Raises ConfigurationError."""
    return storable_text("a schedule's name", name, NAME_LIMIT, printable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """What a schedule is to be, checked."""

    name: str
    workflow_name: str
    version: str | None
    source: Source
    cron: str
    time_zone: str
    input: str | None
    """JSON text."""
    overlap: str
    catch_up: str
    """"none", "all", or seconds."""
    jitter_seconds: float

    @classmethod
    def of(
        cls,
        cron: Cron,
        source: Source,
        workflow: tuple[str, str | None],
        input: str | None,
        name: str | None = None,
    ) -> "NewSchedule":
        """A schedule of a workflow, given by name and version, with an input as JSON text."""
        catch_up = cron.catch_up
        if catch_up not in ("none", "all"):
            catch_up = str(parse_duration(catch_up).total_seconds())
        return cls(
            name=schedule_name(name or cron.name or workflow[0]),
            workflow_name=workflow[0],
            version=workflow[1],
            source=source,
            cron=cron.expression,
            time_zone=cron.tz,
            input=input,
            overlap=cron.overlap,
            catch_up=str(catch_up),
            jitter_seconds=parse_duration(cron.jitter).total_seconds(),
        )

    def matches(self, there: "Schedule") -> bool:
        """Whether the schedule is so already."""
        return there.retired_at is None and all(
            _json(there.input) == _json(self.input)
            if name == "input"
            else getattr(there, name) == getattr(self, name)
            for name in self.__slots__
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of `workflow_schedules`."""

    id: UUID
    """Id of this schedule, not of a later one with its name: the ids of its runs follow from it."""
    name: str
    workflow_name: str
    version: str | None
    source: str
    cron: str
    time_zone: str
    input: str | None
    """JSON text."""
    overlap: str
    catch_up: str
    jitter_seconds: float
    paused_at: datetime | None
    """Since when somebody has it paused; None if nobody has."""
    pause_reason: str | None
    retired_at: datetime | None
    """Since when whoever declared it declares it no more."""
    next_at: datetime | None
    """The instant that `next_run_id` waits for."""
    next_run_id: UUID | None
    last_at: datetime | None
    """The instant of the last occurrence that was let begin."""
    last_run_id: UUID | None
    open_run_ids: list[UUID]
    """Occurrences that were let begin, some of which may have ended since."""
    queued_run_ids: list[UUID]
    """Occurrences that wait for those to end, in order."""
    begun: int
    skipped: int
    missed: int
    created_at: datetime
    updated_at: datetime

    @property
    def stopped(self) -> bool:
        """Whether it is paused, or taken out of where it was declared."""
        return self.paused_at is not None or self.retired_at is not None

    @property
    def serial(self) -> bool:
        """Whether its occurrences heed each other."""
        return self.overlap != "allow"

    @property
    def recurrence(self) -> Recurrence:
        """Instants of the schedule. Raises ConfigurationError for a row that others wrote."""
        return recurrence(self.cron, self.time_zone)

    @property
    def words(self) -> str:
        """When it runs, for people, also if it never can."""
        try:
            return self.recurrence.words
        except ConfigurationError:
            return f"{self.cron} ({self.time_zone})"

    def upcoming(self, count: int) -> list[str]:
        """The next instants in its own time zone, for people; none that cannot be computed."""
        found: list[str] = []
        try:
            instant = self.next_at
            while instant is not None and len(found) < count:
                found.append(self.recurrence.local(instant).isoformat(" ", "minutes"))
                instant = self.recurrence.after(instant)
        except ConfigurationError:
            pass
        return found

    def run_id(self, instant: datetime) -> UUID:
        """The id of the run of an instant, forever the same."""
        return run_id(self.id, instant)

    def count_begun(self, run_id: UUID, instant: datetime) -> "Schedule":
        """After one more occurrence was let begin, at its time or when its turn had come."""
        return replace(self, last_at=instant, last_run_id=run_id, begun=self.begun + 1)

    def due_at(self, instant: datetime) -> datetime:
        """When the run of an instant is to begin: its jitter follows from its id."""
        return due_at(self.run_id(instant), instant, self.jitter_seconds)


@dataclass(frozen=True, slots=True)
class Begin:
    """The occurrence runs; the one of `next_at` is put in its place."""

    next_at: datetime


@dataclass(frozen=True, slots=True)
class Queue:
    """The occurrence waits for earlier ones; the one of `next_at` is put in its place."""

    next_at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """The occurrence is left out: its run becomes the one of `next_at`."""

    next_at: datetime
    skipped: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """The schedule is stopped; its run waits until that is over."""


Verdict = Begin | Queue | Move | Hold


def decide(schedule: Schedule, instant: datetime, now: datetime, unfinished: int) -> Verdict:
    """What becomes of the occurrence of `instant`, which is due at `now`, the database's time.

    `unfinished` occurrences were let begin before and have not ended. Raises ConfigurationError.
    """
    if schedule.stopped:
        return Hold()
    recurrence = schedule.recurrence
    limit = lateness(_parsed(schedule.catch_up))
    if limit is not None:
        last = _last_due(schedule, recurrence, instant, now)
        late = now - schedule.due_at(last) > limit
        if late or last != instant:
            end = recurrence.after(last) if late else last
            # This one, which a change of the expression may have left between its instants.
            others = recurrence.between(instant + timedelta.resolution, end, COUNTED - 1)
            return Move(end, missed=1 + len(others))
    following = recurrence.after(instant)
    if not unfinished and not schedule.queued_run_ids:
        return Begin(following)
    if schedule.overlap == "skip" or (schedule.overlap == "queue_one" and schedule.queued_run_ids):
        return Move(following, skipped=1)
    return Queue(following) if schedule.overlap.startswith("queue") else Begin(following)


def _last_due(
    schedule: Schedule, recurrence: Recurrence, instant: datetime, now: datetime
) -> datetime:
    """The last instant that is due, from `instant` on; jitter may keep later ones from it."""
    last = recurrence.last_until(now, instant)
    surely_due = now - timedelta(seconds=max(0.0, schedule.jitter_seconds))
    if last is None or schedule.due_at(last) <= now:
        return last or instant
    begin = recurrence.last_until(surely_due, instant) or instant
    due = [at for at in recurrence.between(begin, now, 2000) if schedule.due_at(at) <= now]
    return due[-1] if due else instant


def _parsed(catch_up: str) -> str | float:
    return catch_up if catch_up in ("none", "all") else float(catch_up)


def _json(text: str | None) -> Any:
    """JSON in which 1 is 1.0, as to PostgreSQL, but not true, as to Python."""
    return None if text is None else json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> tuple[str, Decimal]:
    return ("number", Decimal(text))
