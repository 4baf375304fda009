"""A flush that waits for a lock: overtaken by the next one, or by a claim of its run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.records import ClaimedRun, NewRun, StepWrite
from openworkflow.backend.session import WorkerSession
from openworkflow.core.recorded import RecordedStep
from openworkflow.engine.history import History
from openworkflow.engine.journal import DatabaseClock, Journal
from openworkflow.engine.keys import Branch
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.step_call import StepCall
from tests.flushes import claim, claim_one, end_of, flush, session_of
from tests.helpers import eventually

EXPIRE = "update workflow_runs set available_at = now() - interval '1 s' where id = $1"
LATE = """
insert into step_attempts (id, workflow_run_id, step_name, kind, status, completed_at, output,
                           attempt, claim_no, completion_no)
values ($1, $2, 'a', 'run', 'succeeded', now(), $3, 1, 1, 1)
"""
WAITING = """
select count(*) from pg_stat_activity
 where wait_event_type = 'Lock' and datname = current_database()
"""


@pytest.fixture
async def session(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await session_of(backend)
    yield session
    await session.close()


@pytest.fixture
async def other(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await session_of(backend)
    yield session
    await session.close()


@pytest.fixture
async def locker(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def recorded(run: ClaimedRun, history: History, *keys: str) -> dict[str, Any]:
    """What a claim writes that finds this history, and then ends steps of these keys."""
    journal = Journal(DatabaseClock(run.claimed_at))
    recorder = Recorder(run, journal, lambda: None, completions=history.completions)
    if history.overtook:
        recorder.record_again(history.overtook)
    for key in keys:
        recorder.succeeded(StepCall(key, 1), f'"{key}"')
    rows = [row for written in journal.take(100).entries for row in written.rows]
    return {
        "steps": [row for row in rows if isinstance(row, StepWrite)],
        "successes": [row for row in rows if not isinstance(row, StepWrite)],
    }


def events(history: History, asked: Sequence[str]) -> list[tuple[str, int | None, str | None]]:
    branch = Branch()
    for key in asked:
        history.keys.request(key, branch)
    found: list[RecordedStep] = []
    while (event := history.next_event()) is not None:
        found.append(event)
    return [(each.step_name, each.completion_no, each.output) for each in found]


async def test_a_claim_records_again_what_it_hands_out_beyond_a_write_that_it_misses(
    backend: BackendPostgres,
    session: WorkerSession,
    other: WorkerSession,
    sql: asyncpg.Connection[Any],
) -> None:
    """Claim 2 finds event 2 alone, and goes on; then event 1 comes, which it has not seen.

    Workers whose fence was no lock recorded it that late, and may still.
    """

    async def history(run: ClaimedRun) -> History:
        return History((await other.load_histories([run.id]))[run.id])

    await backend.create_workflow_runs([NewRun("a")])
    (run,) = await claim(session, "a")
    first, second = recorded(run, History(), "a", "b")["successes"]
    await flush(other, successes=[second])
    await sql.execute(EXPIRE, run.id)
    again = await claim_one(other, "a", worker="host/2")
    found = await history(again)
    assert [("b", 2, '"b"')] == events(found, "ab")
    await flush(other, worker="host/2", **recorded(again, found, "after-b"))
    await sql.execute(LATE, first.id, run.id, first.output)

    found = await history(again)

    assert [("b", 1, '"b"'), ("after-b", 2, '"after-b"'), ("a", 1, '"a"')] == events(
        found, ["a", "b", "after-b"]
    )
    assert [] == found.overtook


async def test_no_claim_takes_a_run_of_which_a_step_is_being_recorded(
    backend: BackendPostgres,
    session: WorkerSession,
    other: WorkerSession,
    sql: asyncpg.Connection[Any],
    locker: asyncpg.Connection[Any],
) -> None:
    """Both went on: one from the result that it was told is recorded, one from its own."""
    await backend.create_workflow_runs([NewRun("a"), NewRun("a")])
    run, locked = await claim(session, "a")
    (row,) = recorded(run, History(), "a")["successes"]
    async with locker.transaction():
        await locker.execute("select from workflow_runs where id = $1 for update", locked.id)
        late = asyncio.create_task(flush(session, successes=[row], ends=[end_of(locked)]))
        await eventually(lambda: sql.fetchval(WAITING))
        await sql.execute(EXPIRE, run.id)
        assert [] == await claim(other, "a", worker="host/2")
    assert not (await late).lost

    again = await claim_one(other, "a", worker="host/2")

    assert ["a"] == [step.step_name for step in (await other.load_histories([run.id]))[run.id]]
    assert again.id == run.id


async def test_a_step_that_waited_while_its_run_was_claimed_is_lost(
    backend: BackendPostgres,
    session: WorkerSession,
    other: WorkerSession,
    sql: asyncpg.Connection[Any],
    locker: asyncpg.Connection[Any],
) -> None:
    """Its statement had begun before the claim, and saw the run as it was then."""
    await backend.create_workflow_runs([NewRun("a"), NewRun("a")])
    run, locked = await claim(session, "a")
    before, row = (recorded(each, History(), "a")["successes"][0] for each in (locked, run))
    async with locker.transaction():
        await locker.execute("select from workflow_runs where id = $1 for update", locked.id)
        late = asyncio.create_task(flush(session, successes=[before, row]))
        await eventually(lambda: sql.fetchval(WAITING))
        await sql.execute(EXPIRE, run.id)
        await claim_one(other, "a", worker="host/2")

    assert {row.id} == (await late).lost
