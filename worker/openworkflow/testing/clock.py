"""The time of a test's database: where the runs stand in it, and how it is moved ahead."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from openworkflow.backend.connection import Connection
from openworkflow.backend.records import KEY_SEPARATOR
from openworkflow.core.workflow_run import RunStatus
from openworkflow.testing.server import connect

_LOOK = f"""
select clock_timestamp() as now,
       count(*) filter (where status = 'running') as running,
       array_agg(distinct workflow_name || '{KEY_SEPARATOR}' || coalesce(version, ''))
         filter (where status = 'pending' and available_at <= now()) as due,
       min(available_at) filter (where waits) as next,
       min(available_at) filter (where waits and (schedule_name is null or started_at is not null))
         as next_begun,
       (select count(*) from workflow_children where orphaned and status is null) as orphans,
       max(status) filter (where id = $1) as asked,
       coalesce(bool_or(status = 'pending' and available_at <= now()) filter (where id = $1), false)
         as asked_is_due
  from (select *, status = 'pending' and available_at > now() and available_at < 'infinity' as waits
          from workflow_runs) run
"""  # noqa: S608  # a constant
_MOVE = """
with moved as (
    update openworkflow_clock.clock set ahead = ahead + make_interval(secs => $1)
)
update workflow_runs set available_at = available_at + make_interval(secs => $1)
 where status = 'running'
"""
"""The leases of what is executed move along: nobody has died."""
_EXPIRE = """
update workflow_runs set available_at = now() - interval '1 second'
 where id = $1 and claim_no = $2 and status = 'running'
"""
_SIGNALS = """
select array(select distinct step_name from step_attempts
              where workflow_run_id = $1 and kind = 'signal' and status = 'running') as awaited,
       array(select distinct name from workflow_messages message
              where (workflow_run_id = $1 or workflow_run_id is null)
                and not exists (select from step_attempts attempt
                                 where attempt.workflow_run_id = $1
                                   and attempt.context ->> 'message' = message.id::text)
              order by name) as sent
"""
_STANDS = "select from workflow_runs where id = $1 and claim_no = $2 and status = 'running'"


@dataclass(frozen=True, slots=True)
class Moment:
    """What all runs of a database have to do, at one moment."""

    now: datetime
    running: int
    """Runs that are executed."""
    due: frozenset[tuple[str, str]]
    """The workflows, and their versions, of runs that could be."""
    next: datetime | None
    """When the next run is due that waits for a time."""
    next_begun: datetime | None
    """When the next run is due but for occurrences of schedules, which would go on forever."""
    orphans: int
    """Children that are to be canceled."""
    asked: RunStatus | None
    """How the run stands that was asked for."""
    asked_is_due: bool
    """Whether it waits for nothing but a worker."""


class Clock:
    """A connection that reads and moves the clock of one database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, url: str) -> "Clock":
        """Connect. Raises BackendError."""
        return cls(await connect(url))

    async def look(self, run_id: UUID | None = None) -> Moment:
        """How everything stands, and this run."""
        row = await self._connection.fetchrow(_LOOK, run_id)
        due = [key.split(KEY_SEPARATOR) for key in row["due"] or ()]
        return Moment(
            row["now"],
            row["running"],
            frozenset((name, version) for name, version in due),
            row["next"],
            row["next_begun"],
            row["orphans"],
            None if row["asked"] is None else RunStatus(row["asked"]),
            row["asked_is_due"],
        )

    async def move(self, by: timedelta) -> None:
        """Let so much time pass, in no time."""
        if by > timedelta(0):
            await self._connection.execute(_MOVE, by.total_seconds())

    async def expire(self, run_id: UUID, claim_no: int) -> None:
        """Let a lease end, as if its worker had died."""
        await self._connection.execute(_EXPIRE, run_id, claim_no)

    async def stands(self, run_id: UUID, claim_no: int) -> bool:
        """Whether a run is still executed under this claim."""
        return await self._connection.fetchrow(_STANDS, run_id, claim_no) is not None

    async def signals(self, run_id: UUID) -> tuple[list[str], list[str]]:
        """What a run waits for, and what was sent to it, or to all, that it has not taken."""
        row = await self._connection.fetchrow(_SIGNALS, run_id)
        return row["awaited"], row["sent"]

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()
