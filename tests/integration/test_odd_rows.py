"""Rows that no version of this program wrote: each may be odd, none may hide its neighbours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from openworkflow import OpenWorkflow, Step, workflow
from openworkflow.backend.backend import BackendPostgres, NewRun, RunFilter, WorkerSession
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import claim, claim_one, expire_leases, flush, session_of, success_of
from tests.helpers import StartWorker, eventually

TIMES = ["'-infinity'", "'infinity'", "'20000-01-01'", "'4000-01-01 BC'"]


@pytest.fixture
async def session(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await session_of(backend)
    yield session
    await session.close()


async def odd(sql: asyncpg.Connection[Any], where: str, **columns: str) -> None:
    values = ", ".join(f"{name} = {value}" for name, value in columns.items())
    await sql.execute(f"update workflow_runs set {values} where {where}")


@pytest.mark.parametrize("time", TIMES)
async def test_a_claim_takes_a_run_whose_times_python_cannot_hold_with_its_neighbours(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any], time: str
) -> None:
    created = await backend.create_workflow_runs([NewRun("a")] * 3)
    await odd(sql, f"id = '{created[0].id}'", deadline_at=time, created_at=time)
    await odd(sql, f"id = '{created[1].id}'", available_at="'-infinity'")

    claimed = await claim(session, "a")

    assert {run.id for run in created} == {run.id for run in claimed}
    assert created[1].id == claimed[0].id


async def test_a_run_whose_counts_are_at_their_end_keeps_no_other_from_being_claimed(
    backend: BackendPostgres,
    session: WorkerSession,
    database_url: str,
    sql: asyncpg.Connection[Any],
) -> None:
    """One such row failed each claim, of every worker. A fence cannot count on: it stays."""
    created = await backend.create_workflow_runs([NewRun("a")] * 3)
    await claim(session, "a")
    await expire_leases(database_url)
    await odd(sql, f"id = '{created[0].id}'", claim_no="2147483647")
    await odd(sql, f"id = '{created[1].id}'", crashes="2147483647")

    claimed = await claim(session, "a", worker="w/2")

    assert {(created[1].id, 2147483647), (created[2].id, 1)} == {(r.id, r.crashes) for r in claimed}


async def test_an_expired_lease_from_before_all_time_is_recovered(
    backend: BackendPostgres,
    session: WorkerSession,
    database_url: str,
    sql: asyncpg.Connection[Any],
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 2)
    first, _ = await claim(session, "a")
    await expire_leases(database_url)
    await odd(sql, f"id = '{first.id}'", available_at="'-infinity'")

    assert [True, True] == [run.recovered for run in await claim(session, "a", worker="w/2")]


@pytest.mark.parametrize("time", TIMES)
async def test_a_page_shows_every_run_whatever_its_times_and_status(
    backend: BackendPostgres, sql: asyncpg.Connection[Any], time: str
) -> None:
    created = await backend.create_workflow_runs([NewRun("a")] * 5)
    times = dict.fromkeys(
        ("available_at", "deadline_at", "created_at", "completed_at", "started_at"), time
    )
    await odd(sql, f"id in ('{created[1].id}', '{created[3].id}')", status="'dreaming'", **times)

    seen = []
    cursor = None
    for _ in range(10):
        page = await backend.list_workflow_runs(RunFilter(workflow_name="a"), 2, cursor)
        seen += page.runs
        if (cursor := page.next_cursor) is None:
            break

    assert cursor is None
    assert sorted(run.id for run in created) == sorted(run.id for run in seen)
    (status,) = {run.status for run in seen} - {RunStatus.PENDING}
    counts = await backend.count_runs()
    assert (status, False) == ("dreaming", status.finished)
    assert (3, 2) == (counts[RunStatus.PENDING], counts[status])


async def test_a_run_with_values_that_python_cannot_read_is_shown_with_their_text(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    await flush(session, successes=[success_of(run, "s"), success_of(run, "odd")])
    await odd(sql, "true", input="repeat('7', 5000)::jsonb")
    await sql.execute(
        "update step_attempts set kind = 'signal', status = 'waiting', created_at = 'infinity', "
        "completed_at = '-infinity', output = repeat('7', 5000)::jsonb where step_name = 'odd'"
    )

    row = await backend.get_workflow_run(created.id)
    good, strange = await backend.list_step_attempts(created.id)

    assert row is not None
    assert "7" * 5000 == row.input == strange.output
    assert ("s", "signal", "waiting") == (good.step_name, strange.kind, strange.status)


async def test_the_doctor_looks_at_a_database_with_odd_rows(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 2)
    await claim_one(session, "a")
    await odd(sql, "true", available_at="'-infinity'")

    diagnostics = await backend.diagnostics()

    assert (diagnostics.oldest_expired_lease or 0) > 1e9
    assert (diagnostics.oldest_due_run or 0) > 1e9


async def test_a_history_that_begins_after_every_claim_is_read_from_its_beginning(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    """Its run was executed again and again without a pause, each time from the beginning."""
    calls: list[int] = []

    @workflow
    async def naps(step: Step) -> None:
        for number in range(2):
            await step.run(f"call-{number}", calls.append, number)
            await step.sleep(f"nap-{number}", 0.5)

    await start_worker(naps)
    run = await ow.run_workflow(naps)
    await eventually(lambda: calls)

    async def parked() -> bool:
        return (await run.status()) is RunStatus.PENDING

    await eventually(parked)
    await odd(sql, f"id = '{run.id}'", history_from="2147483647")
    await run.result(timeout=20)

    assert [0, 1] == calls
