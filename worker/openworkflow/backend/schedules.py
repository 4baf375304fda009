"""Schedules: what people, code and the operator say about them."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from openworkflow.backend.connection import Connection
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.occurrences import Occurrences, Wish, as_schedule
from openworkflow.core.errors import ConfigurationError, ScheduleNotFound
from openworkflow.core.ids import uuid7
from openworkflow.core.schedule import NewSchedule, Schedule, Source
from openworkflow.core.workflow_run import WorkflowRun

logger = logging.getLogger(__name__)

MOST_BACKFILLED = 10_000
"""Occurrences that one call may make."""
_TRIES = 5


class Schedules:
    """The schedules of one namespace; `BackendPostgres.schedules` is one.

    `borrow` gives a connection for the length of a block. Every method but `find` raises
    ScheduleNotFound for a name that is not there.
    """

    def __init__(
        self,
        borrow: Callable[[], AbstractAsyncContextManager[Connection]],
        queries: Mapping[str, str],
        namespace: Namespace,
    ) -> None:
        self._borrow, self._sql, self._namespace_id = borrow, queries, namespace.id
        self.occurrences = Occurrences(borrow, queries, namespace)

    async def find(
        self, names: Collection[str] | None = None, *, served: Iterable[tuple[str, str]] = ()
    ) -> list[Schedule]:
        """All schedules by name, or those of these names and those that code gave to `served`."""
        workflows = list(served)
        async with self._borrow() as connection:
            rows = await self._fetch(
                connection,
                self._sql["list_schedules"],
                None if names is None else list(names),
                [name for name, _ in workflows],
                [version for _, version in workflows],
                Source.CODE,
            )
        return [as_schedule(row) for row in rows]

    async def get(self, name: str) -> Schedule:
        """One schedule."""
        for schedule in await self.find([name]):
            return schedule
        raise ScheduleNotFound(name)

    async def create(self, wish: NewSchedule, *, pause_reason: str | None = None) -> Schedule:
        """Make a schedule, paused if there is a reason; ConfigurationError if it is there."""
        async with self._borrow() as connection, connection.transaction():
            made = await self._insert(connection, wish, pause_reason)
        if made is None:
            raise ConfigurationError(
                f"there is a schedule {wish.name!r} already; update or delete that one, or choose "
                "another name"
            )
        return made

    async def update(self, wish: NewSchedule) -> Schedule:
        """Make a schedule what it is to be; paused or not, it stays so.

        Raises ConfigurationError for one that somebody else declares.
        """
        async with self._borrow() as connection, connection.transaction():
            there = await self._locked(connection, wish.name)
            if there.source != wish.source:
                raise ConfigurationError(
                    f"schedule {wish.name!r} is declared by {_place(there.source)}, so a change "
                    "here would not last; change it there, or pause it here"
                )
            return await self._change(connection, wish, there)

    async def declare(
        self,
        wishes: Iterable[NewSchedule],
        served: Collection[tuple[str, str]],
        build_id: str | None = None,
    ) -> list[str]:
        """Make schedules what code says of them, and stop those of `served` it says nothing of.

        Returns what is left as it is, because somebody else declares it. Nothing is done for a
        build while another one takes more of the new runs.
        """
        wanted = {wish.name: wish for wish in wishes}
        there = {each.name: each for each in await self.find(list(wanted), served=served)}
        changed = [
            name
            for name, wish in wanted.items()
            if name not in there or not wish.matches(there[name])
        ]
        gone = [name for name in there if name not in wanted and there[name].retired_at is None]
        if not (changed or gone) or not await self._leads(build_id):
            return []
        foreign = []
        for name in changed:
            if not await self._put(wanted[name]):
                foreign.append(name)
        for name in gone:
            await self._retire(name, served)
        return foreign

    async def pause(self, name: str, reason: str | None = None) -> Schedule:
        """Have no occurrence begin until it is resumed; those that have begun go on."""
        return await self._stop_or_go(name, True, reason)

    async def resume(self, name: str) -> Schedule:
        """Go on with the next instant from now; what was missed meanwhile is not caught up with."""
        return await self._stop_or_go(name, False, None)

    async def trigger(self, name: str) -> UUID:
        """Have an occurrence begin now, whatever else runs, paused or not; returns its run."""
        async with self._borrow() as connection, connection.transaction():
            schedule = await self._locked(connection, name)
            now = await self.occurrences.now(connection)
            wish = Wish(schedule, now, None, now)
            while not await self.occurrences.place_once(connection, [wish]):
                wish.instant += timedelta.resolution
            run_id = schedule.run_id(wish.instant)
            if schedule.serial:
                opened = [*schedule.open_run_ids, run_id]
                await self.occurrences.save(connection, [replace(schedule, open_run_ids=opened)])
            return run_id

    async def backfill(self, name: str, start: datetime, end: datetime) -> list[UUID]:
        """Run the occurrences from `start` on and before `end` that have not run; returns the runs.

        One after the other, unless they are allowed to overlap. Raises ConfigurationError for
        more than MOST_BACKFILLED, and for an end that is still to come.
        """
        async with self._borrow() as connection, connection.transaction():
            schedule = await self._locked(connection, name)
            now = await self.occurrences.now(connection)
            _check_period(start, end, now)
            found = schedule.recurrence.between(start, end, MOST_BACKFILLED + 1)
            if len(found) > MOST_BACKFILLED:
                raise ConfigurationError(
                    f"from {start} to {end} are more than {MOST_BACKFILLED} occurrences of "
                    f"{name!r}; choose a shorter time"
                )
            due_at = None if schedule.serial else now
            wishes = [Wish(schedule, instant, None, due_at) for instant in found]
            placed = await self.occurrences.place_once(connection, wishes)
            ids = [schedule.run_id(at) for at in found]
            made = [run_id for run_id in ids if run_id in placed]
            if made and schedule.serial:
                queued = [*schedule.queued_run_ids, *made]
                waiting = replace(schedule, queued_run_ids=queued)
                await self.occurrences.release_locked(connection, [waiting])
            return made

    async def delete(self, name: str) -> None:
        """Forget a schedule, and cancel its runs that have not begun."""
        async with self._borrow() as connection, connection.transaction():
            schedule = await self._locked(connection, name)
            runs = [schedule.next_run_id, *schedule.queued_run_ids]
            await self._fetch(
                connection,
                self._sql["cancel_occurrences"],
                [run_id for run_id in runs if run_id is not None],
            )
            await self._fetch(connection, self._sql["delete_schedule"], name)

    async def go_on_without(self, canceled: WorkflowRun) -> WorkflowRun:
        """Have what waited for this run begin, and its schedule go on if it was the next one."""
        if canceled.schedule_name is not None:
            await self.occurrences.mend()
        return canceled

    # -- within a transaction ------------------------------------------------------------------

    async def _locked(self, connection: Connection, name: str) -> Schedule:
        found = await self.occurrences.lock(connection, [name])
        if name not in found:
            raise ScheduleNotFound(name)
        return found[name]

    async def _put(self, wish: NewSchedule) -> bool:
        """Make or change a schedule of code; False if somebody else declares it."""
        for _ in range(_TRIES):
            async with self._borrow() as connection, connection.transaction():
                if await self._insert(connection, wish, None) is not None:
                    return True
                there = (await self.occurrences.lock(connection, [wish.name])).get(wish.name)
                if there is None:
                    continue  # deleted in between
                if there.source != wish.source:
                    return False
                if not wish.matches(there):
                    await self._change(connection, wish, there)
                return True
        return True

    async def _retire(self, name: str, served: Collection[tuple[str, str]]) -> None:
        async with self._borrow() as connection, connection.transaction():
            there = (await self.occurrences.lock(connection, [name])).get(name)
            if (
                there is None
                or there.source != Source.CODE
                or there.retired_at is not None
                or (there.workflow_name, there.version or "") not in served
            ):
                return
            logger.info("schedule %r is not in the code any more: it is stopped", name)
            (row,) = await self._fetch(connection, self._sql["retire_schedule"], name)
            await self._aim(connection, as_schedule(row), there.next_at)

    async def _stop_or_go(self, name: str, paused: bool, reason: str | None) -> Schedule:
        async with self._borrow() as connection, connection.transaction():
            there = await self._locked(connection, name)
            if paused == (there.paused_at is not None) and not reason:
                return there
            rows = await self._fetch(connection, self._sql["pause_schedule"], name, paused, reason)
            return await self._aim(
                connection, as_schedule(rows[0]), there.next_at if paused else None
            )

    async def _insert(
        self, connection: Connection, wish: NewSchedule, pause_reason: str | None
    ) -> Schedule | None:
        rows = await self._fetch(
            connection,
            self._sql["insert_schedule"],
            *(wish.name, uuid7(), wish.workflow_name, wish.version, wish.source, wish.cron),
            *(wish.time_zone, wish.input, wish.overlap, wish.catch_up, wish.jitter_seconds),
            *(pause_reason is not None, pause_reason),
        )
        return await self._aim(connection, as_schedule(rows[0]), None) if rows else None

    async def _change(self, connection: Connection, wish: NewSchedule, there: Schedule) -> Schedule:
        (row,) = await self._fetch(
            connection,
            self._sql["change_schedule"],
            *(wish.name, wish.workflow_name, wish.version, wish.source, wish.cron),
            *(wish.time_zone, wish.input, wish.overlap, wish.catch_up, wish.jitter_seconds),
        )
        instant = None if there.stopped else there.next_at
        if (there.cron, there.time_zone) != (wish.cron, wish.time_zone):
            # One that is due already is of the former times, and is not to be lost.
            overdue = instant is not None and instant <= await self.occurrences.now(connection)
            instant = instant if overdue else None
        return await self._aim(connection, as_schedule(row), instant)

    async def _aim(
        self, connection: Connection, schedule: Schedule, instant: datetime | None
    ) -> Schedule:
        """Have the schedule's next run at `instant`, by default the next one from now.

        A run that somebody has claimed in this moment is left to its claim, which waits for us.
        """
        run_id = schedule.next_run_id
        waiting = run_id is not None and await self._fetch(
            connection, self._sql["lock_waiting_runs"], [run_id]
        )
        if not waiting and run_id in await self.occurrences.unfinished(connection, [schedule]):
            return schedule
        if instant is None:
            instant = schedule.recurrence.after(await self.occurrences.now(connection))
        wish = Wish.next(schedule, instant, run_id if waiting else None)
        (placed,) = await self.occurrences.place(connection, [wish])
        aimed = replace(
            schedule, next_at=placed.instant, next_run_id=schedule.run_id(placed.instant)
        )
        await self.occurrences.save(connection, [aimed])
        return aimed

    async def _leads(self, build_id: str | None) -> bool:
        if build_id is None:
            return True
        async with self._borrow() as connection:
            (row,) = await self._fetch(connection, self._sql["leads_builds"], build_id)
        return bool(row["leads"])

    async def _fetch(self, connection: Connection, sql: str, *arguments: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await connection.fetch(sql, self._namespace_id, *arguments)
        return rows


def _check_period(start: datetime, end: datetime, now: datetime) -> None:
    if start.tzinfo is None or end.tzinfo is None:
        raise ConfigurationError("a backfill's start and end must carry a time zone")
    if end <= start:
        raise ConfigurationError(f"a backfill ends after it starts, not at {end}")
    if end > now:
        raise ConfigurationError(
            f"a backfill is for times that are over, and it is {now} by the database's clock; "
            f"{end} is still to come"
        )


def _place(source: str) -> str:
    return {
        Source.CODE: "the code of its workflow",
        Source.API: "ow.schedules",
        Source.RESOURCE: "a WorkflowNamespace",
    }.get(Source(source) if source in set(Source) else Source.API, source)
