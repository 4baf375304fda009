"""Pauses of runs, workflows and namespaces: heeded by the next claim of any worker, and by nothing
brought up for what is held. A resume gives back all that no other pause holds, whoever was writing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, RunStatus, Step, workflow
from openworkflow.backend.backend import NewRun, WorkerSession
from openworkflow.core.errors import ConfigurationError, InvalidRunState, RunNotFound
from openworkflow.core.explanation import Reason
from openworkflow.core.ids import uuid7
from openworkflow.core.workflow_run import WorkflowRun
from tests.flushes import claim, claim_one, end_of, expire_leases, flush
from tests.helpers import StartWorker, eventually

DUE = "select count(*) from workflow_runs where status = 'pending' and available_at <= now()"
HOUR = timedelta(hours=1)


@workflow
async def quick(step: Step) -> str:
    return "done"


@workflow
async def napper(step: Step) -> str:
    await step.sleep("nap", 0.05)
    return "done"


@pytest.fixture
async def session(backend: BackendPostgres) -> Any:
    session = await backend.open_session(1)
    yield session
    await session.close()


async def run_of(backend: BackendPostgres, run_id: UUID) -> WorkflowRun:
    run = await backend.get_workflow_run(run_id)
    assert run is not None
    return run


@pytest.mark.parametrize("what", ["run", "workflow", "everything"])
async def test_what_is_paused_is_not_due_and_goes_on_when_it_is_resumed(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    what: str,
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    (other,) = await backend.create_workflow_runs([NewRun("b", delay=HOUR)])
    targets: dict[str, dict[str, Any]] = {
        "run": {"run_id": created.id},
        "workflow": {"workflow": "a"},
        "everything": {"everything": True},
    }
    target = targets[what]
    before = await run_of(backend, created.id)

    held = await ow.pause(**target, reason="an incident", by="ann")
    told = await ow.explain(created.id)

    assert (2 if what == "everything" else 1) == held
    assert 0 == await sql.fetchval(DUE)
    assert [] == await claim(session, "a", "b")
    assert (Reason.PAUSED, "ann", "an incident") == (
        told.reason,
        told.pauses[0].by,
        told.pauses[0].reason,
    )
    paused = await run_of(backend, created.id)
    assert (True, before.available_at) == (paused.paused, paused.due_at)

    assert await ow.resume(**target)
    assert not await ow.resume(**target)

    assert [created.id] == [run.id for run in await claim(session, "a", "b")]
    later = await run_of(backend, other.id)
    assert (False, None, HOUR) == (
        later.paused,
        later.due_at,
        later.available_at - later.created_at,
    )
    assert [] == (await backend.diagnostics()).violations


async def test_new_runs_of_a_paused_workflow_are_stored_and_not_begun(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await ow.pause(workflow="a")

    created = await backend.create_workflow_runs([NewRun("a"), NewRun("a", delay=HOUR)])
    (free,) = await backend.create_workflow_runs([NewRun("b")])

    assert 1 == await sql.fetchval(DUE)
    assert [free.id] == [run.id for run in await claim(session, "a", "b")]
    await ow.resume(workflow="a")
    assert [created[0].id] == [run.id for run in await claim(session, "a", "b")]


async def test_a_run_that_is_executed_is_set_aside_when_it_waits(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession
) -> None:
    created = await backend.create_workflow_runs([NewRun("a")] * 3)
    runs = {run.id: run for run in await claim(session, "a")}
    await ow.pause(workflow="a")
    told = await ow.explain(created[0].id)
    parked, forever, done = (runs[each.id] for each in created)

    ends = [
        end_of(parked, RunStatus.PENDING, delay=0.0),
        end_of(forever, RunStatus.PENDING, forever=True, wake_no=0),
        end_of(done),
    ]
    await flush(session, ends=ends)
    await backend.wake_workflow_run(forever.id)

    assert "it goes no further than its next wait, since workflow 'a' was paused" in told.sentence
    assert [] == await claim(session, "a")
    assert RunStatus.SUCCEEDED == (await run_of(backend, done.id)).status
    await ow.resume(workflow="a")
    # The one that was woken while it was paused has not slept through that.
    assert {parked.id, forever.id} == {run.id for run in await claim(session, "a")}


async def test_a_claim_sets_aside_what_became_due_all_the_same(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    database_url: str,
) -> None:
    """By programs of older versions, by hand, or by a worker that died."""
    created = await backend.create_workflow_runs([NewRun("a")] * 3)
    dying = await claim_one(session, "a")
    await ow.pause(workflow="a", by="ann")
    (by_hand,) = {run.id for run in created[:2]} - {dying.id} or {created[1].id}
    await sql.execute(
        "update workflow_runs set paused = false, due_at = null, available_at = now() "
        "where id = $1",
        by_hand,
    )
    await expire_leases(database_url)

    claimed = await claim(session, "a", worker="host/2")

    assert [] == claimed
    assert 0 == await sql.fetchval(DUE)
    lost = await run_of(backend, dying.id)
    assert (RunStatus.PENDING, None, True) == (lost.status, lost.worker_id, lost.paused)
    # The worker that is not dead after all writes nothing any more.
    assert {dying.id} == (await flush(session, ends=[end_of(dying)])).lost
    await ow.resume(workflow="a")
    assert 3 == len(await claim(session, "a", worker="host/2"))
    assert [] == (await backend.diagnostics()).violations


async def test_what_several_pauses_hold_goes_on_after_the_last(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    for target in ({"everything": True}, {"workflow": "a"}, {"run_id": created.id}):
        await ow.pause(**target, by="ann")
    told = await ow.explain(created.id)

    for target in ({"workflow": "a"}, {"run_id": created.id}):
        assert await ow.resume(**target)
        assert [] == await claim(session, "a")

    assert ["run", "namespace", "workflow"] == [held.subject for held in told.pauses]
    await ow.resume(everything=True)
    assert [created.id] == [run.id for run in await claim(session, "a")]


async def test_a_deadline_goes_on_and_a_retry_stays_paused(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    late, canceled = await backend.create_workflow_runs(
        [NewRun("a", delay=HOUR, deadline=2 * HOUR), NewRun("a")]
    )
    await ow.pause(late.id)
    await ow.pause(canceled.id)
    await ow.cancel(canceled.id)
    await ow.retry(canceled.id)
    await sql.execute(
        "update workflow_runs set deadline_at = now() - interval '1 s' where id = $1", late.id
    )

    assert [] == await claim(session, "a")
    await ow.resume(late.id)

    assert [late.id] == [run.id for run in await claim(session, "a")]
    assert RunStatus.PENDING == (await run_of(backend, canceled.id)).status
    await ow.resume(canceled.id)
    assert [canceled.id] == [run.id for run in await claim(session, "a")]


async def test_what_cannot_be_paused_says_why(ow: OpenWorkflow, backend: BackendPostgres) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    await ow.cancel(created.id)

    with pytest.raises(InvalidRunState, match="canceled and cannot be paused"):
        await ow.pause(created.id)
    for act in (ow.pause, ow.resume):
        with pytest.raises(RunNotFound):
            await act(uuid7())
        for nothing in ({}, {"run_id": created.id, "everything": True}):
            with pytest.raises(ConfigurationError, match="one of them"):
                await act(**nothing)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="reason"):
        await ow.pause(workflow="a", reason="\0")


async def test_a_resume_misses_no_run_that_others_were_setting_aside(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    """A claim and an enqueue that have seen the pause, and commit after the resume began."""
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    await ow.pause(workflow="a")
    enqueuer = await asyncpg.connect(database_url)
    transaction = enqueuer.transaction()
    await transaction.start()
    handle = await ow.run_workflow("a", connection=enqueuer)

    resuming = asyncio.create_task(ow.resume(workflow="a"))
    await eventually(lambda: _is_blocked(enqueuer))
    assert not resuming.done()
    await transaction.commit()

    assert await resuming
    await enqueuer.close()
    assert {created.id, handle.id} == {run.id for run in await claim(session, "a")}
    assert [] == (await backend.diagnostics()).violations


async def _is_blocked(connection: asyncpg.Connection[Any]) -> bool:
    """Whether somebody waits for what this connection holds."""
    count: int = await connection.fetchval(
        "select count(*) from pg_stat_activity where pg_backend_pid() = any (pg_blocking_pids(pid))"
    )
    return count > 0


async def test_a_pause_sets_nothing_aside_once_it_was_ended(
    ow: OpenWorkflow, backend: BackendPostgres
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 5)

    await asyncio.gather(*(act(workflow="a") for _ in range(10) for act in (ow.pause, ow.resume)))
    await ow.resume(workflow="a")

    assert [] == (await backend.diagnostics()).violations
    page = await backend.list_workflow_runs()
    assert [False] * 5 == [run.paused for run in page.runs]


async def test_a_whole_namespace_under_load_stops_and_goes_on(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(quick, napper, concurrency=20)
    handles = await ow.run_workflows(quick, [None] * 100) + await ow.run_workflows(
        napper, [None] * 100
    )

    await ow.pause(everything=True, reason="a test")
    running = "select count(*) from workflow_runs where status = 'running'"
    await eventually(lambda: _is_zero(sql, running))
    left = await ow.list_runs(limit=1000)
    await ow.resume(everything=True)

    assert all(run.paused or run.status.finished for run in left.runs)
    for handle in handles:
        assert "done" == await handle.result(timeout="30s")


async def _is_zero(sql: asyncpg.Connection[Any], query: str) -> bool:
    return bool(await sql.fetchval(query) == 0)


async def test_who_pauses_nothing_has_no_row_and_no_mark(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    await start_worker(napper)
    await (await ow.run_workflow(napper)).result(timeout="20s")

    row = await sql.fetchrow("select paused, due_at, pause, tags, forked_from from workflow_runs")

    assert row is not None
    assert (False, None, None, None, None) == tuple(row)


async def test_a_pause_that_holds_nothing_says_so_if_no_worker_serves_the_name(
    ow: OpenWorkflow, backend: BackendPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Who misspells a name in an incident believes that it is paused."""
    await ow.pause(workflow="ship_order")  # who serves what is not known yet
    await backend.builds.serve([("ship-order", "2")])

    for name in ("ship-order", "ship_order"):
        await ow.pause(workflow=name)
    await backend.create_workflow_runs([NewRun("comes")])
    await ow.pause(workflow="comes")
    await ow.pause(everything=True)

    (warning,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warning == (
        "no worker serves workflow 'ship_order'; those that are served include 'ship-order'; "
        "is this the name that was meant?"
    )


async def test_the_commands_pause_and_resume(database_url: str, ow: OpenWorkflow) -> None:
    handle = await ow.run_workflow("a")

    async def command(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openworkflow", *arguments, "--url", database_url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    paused = await command("pause", "a", "--reason", "an incident", "--by", "ann")
    listed = await command("pauses", "--json")
    explained = await command("runs", "explain", str(handle.id))
    resumed, again = await command("resume", "a"), await command("resume", "a")
    one = await command("runs", "pause", str(handle.id), "--json")
    shown = await command("runs", "show", str(handle.id))
    gone_on = await command("runs", "resume", str(handle.id))

    assert (0, "a is paused; 1 unfinished run is held\n") == paused
    assert ("a", "ann", "an incident", 1) == tuple(
        json.loads(listed[1])["pauses"][0][key]
        for key in ("workflow_name", "paused_by", "reason", "runs")
    )
    assert "workflow 'a' was paused by 'ann' at 20" in explained[1]
    assert ["a goes on\n", "a was not paused\n"] == [resumed[1], again[1]]
    assert {"held": 1} == json.loads(one[1])
    assert "yes; it would be due" in shown[1]
    assert (0, f"{handle.id} goes on\n") == gone_on
    assert 2 == (await command("pause"))[0]
    assert (0, "no workflow is paused\n") == await command("pauses")


@pytest.mark.parametrize("by", ["run", "workflow"])
@pytest.mark.parametrize("end", ["canceled", "failed"])
async def test_a_run_that_ended_while_paused_and_is_retried_after_the_resume_is_due(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, by: str, end: str
) -> None:
    """It kept the mark of a pause that was gone, and was due at no time."""
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    (run,) = await claim(session, "a")
    target: dict[str, Any] = {"run_id": run.id} if by == "run" else {"workflow": "a"}
    await ow.pause(**target)
    if end == "failed":
        await flush(session, ends=[end_of(run, RunStatus.FAILED, error="{}")])
    else:
        await ow.cancel(created.id)
    await ow.resume(**target)

    await ow.retry(run.id)

    assert [created.id] == [each.id for each in await claim(session, "a")]
    assert [] == (await backend.diagnostics()).violations
