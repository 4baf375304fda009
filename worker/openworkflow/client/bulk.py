"""One action on all runs that a filter means: in chunks, no faster than asked, resumable."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.filtering import Action, check_action
from openworkflow.core.asked import check_is
from openworkflow.core.cursor import cursor_of, read_cursor
from openworkflow.core.errors import ConfigurationError, InvalidRunState, RunNotFound
from openworkflow.core.filters import Term
from openworkflow.core.shown import shown

CHUNK = 200
AT_ONCE = 8
"""Requests under way: few, so that workers and others go on."""
_WANTED = "the one that the operation ended with"


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """How far an operation has come."""

    done: int
    """Runs that it did something to, so far."""
    passed: int
    """Runs that were not what they had been, once it came to them: left as they are."""
    cursor: str
    """Where it goes on if it is cut short here."""


async def act(
    backend: BackendPostgres,
    action: Action,
    terms: Sequence[Term],
    *,
    per_second: float | None,
    cursor: str | None,
    reason: str | None,
    by: str | None,
) -> AsyncIterator[BulkProgress]:
    """See OpenWorkflow.bulk."""
    check_action(action)
    if per_second is not None:
        check_is("per_second", per_second, (int, float), "a number")
        if not 0 < per_second < 1e9:
            raise ConfigurationError(f"per_second is more than 0, not {shown(per_second)}")
    began, after = (await backend.now(), None) if cursor is None else read_cursor(cursor, _WANTED)
    limit = CHUNK if per_second is None else max(1, min(CHUNK, int(per_second)))
    done = passed = 0
    while True:
        started = time.monotonic()
        ids = await backend.filtering.chunk(terms, action, began=began, after=after, limit=limit)
        if ids:
            changed = await _act_on(backend, action, ids, reason, by)
            done, passed, after = done + changed, passed + len(ids) - changed, ids[-1]
            yield BulkProgress(done, passed, cursor_of(began, after))
        if len(ids) < limit:
            return
        if per_second is not None:
            await asyncio.sleep(len(ids) / per_second - (time.monotonic() - started))


async def _act_on(
    backend: BackendPostgres,
    action: Action,
    ids: Sequence[UUID],
    reason: str | None,
    by: str | None,
) -> int:
    """Act on these; returns on how many, for they may have changed since they were found."""
    if action == "pause":
        return len(await backend.pauses.pause_runs(ids, reason=reason, by=by))
    if action == "resume":
        return len(await backend.pauses.resume_runs(ids))
    if action == "delete":
        return len(await backend.filtering.delete(ids))
    one = backend.cancel_workflow_run if action == "cancel" else backend.retry_workflow_run
    room = asyncio.Semaphore(AT_ONCE)

    async def on_one(run_id: UUID) -> bool:
        async with room:
            try:
                await one(run_id)
            except (InvalidRunState, RunNotFound):
                return False
            return True

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(on_one(run_id)) for run_id in ids]
    except ExceptionGroup as refusals:  # of one database: the first says it
        raise refusals.exceptions[0] from refusals.exceptions[0].__cause__
    return sum(task.result() for task in tasks)
