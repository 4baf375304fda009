"""Every kind of wait for a signal, with everything that may happen to a run that waits.

Workers that die are in tests/crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

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
from openworkflow.backend.backend import BackendPostgres
from openworkflow.cli import histories
from openworkflow.core.errors import DeadlineExceeded, InvalidRunState, NonDeterminism
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.replay import RecordedRun, Replayer
from tests.helpers import StartWorker, eventually

HOLD: dict[str, asyncio.Event] = {}
"""By run: what keeps it in memory while it waits."""


async def hold(run_id: str) -> None:
    await HOLD.setdefault(run_id, asyncio.Event()).wait()


@workflow
async def for_ever(step: Step) -> Any:
    return await step.wait_for_signal("s")


@workflow
async def for_a_time(step: Step) -> Any:
    return await step.wait_for_signal("s", timeout="7d")


@workflow
def in_a_thread(step: SyncStep) -> Any:
    return step.wait_for_signal("s", timeout="7d")


@workflow
async def beside_a_sleep(step: Step) -> Any:
    waiting = asyncio.create_task(step.wait_for_signal("s"))
    sleep = asyncio.create_task(step.sleep("reminder", "1d"))
    await asyncio.wait({waiting, sleep}, return_when=asyncio.FIRST_COMPLETED)
    sleep.cancel()
    return await waiting


@workflow
async def in_memory(step: Step) -> Any:
    got, _ = await asyncio.gather(
        step.wait_for_signal("s"), step.run("hold", hold, str(step.run_id))
    )
    return got


FLOWS = [for_ever, for_a_time, in_a_thread, beside_a_sleep, in_memory]
SENDERS: dict[str, Callable[[OpenWorkflow, RunHandle[Any]], Awaitable[Any]]] = {
    "to the run": lambda ow, run: run.signal("s", "yes"),
    "to the topic": lambda ow, run: ow.signal("s", "yes"),
}
every_kind = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
every_sender = pytest.mark.parametrize("send", SENDERS.values(), ids=list(SENDERS))


async def waiting(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], flow: Any, **options: Any
) -> RunHandle[Any]:
    """A run of this kind that waits: parked, but for the one that is kept in memory."""
    run = await ow.run_workflow(flow, **options)
    wanted = ("running", "running") if flow is in_memory else ("pending", "running")
    found = (
        "select run.status, step.status from workflow_runs run join step_attempts step"
        " on step.workflow_run_id = run.id where run.id = $1 and step.kind = 'signal'"
    )

    async def waits() -> bool:
        row = await sql.fetchrow(found, run.id)
        return row is not None and tuple(row) == wanted

    await eventually(waits)
    if flow is in_memory:  # else what comes next could come before it waits
        subscribed = "select waiting from workflow_subscriptions where workflow_run_id = $1"
        await eventually(lambda: sql.fetchval(subscribed, run.id))
    return run


def let_go(run: RunHandle[Any]) -> None:
    HOLD.setdefault(str(run.id), asyncio.Event()).set()


@every_kind
@every_sender
async def test_a_drain_hands_the_wait_to_another_worker(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any, send: Any
) -> None:
    first = await start_worker(flow, drain=timedelta(milliseconds=50))
    run = await waiting(ow, sql, flow)
    await first.stop()
    await send(ow, run)
    let_go(run)

    await start_worker(flow)

    assert "yes" == await run.result(timeout=20)


@every_kind
@every_sender
async def test_a_signal_ends_the_wait(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any, send: Any
) -> None:
    await start_worker(flow)
    run = await waiting(ow, sql, flow)

    await send(ow, run)
    let_go(run)

    assert "yes" == await run.result(timeout=20)


@every_kind
async def test_a_run_that_waits_is_canceled_and_waits_again_when_it_is_retried(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    await start_worker(flow)
    run = await waiting(ow, sql, flow)

    await run.cancel()
    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=20)
    with pytest.raises(InvalidRunState):
        await run.signal("s", "too late")
    left = "select count(*) from step_attempts where status = 'running'"
    await eventually(lambda: _is_none(sql, left))
    let_go(run)
    await ow.retry(run.id)
    await run.signal("s", "yes")

    assert "yes" == await run.result(timeout=20)


async def _is_none(sql: asyncpg.Connection[Any], question: str) -> bool:
    return bool(0 == await sql.fetchval(question))


@every_kind
async def test_a_deadline_ends_every_wait(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    await start_worker(flow)
    run = await ow.run_workflow(flow, deadline="300ms")

    with pytest.raises(WorkflowFailed) as caught:
        await run.result(timeout=20)

    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    await eventually(
        lambda: _is_none(sql, "select count(*) from step_attempts where status = 'running'")
    )


@every_kind
async def test_a_pinned_run_waits_for_its_build_too(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    pinned: Any = {"build_policy": "pinned", "drain": timedelta(0)}
    first = await start_worker(flow, build_id="v1", **pinned)
    run = await waiting(ow, sql, flow)
    await first.stop()
    other = await start_worker(flow, build_id="v2", **pinned)
    await run.signal("s", "yes")
    let_go(run)
    await (await ow.run_workflow(flow)).signal("s", "of v2")
    assert RunStatus.PENDING is await run.status()

    await start_worker(flow, build_id="v1", **pinned)

    assert "yes" == await run.result(timeout=20)
    await other.stop()


@every_kind
async def test_a_replay_can_be_checked_while_a_run_waits_and_afterwards(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker, sql: Any, flow: Any
) -> None:
    @workflow(name=flow.name)
    async def changed(step: Step) -> Any:
        await step.run("another", asyncio.sleep, 0)

    worker = await start_worker(flow)
    run = await waiting(ow, sql, flow)
    with Replayer() as replayer:
        assert (await replayer.replay(await recorded(backend), flow)).found is None
        let_go(run)  # not before: a run that is parked meanwhile is on no page
        await run.signal("s", "yes")
        await run.result(timeout=20)
        assert (await replayer.replay(await recorded(backend), flow)).found is None
        broken = (await replayer.replay(await recorded(backend), changed)).found
    assert broken is not None
    assert NonDeterminism.__name__ in broken.cause
    await worker.stop()


async def test_a_history_with_a_wait_can_be_exported_and_read_again(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    await start_worker(for_ever)
    run = await ow.run_workflow(for_ever)
    await run.signal("s", {"a": 1})
    await run.result(timeout=20)

    assert '"signal"' in histories.line_of(await recorded(backend))


async def recorded(backend: BackendPostgres) -> RecordedRun:
    found = histories.recorded(backend, workflow=None, statuses=list(RunStatus), limit=10)
    (run,) = [run async for run in found]
    return run
