"""What the dashboard reads beside what others read too: `BackendPostgres.board`.

Each look has a deadline, and none costs more as the tables grow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from openworkflow.backend.namespace import Namespace
from openworkflow.backend.records import Page
from openworkflow.backend.requests import Requests
from openworkflow.backend.rows import as_json, as_member, page_of
from openworkflow.core.cursor import cursor_of, read_cursor
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus

MOST_COUNTED = 10_000
"""Runs of one kind that are counted; there may be more."""
NEWEST = 500
"""Runs of a workflow that are summed up."""
FAILURES = 1000
"""Failed runs that are grouped."""
CHILDREN = 1000
"""Runs of a parent among which the newest are looked for."""
SHOWN = 4000
"""Characters of a step's result that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Runs by where they stand, each up to MOST_COUNTED."""

    due: int
    later: int
    paused: int
    limited: int
    """Set aside until a slot of their limits is free; of both together up to MOST_COUNTED."""
    running: int
    lost: int
    """Executed by a worker that is gone, and not yet taken over."""
    oldest_due: float
    """Seconds since when the oldest run is due; 0 without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """The newest runs of a workflow, summed up; times are seconds before now."""

    workflow: str
    runs: int
    succeeded: int
    failed: int
    canceled: int
    open: int
    since: datetime
    seconds: list[float | None] | None
    """From creation to end, of half of them and of 95 in 100."""
    begun: list[float]
    ended_well: list[float] | None
    ended_badly: list[float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """A run that failed, and how its error begins."""

    id: UUID
    workflow_name: str
    created_at: datetime
    failed_at: datetime | None
    type: str | None
    message: str | None
    traceback: str
    """End of the traceback."""
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step attempt, with the beginning of its result."""

    id: UUID
    workflow_run_id: UUID
    step_name: str
    kind: StepKind
    status: StepStatus
    attempt: int
    claim_no: int
    context: Any
    created_at: datetime
    completed_at: datetime | None
    resume_at: datetime | None
    output: str | None
    output_length: int | None
    """Characters of the whole result."""
    error: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A run that another started."""

    id: UUID
    workflow_name: str
    status: RunStatus
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldFleet:
    """What the operator last said of the fleet of a namespace."""

    resource: str
    """The WorkflowNamespace, as NAMESPACE/NAME."""
    reported_at: datetime
    age: timedelta
    """How long ago that was, by the database's clock."""
    status: Any


class Board:
    """Reads for the dashboard, in one namespace."""

    def __init__(
        self, requests: Requests, queries: Mapping[str, str], namespace: Namespace
    ) -> None:
        self._requests, self._sql, self._namespace_id = requests, queries, namespace.id

    async def counts(self) -> Counts:
        """How many runs are due, and so on."""
        (row,) = await self._ask(self._sql["board_counts"], MOST_COUNTED)
        return Counts(**row)

    async def runs(self, limit: int, cursor: str | None = None) -> Page:
        """A page of all runs, newest first, without inputs and outputs."""
        page = read_cursor(cursor) if cursor else (None, None)
        rows = await self._ask(self._sql["board_runs"], 0, None, None, *page, limit + 1)
        return page_of(rows, limit)

    async def recent(self) -> list[Recent]:
        """The newest runs of each workflow."""
        return [Recent(**row) for row in await self._ask(self._sql["board_newest"], NEWEST)]

    async def failures(self) -> list[FailedRun]:
        """The newest failed runs."""
        return [FailedRun(**row) for row in await self._ask(self._sql["board_failures"], FAILURES)]

    async def steps(
        self, run_id: UUID, limit: int, cursor: str | None = None
    ) -> tuple[list[StepRow], str | None]:
        """The newest attempts of a run in the order they began, and where those before them end."""
        at, last = read_cursor(cursor) if cursor else (None, None)
        rows = await self._ask(self._sql["board_steps"], limit + 1, run_id, at, last, SHOWN)
        found = [_step(row) for row in rows[:limit]]
        before = cursor_of(found[-1].created_at, found[-1].id) if len(rows) > limit else None
        return found[::-1], before

    async def children(self, run_id: UUID, limit: int) -> list[Child]:
        """The newest runs that a run started."""
        rows = await self._ask(self._sql["board_children"], CHILDREN, run_id, limit)
        return [Child(**{**row, "status": as_member(RunStatus, row["status"])}) for row in rows]

    async def fleet(self) -> ToldFleet | None:
        """What the operator last said of the fleet; None where none has."""
        for row in await self._ask(self._sql["board_fleet"], 1):
            return ToldFleet(**{**row, "status": as_json(row["status"])})
        return None

    async def _ask(self, sql: str, most: int, *arguments: Any) -> list[Any]:
        sql = sql.replace("{most}", str(most))
        wanted = (self._namespace_id, *arguments)
        return await self._requests.fetch_once(sql, *wanted)


def _step(row: Any) -> StepRow:
    values = dict(row)
    values["kind"] = as_member(StepKind, values["kind"])
    values["status"] = as_member(StepStatus, values["status"])
    for column in ("context", "error"):
        values[column] = None if values[column] is None else as_json(values[column])
    return StepRow(**values)
