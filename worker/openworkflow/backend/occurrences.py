"""The occurrences of schedules: what a claim of one leads to, what waits for it, what is put next.

Everything here happens in a transaction that has locked the schedules concerned.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from openworkflow.backend.connection import Connection
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.records import Begun, ClaimedOccurrence
from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow.core.schedule import Begin, Hold, Move, Queue, Schedule, Verdict, decide

logger = logging.getLogger(__name__)

BATCH = 500
"""Schedules that are mended in one transaction."""
MOST_TAKEN = 1000
"""Instants in a row that may have been run already, by hand, until placing one is given up."""
_COLUMNS = [column.name for column in fields(Schedule)]
_BAD_ROW = (ConfigurationError, ValueError, ArithmeticError)
"""What a row that was not written by us makes of computing with it."""


@dataclass(slots=True)
class Wish:
    """A run to put at an instant, in the place of `old_id` where that is given."""

    schedule: Schedule
    instant: datetime
    old_id: UUID | None = None
    due_at: datetime | None = None
    """None: at no time."""

    @classmethod
    def next(cls, schedule: Schedule, instant: datetime, old_id: UUID | None = None) -> "Wish":
        """The run that a schedule is to have next; it is due if the schedule is not stopped."""
        due_at = None if schedule.stopped else schedule.due_at(instant)
        return cls(schedule, instant, old_id, due_at)


@dataclass(slots=True)
class _Batch:
    """What one transaction is to write."""

    schedules: dict[str, Schedule]
    unfinished: Mapping[UUID, datetime | None]
    wishes: list[Wish] = field(default_factory=list)
    queued: list[UUID] = field(default_factory=list)
    deadlines: dict[UUID, datetime] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)


class Occurrences:
    """The occurrences of one namespace's schedules. `borrow` gives a connection."""

    def __init__(
        self,
        borrow: Callable[[], AbstractAsyncContextManager[Connection]],
        queries: Mapping[str, str],
        namespace: Namespace,
    ) -> None:
        self._borrow, self._sql = borrow, queries
        self._namespace_id, self._channel = namespace.id, namespace.work_channel

    async def begin(
        self, worker_id: str, claims: Sequence[ClaimedOccurrence]
    ) -> dict[UUID, Begun | Exception]:
        """Decide about claimed occurrences, and put the next of their schedules in their place.

        One that is missing in the answer does not run, or not now: its claim is gone. An Exception
        says why nothing could be decided. Safe to repeat. Raises BackendError.
        """
        async with self._borrow() as connection, connection.transaction():
            ids = [claim.run_id for claim in claims]
            schedules = await self.lock(connection, [], ids)
            runs = await self._fetch(
                connection,
                self._sql["lock_claimed_runs"],
                *(ids, [c.claim_no for c in claims], worker_id, [c.claimed_at for c in claims]),
            )
            unfinished = await self.unfinished(connection, schedules.values())
            batch = _Batch(schedules, unfinished)
            answers: dict[UUID, Begun | Exception] = {}
            given = {claim.run_id: claim for claim in claims}
            for run in runs:
                try:
                    answer = _settled(batch, run, given[run["id"]])
                except _BAD_ROW as error:
                    answers[run["id"]] = error
                else:
                    if answer is not None:
                        answers[run["id"]] = answer
            await self._write(connection, batch)
            await self._release_left(connection, batch)
        return answers

    async def release(self, names: Sequence[str]) -> None:
        """Let the next queued occurrence of these schedules begin, if no earlier one is left."""
        async with self._borrow() as connection, connection.transaction():
            schedules = await self.lock(connection, names)
            waiting = [schedule for schedule in schedules.values() if schedule.queued_run_ids]
            if waiting:
                await self.release_locked(connection, waiting)

    async def release_locked(
        self, connection: Connection, schedules: Sequence[Schedule]
    ) -> list[Schedule]:
        """Let what is queued begin where nothing is left before it; returns the schedules."""
        unfinished = await self.unfinished(connection, schedules)
        released, after = [], []
        for schedule in schedules:
            left = [each for each in schedule.open_run_ids if each in unfinished]
            queued = [each for each in schedule.queued_run_ids if each in unfinished]
            schedule = replace(schedule, open_run_ids=left, queued_run_ids=queued)
            if not left and queued:
                released.append(first := queued[0])
                schedule = replace(schedule, open_run_ids=[first], queued_run_ids=queued[1:])
                if (instant := unfinished[first]) is not None:
                    schedule = schedule.count_begun(first, instant)
            after.append(schedule)
        await self.save(connection, after)
        if released:
            await self._fetch(connection, self._sql["release_occurrences"], released, self._channel)
        return after

    async def mend(self) -> int:
        """Give schedules a next run whose one is gone, and queues their turn; returns how many."""
        async with self._borrow() as connection:
            broken = await self._fetch(connection, self._sql["find_broken_schedules"])
        names = [row["name"] for row in broken]
        for start in range(0, len(names), BATCH):
            async with self._borrow() as connection, connection.transaction():
                await self._mend(connection, names[start : start + BATCH])
        return len(names)

    async def late(self) -> tuple[int, float]:
        """How many schedules wait for their next run for more than a minute, and for how long."""
        async with self._borrow() as connection:
            (row,) = await self._fetch(connection, self._sql["count_late_schedules"])
        return row["schedules"], row["seconds"]

    # -- within a transaction ------------------------------------------------------------------

    async def lock(
        self, connection: Connection, names: Sequence[str], run_ids: Sequence[UUID] = ()
    ) -> dict[str, Schedule]:
        """The schedules of these names, and of these runs, which nobody else changes meanwhile."""
        rows = await self._fetch(
            connection, self._sql["lock_schedules"], list(names), list(run_ids)
        )
        return {row["name"]: as_schedule(row) for row in rows}

    async def now(self, connection: Connection) -> datetime:
        """The database's clock."""
        (row,) = await self._fetch(connection, self._sql["read_clock"])
        now: datetime = row["now"]
        return now

    async def unfinished(
        self, connection: Connection, schedules: Iterable[Schedule]
    ) -> dict[UUID, datetime | None]:
        """Runs of these occurrences that have not ended; the instant of one whose time has come."""
        known = {
            run_id
            for schedule in schedules
            for run_id in (*schedule.open_run_ids, *schedule.queued_run_ids, schedule.next_run_id)
            if run_id is not None
        }
        if not known:
            return {}
        rows = await self._fetch(connection, self._sql["find_unfinished_runs"], list(known))
        return {row["id"]: row["scheduled_for"] for row in rows}

    async def place(self, connection: Connection, wishes: Sequence[Wish]) -> list[Wish]:
        """Make these runs, or move them; a place that is taken gives way to the next instant."""
        left = list(wishes)
        for _ in range(MOST_TAKEN):
            if not left:
                return list(wishes)
            placed = await self.place_once(connection, left)
            left = [w for w in left if w.schedule.run_id(w.instant) not in placed]
            for wish in left:
                wish.instant = wish.schedule.recurrence.after(wish.instant)
                wish.due_at = Wish.next(wish.schedule, wish.instant).due_at
        raise BackendError(
            f"schedule {left[0].schedule.name!r}: {MOST_TAKEN} instants in a row were run already"
        )

    async def place_once(self, connection: Connection, wishes: Sequence[Wish]) -> frozenset[UUID]:
        """Make these runs, or move them; returns the ids of those that were not there."""
        rows = await self._fetch(
            connection,
            self._sql["place_occurrences"],
            [wish.schedule.name for wish in wishes],
            [wish.old_id for wish in wishes],
            [wish.schedule.run_id(wish.instant) for wish in wishes],
            [wish.instant for wish in wishes],
            [wish.due_at for wish in wishes],
            self._channel,
        )
        return frozenset(row["id"] for row in rows)

    async def save(self, connection: Connection, schedules: Sequence[Schedule]) -> None:
        """Store what became of their occurrences."""
        await self._fetch(
            connection,
            self._sql["save_occurrences"],
            [each.name for each in schedules],
            [each.next_at for each in schedules],
            [each.next_run_id for each in schedules],
            [each.last_at for each in schedules],
            [each.last_run_id for each in schedules],
            [_array(each.open_run_ids) for each in schedules],
            [_array(each.queued_run_ids) for each in schedules],
            [each.begun for each in schedules],
            [each.skipped for each in schedules],
            [each.missed for each in schedules],
        )

    async def _write(self, connection: Connection, batch: _Batch) -> None:
        for wish in await self.place(connection, batch.wishes):
            name = wish.schedule.name
            run_id = wish.schedule.run_id(wish.instant)
            batch.schedules[name] = replace(
                batch.schedules[name], next_at=wish.instant, next_run_id=run_id
            )
        if batch.changed:
            await self.save(connection, [batch.schedules[name] for name in batch.changed])
        if batch.queued:
            await self._fetch(connection, self._sql["queue_occurrences"], batch.queued)
        if batch.deadlines:
            await self._fetch(
                connection,
                self._sql["begin_occurrences"],
                *(list(batch.deadlines), list(batch.deadlines.values())),
            )

    async def _mend(self, connection: Connection, names: Sequence[str]) -> None:
        schedules = await self.lock(connection, names)
        now = await self.now(connection)
        batch = _Batch(schedules, await self.unfinished(connection, schedules.values()))
        for schedule in schedules.values():
            if schedule.stopped or schedule.next_run_id in batch.unfinished:
                continue
            try:
                instant = schedule.recurrence.after(schedule.next_at or now)
                batch.wishes.append(Wish.next(schedule, instant))
            except _BAD_ROW as error:
                logger.error("schedule %r has no next run: %s", schedule.name, error)
                continue
            batch.changed.add(schedule.name)
        await self._write(connection, batch)
        await self._release_left(connection, batch)

    async def _release_left(self, connection: Connection, batch: _Batch) -> None:
        """Let begin what is queued and waits for nobody: who was to release it may have died."""
        waiting = [each for each in batch.schedules.values() if each.queued_run_ids]
        if waiting:
            await self.release_locked(connection, waiting)

    async def _fetch(self, connection: Connection, sql: str, *arguments: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await connection.fetch(sql, self._namespace_id, *arguments)
        return rows


def as_schedule(row: Any) -> Schedule:
    """A row of `workflow_schedules`."""
    return Schedule(**{name: row[name] for name in _COLUMNS})


def _settled(batch: _Batch, run: Any, claim: ClaimedOccurrence) -> Begun | None:
    """Decide about one claimed run; None if it does not run now."""
    schedule = batch.schedules.get(run["schedule_name"] or "")
    run_id = claim.run_id
    if schedule is not None and schedule.next_run_id == run_id:
        if not _let_begin(batch, schedule, run_id, run["now"]):
            return None
        schedule = batch.schedules[schedule.name]
    deadline_at: datetime | None = run["deadline_at"]
    if run["schedule_name"] is not None and run["is_first"] and claim.deadline is not None:
        deadline_at = claim.claimed_at + timedelta(seconds=claim.deadline)
        batch.deadlines[run_id] = deadline_at
    serial = schedule is not None and schedule.serial
    supersedes: tuple[UUID, ...] = ()
    if schedule is not None and schedule.overlap == "cancel_running":
        opened = schedule.open_run_ids
        earlier = opened[: opened.index(run_id)] if run_id in opened else []
        supersedes = tuple(each for each in earlier if each in batch.unfinished)
    return Begun(run["schedule_name"], run["scheduled_for"], deadline_at, serial, supersedes)


def _let_begin(batch: _Batch, schedule: Schedule, run_id: UUID, now: datetime) -> bool:
    """Decide about the run that the schedule had next, and what it has next now."""
    instant = schedule.next_at
    left = [each for each in schedule.open_run_ids if each in batch.unfinished]
    queued = [each for each in schedule.queued_run_ids if each in batch.unfinished]
    current = replace(schedule, open_run_ids=left, queued_run_ids=queued)
    if instant is None:
        # Written by somebody who computes no instants: this run was due to have one computed.
        instant = schedule.recurrence.after(now)
        verdict: Verdict = Hold() if schedule.stopped else Move(instant)
    else:
        verdict = decide(current, instant, now, len(left))
    wish = Wish.next(schedule, instant, run_id)
    match verdict:
        case Hold():
            pass
        case Move(next_at, skipped, missed):
            wish = Wish.next(schedule, next_at, run_id)
            current = replace(
                current, skipped=schedule.skipped + skipped, missed=schedule.missed + missed
            )
        case Queue(next_at):
            wish = Wish.next(schedule, next_at)
            current = replace(current, queued_run_ids=[*queued, run_id])
            batch.queued.append(run_id)
        case Begin(next_at):
            wish = Wish.next(schedule, next_at)
            opened = [*left, run_id] if schedule.serial else []
            current = replace(current, open_run_ids=opened).count_begun(run_id, instant)
    batch.wishes.append(wish)
    batch.schedules[schedule.name] = current
    batch.changed.add(schedule.name)
    return isinstance(verdict, Begin)


def _array(ids: Iterable[UUID]) -> str:
    return "{" + ",".join(map(str, ids)) + "}"
