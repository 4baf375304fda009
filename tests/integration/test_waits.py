"""Parking and waking: whichever comes first, no wake is slept through. And starting afresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres, NewRun, WorkerSession
from openworkflow.backend.records import ClaimedRun, Continuation, RunEnd, Wake
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow_run import RunStatus, WorkflowRun
from tests.flushes import (
    claim,
    claim_one,
    end_of,
    expire_leases,
    flush,
    session_of,
    step_of,
    success_of,
)
from tests.helpers import eventually

NEVER = 9999
"""The year of a time that never comes."""


@pytest.fixture
async def session(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await session_of(backend)
    yield session
    await session.close()


@pytest.fixture
async def run(backend: BackendPostgres, session: WorkerSession) -> ClaimedRun:
    await backend.create_workflow_runs([NewRun("a")])
    return await claim_one(session, "a")


def park(run: ClaimedRun, **columns: Any) -> RunEnd:
    waits = {"forever": True, "wake_no": run.wake_no, "progress": True}
    return end_of(run, RunStatus.PENDING, **(waits | columns))


async def row_of(backend: BackendPostgres, run_id: UUID) -> WorkflowRun:
    row = await backend.get_workflow_run(run_id)
    assert row is not None
    return row


async def test_a_run_that_waits_for_no_time_is_due_at_none(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    await flush(session, ends=[park(run)])

    row = await row_of(backend, run.id)
    assert (RunStatus.PENDING, NEVER, None) == (row.status, row.available_at.year, row.worker_id)
    assert [] == await claim(session, "a")
    assert await backend.next_due() is None


async def test_a_wake_makes_a_run_that_waits_due(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    await flush(session, ends=[park(run)])

    assert await backend.wake_workflow_run(run.id)

    assert (run.id, 1) == ((again := await claim_one(session, "a")).id, again.wake_no)


async def test_a_run_that_was_woken_since_its_wait_began_is_not_parked(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    assert await backend.wake_workflow_run(run.id)
    assert RunStatus.RUNNING is (await row_of(backend, run.id)).status

    await flush(session, ends=[park(run)])

    assert 1 == (await claim_one(session, "a")).wake_no


async def test_a_wake_that_was_seen_does_not_keep_a_run_from_being_parked(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    await backend.wake_workflow_run(run.id)
    await flush(session, ends=[park(run)])
    again = await claim_one(session, "a")

    await flush(session, ends=[park(again)])

    assert [] == await claim(session, "a")


async def _both(
    sql: asyncpg.Connection[Any], first: Awaitable[Any], second: Awaitable[Any], run_id: UUID
) -> None:
    """Have both wait for the row's lock, in this order, and then let them go."""
    waiting = (
        "select count(*) from pg_stat_activity "
        "where wait_event_type = 'Lock' and datname = current_database()"
    )
    tasks = []
    async with sql.transaction():
        await sql.execute("select from workflow_runs where id = $1 for update", run_id)
        for number, work in enumerate((first, second), 1):
            tasks.append(asyncio.ensure_future(work))
            while number > await sql.fetchval(waiting):
                await sql.execute("select pg_stat_clear_snapshot(), pg_sleep(0.01)")
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("wake_first", [True, False])
@pytest.mark.parametrize("in_a_flush", [True, False])
async def test_a_wake_and_a_park_at_the_same_time_leave_the_run_due(
    backend: BackendPostgres,
    session: WorkerSession,
    run: ClaimedRun,
    sql: asyncpg.Connection[Any],
    wake_first: bool,
    in_a_flush: bool,
) -> None:
    other = await session_of(backend)
    wake: Awaitable[Any] = (
        flush(other, wakes=[Wake(run.id)], worker="w/2")
        if in_a_flush
        else backend.wake_workflow_run(run.id)
    )
    parked = flush(session, ends=[park(run)])
    first, second = (wake, parked) if wake_first else (parked, wake)

    await _both(sql, first, second, run.id)

    assert [run.id] == [again.id for again in await claim(session, "a")]
    await other.close()


