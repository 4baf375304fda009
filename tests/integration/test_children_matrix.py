"""Every kind of wait for a child, with everything that may happen to the run that waits.

Workers that die are in tests/crash, and the orders of ends in test_children_races.py.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    OpenWorkflow,
    RunHandle,
    Step,
    SyncStep,
    WorkflowCanceled,
    WorkflowFailed,
    workflow,
)
from openworkflow.backend import queries
from openworkflow.backend.backend import BackendPostgres
from openworkflow.cli import histories
from openworkflow.core.errors import DeadlineExceeded, NonDeterminism
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.replay import RecordedRun, Replayer
from tests.helpers import StartWorker, eventually

HOLD: dict[str, asyncio.Event] = {}
"""By run: what keeps it in memory while it waits."""


async def hold(run_id: str) -> None:
    await HOLD.setdefault(run_id, asyncio.Event()).wait()


@workflow
async def child(step: Step) -> Any:
    return await step.wait_for_signal("go")


@workflow
async def for_ever(step: Step) -> Any:
    return await step.run_workflow("child", child)


@workflow
async def for_a_time(step: Step) -> Any:
    return await step.run_workflow("child", child, timeout="7d")


@workflow
def in_a_thread(step: SyncStep) -> Any:
    return step.run_workflow("child", child)


@workflow
async def by_handle(step: Step) -> Any:
    started = await step.start_workflow("child", child)
    return await started.result()


@workflow
async def of_a_map(step: Step) -> Any:
    (found,) = await step.map("child", child, [None])
    return found


@workflow
async def beside_a_sleep(step: Step) -> Any:
    waiting = asyncio.create_task(step.run_workflow("child", child))
    sleep = asyncio.create_task(step.sleep("reminder", "1d"))
    await asyncio.wait({waiting, sleep}, return_when=asyncio.FIRST_COMPLETED)
    sleep.cancel()
    return await waiting


@workflow
async def in_memory(step: Step) -> Any:
    got, _ = await asyncio.gather(
        step.run_workflow("child", child), step.run("hold", hold, str(step.run_id))
    )
    return got


FLOWS = [for_ever, for_a_time, in_a_thread, by_handle, of_a_map, beside_a_sleep, in_memory]
every_kind = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)


@pytest.fixture(autouse=True)
async def sound(sql: asyncpg.Connection[Any]) -> Any:
    """Whatever happened, the tables are as they must be."""
    yield
    assert [] == await sql.fetch(queries.load("public")["check_invariants"])


async def waiting(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], flow: Any, **options: Any
) -> tuple[RunHandle[Any], RunHandle[Any]]:
    """A run of this kind that waits, parked but for the one in memory, and its child."""
    run = await ow.run_workflow(flow, **options)
    wanted = "running" if flow is in_memory else "pending"
    found = (
        "select kid.id from workflow_runs run join workflow_runs kid on kid.parent_run_id = run.id"
        " where run.id = $1 and run.status = $2 and run.claim_no > 0"
        " and kid.status = 'pending' and kid.claim_no > 0 and kid.completed_at is null"
        " and exists (select from workflow_children where id = kid.id and wake_at is not null)"
    )
    started: UUID = await eventually(lambda: sql.fetchval(found, run.id, wanted))
    return run, ow.handle(started)


def let_go(run: RunHandle[Any]) -> None:
    HOLD.setdefault(str(run.id), asyncio.Event()).set()


@every_kind
async def test_the_end_of_the_child_ends_the_wait(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    await start_worker(flow, child)
    run, kid = await waiting(ow, sql, flow)

    await kid.signal("go", "yes")
    let_go(run)

    assert "yes" == await run.result(timeout=20)


@every_kind
async def test_a_drain_hands_the_wait_to_another_worker(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    first = await start_worker(flow, child, drain=timedelta(milliseconds=50))
    run, kid = await waiting(ow, sql, flow)
    await first.stop()
    await kid.signal("go", "yes")
    let_go(run)

    await start_worker(flow, child)

    assert "yes" == await run.result(timeout=20)


@every_kind
async def test_a_run_is_canceled_with_its_child_and_has_one_when_it_is_retried(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    await start_worker(flow, child)
    run, kid = await waiting(ow, sql, flow)

    await run.cancel()
    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=20)
    assert RunStatus.CANCELED is await kid.status()
    let_go(run)
    await ow.retry(run.id)
    found = "select id from workflow_runs where parent_run_id = $1 and completed_at is null"
    other = await eventually(lambda: sql.fetchval(found, run.id))
    assert (other == kid.id) is (flow is by_handle)  # the step that started it has its result
    await ow.signal(other, "go", "again")

    assert "again" == await run.result(timeout=20)


@every_kind
async def test_a_deadline_ends_the_run_and_its_child(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    await start_worker(flow, child)
    run = await ow.run_workflow(flow, deadline="800ms")

    with pytest.raises(WorkflowFailed) as caught:
        await run.result(timeout=20)

    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    left = "select count(*) from workflow_runs where completed_at is null"

    async def all_ended() -> bool:
        return bool(0 == await sql.fetchval(left))

    await eventually(all_ended, 30)


@every_kind
async def test_a_pinned_run_waits_for_its_child_of_any_build(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    """A child is routed as any run: one that is not pinned goes on in another build."""
    pinned: Any = {"build_policy": "pinned", "drain": timedelta(0)}
    first = await start_worker(flow, build_id="v1", **pinned)
    other = await start_worker(child, build_id="v2")
    run, kid = await waiting(ow, sql, flow)
    await first.stop()
    await kid.signal("go", "yes")
    let_go(run)
    assert "yes" == await kid.result(timeout=20)
    assert (await run.run()).completed_at is None

    await start_worker(flow, build_id="v1", **pinned)

    assert "yes" == await run.result(timeout=20)
    assert "v2" == (await kid.run()).build_id
    await other.stop()


@every_kind
async def test_a_replay_can_be_checked_while_a_run_waits_and_afterwards(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    @workflow(name=flow.name)
    async def changed(step: Step) -> Any:
        await step.run("child", asyncio.sleep, 0)

    worker = await start_worker(flow, child)
    run, kid = await waiting(ow, sql, flow)
    with Replayer() as replayer:
        assert (await replayer.replay(await recorded(backend, flow), flow)).found is None
        let_go(run)
        await kid.signal("go", "yes")
        await run.result(timeout=20)
        assert (await replayer.replay(await recorded(backend, flow), flow)).found is None
        broken = (await replayer.replay(await recorded(backend, flow), changed)).found
    assert broken is not None
    assert NonDeterminism.__name__ in broken.cause
    await worker.stop()


@every_kind
async def test_a_run_that_is_paused_hears_of_its_child_once_it_is_resumed(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    await start_worker(flow, child)
    run, kid = await waiting(ow, sql, flow)
    await ow.pause(run.id)
    await kid.signal("go", "yes")
    await kid.result(timeout=20)
    let_go(run)
    await ow.resume(run.id)

    assert "yes" == await run.result(timeout=20)


async def recorded(backend: BackendPostgres, flow: Any) -> RecordedRun:
    found = histories.recorded(backend, workflow=flow.name, statuses=list(RunStatus), limit=10)
    (run,) = [run async for run in found]
    return run
