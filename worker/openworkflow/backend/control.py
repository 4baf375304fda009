"""What is asked of runs, and done with them, by people: `BackendPostgres.control`."""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from openworkflow.backend.namespace import Namespace
from openworkflow.backend.requests import Requests
from openworkflow.backend.rows import as_json, as_run
from openworkflow.core.errors import InvalidRunState, RunNotFound
from openworkflow.core.explanation import MOST_AHEAD, MOST_WAITS, Held, Situation, Wait
from openworkflow.core.ids import uuid7
from openworkflow.core.limits import SEPARATOR, LimitWait
from openworkflow.core.served import Served
from openworkflow.core.standing import Standing
from openworkflow.core.step_attempt import StepKind
from openworkflow.core.undo import why_undone
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

_NO_RETRY = (
    "retried; only a failed or canceled run can, and any can be forked: `openworkflow runs fork`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A run to start with a part of another's history."""

    id: UUID
    history_from: int
    """The history that was looked at."""
    has_version: bool
    version: str | None
    has_input: bool
    input: str | None
    """JSON text, as the results are."""
    build: str | None
    """The build to bind it to."""
    rows: Sequence[UUID]
    overridden: Mapping[UUID, str | None]
    """Rows with another result."""
    context: str | None = None
    """Trace context, as NewRun has it; None for that of the other run."""


class Control:
    """Looks at the runs of one namespace, and what becomes of them by hand.

    `run` gives a run as it is now, and raises RunNotFound.
    """

    def __init__(
        self,
        requests: Requests,
        queries: Mapping[str, str],
        namespace: Namespace,
        run: Callable[[UUID], Awaitable[WorkflowRun]],
    ) -> None:
        self._requests, self._sql, self._namespace = requests, queries, namespace
        self._fetch, self._run = requests.fetch, run

    async def situation(self, run_id: UUID) -> Situation:
        """All that a run's not being done may follow from. Raises RunNotFound."""
        rows = await self._fetch(
            self._sql["explain_run"], self._namespace.id, run_id, MOST_WAITS, MOST_AHEAD
        )
        if not rows:
            raise RunNotFound(run_id)
        (row,) = rows
        return Situation(
            run=as_run(row),
            now=row["now"],
            waits=_waits(row),
            waits_in_all=row["waits_in_all"],
            served=_served(row["served_names"], row["served_versions"]),
            ahead=row["limit_ahead"] or row["turn_ahead"] or row["ahead"],
            limits=tuple(_limits(row)),
            takers=tuple(row["takers"]),
            build_known=row["build_known"],
            build_seen_at=row["build_seen_at"],
            behind=row["behind"],
            undoing=None if row["decision"] is None else why_undone(as_json(row["decision"])),
            pauses=tuple(_pauses(row)),
        )

    async def standings(self, run_ids: Sequence[UUID]) -> dict[UUID, Standing]:
        """What a list tells of those of these runs that have not ended."""
        rows = await self._fetch(self._sql["list_standings"], self._namespace.id, list(run_ids))
        return {
            row["id"]: Standing(**{each.name: row[each.name] for each in fields(Standing)})
            for row in rows
        }

    async def served(self) -> Served:
        """What workers say that they serve; asked for once."""
        rows = await self._requests.fetch_once(self._sql["list_served"], self._namespace.id)
        return Served(versions=tuple((row["workflow_name"], row["version"]) for row in rows))

    async def check_retry(self, run_id: UUID) -> WorkflowRun:
        """The run, if it can be retried. Raises RunNotFound or InvalidRunState."""
        run = await self._run(run_id)
        if run.status not in (RunStatus.FAILED, RunStatus.CANCELED):
            raise InvalidRunState(run_id, run.status, _NO_RETRY)
        return run

    async def cancel(self, run_id: UUID, *, force: bool = False) -> list[Any]:
        """Cancel this run alone; the row that it is then, none if it had ended."""
        which, channels = (self._namespace.id, run_id), self._namespace
        more = channels.work_channel, channels.done_channel, force, uuid7()

        async def cancel() -> list[Any]:
            async with self._requests.borrow() as connection, connection.transaction():
                await connection.fetch(self._sql["lock_workflow_run"], *which)
                sql = self._sql["cancel_workflow_run"]
                return list(await connection.fetch(sql, *which, *more))

        return await self._requests.repeat(cancel, safe=True)

    async def retry(self, run_id: UUID, rows: Collection[UUID] | None = None) -> WorkflowRun:
        """Make a failed or canceled run pending again; what its steps recorded stays.

        Only these `rows` of it, if they are given: the others count no more. Its attempts, crashes
        and deadline are forgotten. Children that it has handles of, and that have ended with it or
        failed it, are retried before it, so that it finds them going on. Raises RunNotFound or
        InvalidRunState.
        """
        # Of the claim that was seen, so that a try whose answer was lost is not made twice.
        before = await self.check_retry(run_id)
        channel, kept = self._namespace.work_channel, None if rows is None else list(rows)
        found = await self._fetch(self._sql["find_retried"], self._namespace.id, run_id, kept)
        for child in found:
            with contextlib.suppress(InvalidRunState, RunNotFound):  # by somebody else meanwhile
                await self.retry(child["id"])
        found = await self._fetch(
            self._sql["retry_workflow_run"],
            *(self._namespace.id, run_id, channel, before.claim_no, kept),
        )
        return as_run(found[0]) if found else await self._run(run_id)

    async def history_from(self, run_id: UUID) -> int | None:
        """The first claim whose steps count; None if there is no such run."""
        rows = await self._fetch(self._sql["get_history_from"], self._namespace.id, run_id)
        return rows[0]["history_from"] if rows else None

    async def fork(self, run_id: UUID, fork: Fork) -> WorkflowRun | None:
        """Start a run with a part of another's history. None if that has another history now."""
        given = fork.overridden
        rows = await self._fetch(
            self._sql["fork_workflow_run"],
            *(self._namespace.id, run_id, fork.id, fork.history_from),
            *(fork.has_version, fork.version, fork.input, fork.build),
            list(fork.rows),
            [uuid7() for _ in fork.rows],
            [row in given for row in fork.rows],
            [given.get(row) for row in fork.rows],
            fork.has_input,
            self._namespace.work_channel,
            fork.context,
        )
        if rows:
            return as_run(rows[0])
        try:
            return await self._run(fork.id)  # a try whose answer was lost has made it
        except RunNotFound:
            await self._run(run_id)
            return None


def _waits(row: asyncpg.Record) -> tuple[Wait, ...]:
    if row["wait_ids"] is None:
        return ()
    names = ("ids", "kinds", "names", "since", "until", "attempts", "errors", "whats")
    columns: list[list[Any]] = [row[f"wait_{name}"] for name in names]
    return tuple(
        Wait(
            id=step_id,
            kind=kind,
            name=name,
            since=since,
            until=until,
            attempt=attempt,
            error=None if error is None else as_json(error),
            child=_child(what) if kind in (StepKind.CHILD, StepKind.MAP) else None,
        )
        for step_id, kind, name, since, until, attempt, error, what in zip(*columns, strict=True)
    )


def _child(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None


def _pauses(row: asyncpg.Record) -> Iterator[Held]:
    """What holds the run, itself first, as far as it can be read."""
    own = None if row["pause"] is None else as_json(row["pause"])
    if own is not None:
        told = own if isinstance(own, dict) else {}
        try:
            since = datetime.fromisoformat(str(told.get("at")))
        except ValueError:
            since = None
        by, reason = (None if told.get(key) is None else str(told[key]) for key in ("by", "reason"))
        yield Held(subject="run", by=by, reason=reason, since=since)
    columns = [row[f"held_{name}"] or () for name in ("names", "by", "reasons", "since")]
    for name, by, reason, since in zip(*columns, strict=True):
        yield Held(subject="workflow" if name else "namespace", by=by, reason=reason, since=since)
    if row["is_next"] and row["schedule_paused_at"] is not None:
        reason, since = row["schedule_reason"], row["schedule_paused_at"]
        yield Held(subject="schedule", by=None, reason=reason, since=since)


def _limits(row: asyncpg.Record) -> Iterator[LimitWait]:
    names = ("keys", "slots", "used", "full", "opens", "paused", "holders")
    columns = [row[f"limit_{name}"] or () for name in names]
    for named, slots, used, is_full, opens, paused, holder in zip(*columns, strict=True):
        name, has_key, key = named.partition(SEPARATOR)
        yield LimitWait(
            name=name,
            key=key if has_key else None,
            slots=slots,
            used=used,
            is_full=is_full,
            opens_at=opens,
            paused_until=paused,
            holder=holder,
        )
    for name, opens in zip(row["turn_names"] or (), row["turn_at"] or (), strict=True):
        yield LimitWait(name=name, key=None, slots=None, used=0, is_full=True, opens_at=opens)


def _served(names: list[str] | None, versions: list[str] | None) -> Served:
    return Served(versions=tuple(zip(names or (), versions or (), strict=True)))
