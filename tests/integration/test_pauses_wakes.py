"""What wakes a run while it is paused: it stays held, and goes on with that once it is resumed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import pytest

from openworkflow import BackendPostgres, Cron, OpenWorkflow, RunHandle, RunStatus, Step, workflow
from openworkflow.backend.backend import WorkerSession
from openworkflow.core.explanation import Reason
from openworkflow.core.workflow_run import WorkflowRun
from tests.flushes import claim
from tests.helpers import StartWorker, eventually

YEARLY = "0 0 1 1 *"
Sql: TypeAlias = "asyncpg.Connection[Any]"


@workflow
async def asks(step: Step) -> Any:
    return await step.wait_for_signal("answer")


@workflow
async def one(step: Step) -> None:
    """Is not executed."""


@workflow
async def another(step: Step) -> None:
    """Is not executed."""


@pytest.fixture
async def session(backend: BackendPostgres) -> Any:
    session = await backend.open_session(1)
    yield session
    await session.close()


async def waiting(ow: OpenWorkflow, start_worker: StartWorker) -> RunHandle[Any]:
    """A run that waits for a signal, and no worker."""
    worker = await start_worker(asks)
    handle = await ow.run_workflow(asks)

    async def waits() -> bool:
        row = await handle.run()
        return row.status is RunStatus.PENDING and row.claim_no > 0

    await eventually(waits)
    await worker.stop()
    return handle


def held(run: WorkflowRun) -> tuple[bool, bool, bool]:
    """Whether it is paused, due at no time, and would be due now."""
    would_be_due = run.due_at is not None and run.due_at <= datetime.now(UTC)
    return run.paused, run.available_at.year == 9999, would_be_due


@pytest.mark.parametrize("to", ["run", "topic"])
@pytest.mark.parametrize("what", ["run", "workflow"])
async def test_a_signal_to_a_run_that_is_paused_is_what_it_goes_on_with(
    ow: OpenWorkflow, start_worker: StartWorker, to: str, what: str
) -> None:
    handle = await waiting(ow, start_worker)
    target: dict[str, Any] = {"run_id": handle.id} if what == "run" else {"workflow": asks}
    await ow.pause(**target)

    await (handle.signal("answer", 42) if to == "run" else ow.signal("answer", 42))

    assert (True, True, True) == held(await handle.run())
    assert Reason.PAUSED == (await ow.explain(handle.id)).reason
    await ow.resume(**target)
    await start_worker(asks)
    assert 42 == await handle.result(timeout=20)


async def test_who_knows_of_no_pauses_wakes_a_run_all_the_same(
    ow: OpenWorkflow, start_worker: StartWorker, session: WorkerSession, sql: Sql
) -> None:
    """A program of an older version: it writes available_at, and no worker claims in between."""
    handle = await waiting(ow, start_worker)
    await ow.pause(workflow=asks)
    await sql.execute("update workflow_runs set available_at = now(), wake_no = wake_no + 1")

    await ow.resume(workflow=asks)

    assert [handle.id] == [run.id for run in await claim(session, asks.name)]


async def test_a_queued_occurrence_that_is_released_while_it_is_paused_begins_when_it_is_resumed(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, sql: Sql
) -> None:
    made = await ow.schedules.create("s", one, Cron(YEARLY, overlap="queue_one"))
    await sql.execute("update workflow_runs set available_at = 'infinity'")
    await ow.pause(workflow=one)

    await sql.execute(backend._sql["release_occurrences"], "default", [made.next_run_id], "channel")

    (run,) = (await ow.list_runs()).runs
    assert (True, True, True) == held(run)
    await ow.resume(workflow=one)
    assert [made.next_run_id] == [run.id for run in await claim(session, one.name)]


async def test_an_occurrence_that_becomes_one_of_another_workflow_leaves_the_pause_of_the_first(
    ow: OpenWorkflow, backend: BackendPostgres
) -> None:
    await ow.schedules.create("s", one, YEARLY)
    await ow.pause(workflow=one)

    changed = await ow.schedules.update("s", another, "0 0 2 1 *")

    (run,) = (await ow.list_runs()).runs
    assert (another.name, False, changed.next_at) == (
        run.workflow_name,
        run.paused,
        run.available_at,
    )
    assert [] == (await backend.diagnostics()).violations