async def test_a_statement_that_parks_and_wakes_one_run_loses_one_of_both(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    """The trap for which the journal keeps the two apart: a row is written once a statement."""
    flushed = await flush(session, ends=[park(run)], wakes=[Wake(run.id)])

    row = await row_of(backend, run.id)
    is_parked, is_woken = row.status is RunStatus.PENDING, run.id in flushed.lost
    assert is_parked != is_woken


async def test_a_deadline_bounds_every_wait(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    deadline = await backend.now() + timedelta(hours=1)
    await backend.create_workflow_runs([NewRun("a", deadline_at=deadline)])
    run = await claim_one(session, "a")

    await flush(session, ends=[park(run)])

    assert deadline == (await row_of(backend, run.id)).available_at


async def test_a_wake_starts_no_run_that_is_scheduled_for_later(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a", delay=timedelta(hours=1))])

    assert await backend.wake_workflow_run(created.id)

    assert [] == await claim(session, "a")
    assert 3590 < (await backend.next_due() or 0)


async def test_a_wake_leaves_alone_what_has_ended_or_is_elsewhere(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun, database_url: str
) -> None:
    elsewhere = await BackendPostgres.connect(database_url, namespace_id="elsewhere")

    assert not await elsewhere.wake_workflow_run(run.id)
    await flush(session, ends=[end_of(run)])
    assert not await backend.wake_workflow_run(run.id)
    assert not await backend.wake_workflow_run(UUID(int=7))
    assert RunStatus.SUCCEEDED is (await row_of(backend, run.id)).status
    await elsewhere.stop()


async def test_a_wake_in_a_flush_is_safe_to_send_again_and_is_never_lost(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    await flush(session, ends=[park(run)])

    for _ in range(2):
        assert not (await flush(session, wakes=[Wake(run.id), Wake(UUID(int=7))])).lost

    assert 2 == (await claim_one(session, "a")).wake_no


async def test_whoever_runs_a_woken_run_hears_of_it_and_all_hear_of_one_that_is_due(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    woken: list[UUID] = []
    heard: list[str] = []
    async with backend.listen() as listener:
        listener.on_woken(woken.append)
        listener.on_work(lambda: heard.append("work"))

        await backend.wake_workflow_run(run.id)
        await eventually(lambda: woken)
        assert ([run.id], []) == (woken, heard)

        await flush(session, ends=[park(run)])
        await eventually(lambda: heard)
        (again,) = await claim(session, "a")
        await flush(session, ends=[park(again)])
        heard.clear()
        await flush(session, wakes=[Wake(run.id)])
        await eventually(lambda: heard)
    assert [run.id] == woken


async def test_a_message_that_is_none_of_ours_disturbs_no_listener(
    backend: BackendPostgres, run: ClaimedRun, sql: asyncpg.Connection[Any]
) -> None:
    woken: list[UUID] = []
    canceled: list[UUID] = []
    async with backend.listen() as listener:
        listener.on_woken(woken.append)
        listener.on_canceled(canceled.append)
        channel = backend._namespace.work_channel
        for payload in ("wake x,1", f"wake x,{run.id}", "canceled ", f"canceled {run.id}"):
            await sql.execute("select pg_notify($1, $2)", channel, payload)

        await eventually(lambda: canceled)
    assert ([run.id], [run.id]) == (woken, canceled)


async def test_a_run_that_continues_as_new_starts_afresh_with_its_new_input(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a", input="1")])
    await claim_one(session, "a")
    await expire_leases(database_url)
    run = await claim_one(session, "a", worker="w/2")
    await flush(session, successes=[success_of(run, "s")])

    flushed = await flush(session, continuations=[Continuation(run.id, run.claim_no, '{"n": 2}')])

    row = await row_of(backend, run.id)
    assert not flushed.lost
    assert (RunStatus.PENDING, {"n": 2}, 0, 0) == (row.status, row.input, row.attempts, row.crashes)
    assert [] == await backend.list_step_attempts(run.id)
    again = await claim_one(session, "a")
    assert ('{"n": 2}', 3, 3, False) == (
        again.input,
        again.claim_no,
        again.history_from,
        again.has_history,
    )


async def test_steps_of_the_time_before_a_run_continued_as_new_do_not_count(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun, sql: asyncpg.Connection[Any]
) -> None:
    """They may be committed after the statement that deleted what it saw."""
    await flush(session, continuations=[Continuation(run.id, run.claim_no, None)])
    await sql.execute(
        "insert into step_attempts (workflow_run_id, step_name, kind, status, claim_no) "
        "values ($1, 'late', 'run', 'succeeded', $2)",
        run.id,
        run.claim_no,
    )
    again = await claim_one(session, "a")
    await flush(session, successes=[success_of(again, "s")])
    await flush(session, ends=[park(again, forever=False)])
    third = await claim_one(session, "a")

    history = (await session.load_histories([run.id]))[run.id]

    assert ["s"] == [step.step_name for step in history]
    assert third.has_history


async def test_a_run_continues_as_new_only_under_its_claim(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun, database_url: str
) -> None:
    await flush(session, successes=[success_of(run, "s")])
    await expire_leases(database_url)
    await claim_one(session, "a", worker="w/2")

    flushed = await flush(session, continuations=[Continuation(run.id, run.claim_no, None)])

    assert {run.id} == flushed.lost
    assert 1 == len(await backend.list_step_attempts(run.id))
    assert RunStatus.RUNNING is (await row_of(backend, run.id)).status


async def test_of_a_result_and_the_word_that_it_was_cut_short_the_first_stands(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    """An acknowledged success was overwritten by the clean-up of the next claim."""
    begun = {"status": StepStatus.RUNNING, "output": None}
    rows = [step_of(run, name, **begun, context='{"branch": "1"}') for name in ("a", "b")]
    await flush(session, steps=rows)
    success = {"output": "7", "update": True, "completion_no": 4}
    cut_short = {
        "status": StepStatus.FAILED,
        "output": None,
        "error": "{}",
        "context": '{"interrupted": true}',
        "update": True,
    }
    first, second = rows

    for step, order in ((first, (success, cut_short)), (second, (cut_short, success))):
        for columns in order:
            update = step_of(run, step.step_name, **{"id": step.id, **columns})
            assert not (await flush(session, steps=[update])).lost

    steps = {step.step_name: step for step in await backend.list_step_attempts(run.id)}
    history = {step.step_name: step for step in (await session.load_histories([run.id]))[run.id]}
    assert (StepStatus.SUCCEEDED, 7) == (steps["a"].status, steps["a"].output)
    assert (StepStatus.FAILED, None) == (steps["b"].status, steps["b"].output)
    assert {"branch": "1"} == steps["a"].context
    assert {"branch": "1", "interrupted": True} == steps["b"].context
    assert (4, None) == (history["a"].completion_no, history["b"].completion_no)


async def test_the_doctor_finds_a_step_that_runs_in_a_finished_run(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    await flush(session, steps=[step_of(run, "s", status=StepStatus.RUNNING, output=None)])
    healthy = await backend.diagnostics()
    await flush(session, ends=[end_of(run)])

    sick = await backend.diagnostics()

    assert [] == healthy.violations
    assert [("a finished run has no step attempt that is running", 1, run.id)] == [
        (found.invariant, found.rows, found.run_id) for found in sick.violations
    ]
