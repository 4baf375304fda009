"""Every kind of wait, with everything that may happen to a run that waits.

A new kind of wait is a workflow and a line of `WAITS`: how it is known that the run waits, and what
ends the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    Limit,
    OpenWorkflow,
    RetryPolicy,
    RunHandle,
    Step,
    SyncStep,
    WorkflowCanceled,
    WorkflowFailed,
    workflow,
)
from openworkflow.core.errors import DeadlineExceeded, InvalidRunState
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.replay import Replayer
from tests.helpers import StartWorker, eventually
from tests.integration.test_children_matrix import recorded

LATER = RetryPolicy(max_attempts=3, initial=timedelta(days=1), max_delay=timedelta(days=1))
FAILED: set[str] = set()
"""Runs that have failed once."""


async def told_before() -> str:
    return "before"


def fail_once(run_id: str) -> None:
    if run_id not in FAILED:
        FAILED.add(run_id)
        raise ConnectionError("away")


async def fails_at_first(run_id: str) -> str:
    fail_once(run_id)
    return "done"


@workflow
async def sleeps(step: Step) -> str:
    step.emit("t", await step.run("before", told_before))
    await step.sleep("night", "7d")
    step.emit("t", "after")
    return "done"


@workflow
def sleeps_in_a_thread(step: SyncStep) -> str:
    step.emit("t", "before")
    step.sleep("night", "7d")
    step.emit("t", "after")
    return "done"


@workflow
async def has_a_timer(step: Step) -> str:
    step.emit("t", await step.run("before", told_before))
    await asyncio.sleep(7 * 24 * 3600)
    step.emit("t", "after")
    return "done"


@workflow
async def waits_for_a_signal(step: Step) -> Any:
    step.emit("t", await step.run("before", told_before))
    told = await step.wait_for_signal("go")
    step.emit("t", "after")
    return told


@workflow
async def waits_for_a_signal_for_a_time(step: Step) -> Any:
    step.emit("t", await step.run("before", told_before))
    told = await step.wait_for_signal("go", timeout="7d", default="done")
    step.emit("t", "after")
    return told


@workflow
async def tries_again(step: Step) -> str:
    step.emit("t", await step.run("before", told_before))
    done = await step.run("call", fails_at_first, str(step.run_id), retry=LATER)
    step.emit("t", "after")
    return done


@workflow(retry=LATER)
async def begins_again(step: Step) -> str:
    step.emit("t", await step.run("before", told_before))
    fail_once(str(step.run_id))
    step.emit("t", "after")
    return "done"


@workflow
async def child(step: Step) -> Any:
    return await step.wait_for_signal("go")


@workflow(limits=[Limit(1, name="children")])
async def limited_child(step: Step) -> Any:
    return await step.wait_for_signal("go")


@workflow
async def waits_for_a_child(step: Step) -> Any:
    step.emit("t", await step.run("before", told_before))
    told = await step.run_workflow("child", child)
    step.emit("t", "after")
    return told


@workflow
async def waits_for_one_that_was_started(step: Step) -> Any:
    step.emit("t", await step.run("before", told_before))
    started = await step.start_workflow("start", child)
    told = await started.result()
    step.emit("t", "after")
    return told


@workflow(limits=[Limit(1, name="children")])
async def waits_for_a_child_under_its_own_limit(step: Step) -> Any:
    step.emit("t", await step.run("before", told_before))
    told = await step.run_workflow("child", limited_child)
    step.emit("t", "after")
    return told


@workflow
async def waits_for_a_map(step: Step) -> Any:
    step.emit("t", await step.run("before", told_before))
    (told,) = await step.map("map", limited_child, [None])
    step.emit("t", "after")
    return told


@workflow(limits=[Limit(2, name="gate")])
async def waits_for_a_limit(step: Step) -> Any:
    step.emit("t", await step.run("before", told_before))
    told = await step.wait_for_signal("go")
    step.emit("t", "after")
    return told


async def time_passes(ow: OpenWorkflow, sql: asyncpg.Connection[Any], run: RunHandle[Any]) -> None:
    await sql.execute(
        "update step_attempts set resume_at = now() where workflow_run_id = $1"
        " and resume_at is not null and completion_no is null",
        run.id,
    )
    await sql.execute(
        "update workflow_runs set available_at = now() where id = $1 and status = 'pending'", run.id
    )


async def a_signal_comes(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], run: RunHandle[Any]
) -> None:
    await run.signal("go", "done")


async def the_child_ends(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], run: RunHandle[Any]
) -> None:
    """As soon as it is there, and whatever became of it."""
    found = (
        "select coalesce((select id from workflow_runs"
        " where parent_run_id = run.id and completed_at is null), run.id)"
        " from workflow_runs run where id = $1 and (run.completed_at is not null"
        " or exists (select from workflow_children where parent_run_id = run.id))"
    )
    child_id = await eventually(lambda: sql.fetchval(found, run.id), 30)
    with contextlib.suppress(InvalidRunState):
        await ow.signal(child_id, "go", "done")


async def nothing(ow: OpenWorkflow, sql: asyncpg.Connection[Any], run: RunHandle[Any]) -> None:
    """The workflow comes to wait by itself."""


async def no_slot_is_left(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], run: RunHandle[Any]
) -> None:
    """The run has a signal to go on with, and waits for a limit."""
    found = (
        "select completed_at is not null or exists (select from workflow_subscriptions"
        " where workflow_run_id = run.id and waiting) and status = 'pending'"
        " from workflow_runs run where id = $1"
    )
    await eventually(lambda: sql.fetchval(found, run.id), 30)
    await ow.limits.set("gate", 0)
    with contextlib.suppress(InvalidRunState):
        await run.signal("go", "done")


async def a_slot_is_free(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], run: RunHandle[Any]
) -> None:
    await ow.limits.set("gate", 2)


@dataclass(frozen=True)
class Wait:
    """A kind of wait: a workflow that emits before and after, and returns "done"."""

    flow: Any
    ends: Callable[[OpenWorkflow, asyncpg.Connection[Any], RunHandle[Any]], Awaitable[None]]
    kind: str = "sleep"
    """Of the step that waits, in `runs explain`; "" where the run does as a whole."""
    begins: Callable[[OpenWorkflow, asyncpg.Connection[Any], RunHandle[Any]], Awaitable[None]] = (
        nothing
    )
    """Brings the run to where it waits."""
    others: tuple[Any, ...] = ()
    """Workflows of the runs that it waits for."""

    def __str__(self) -> str:
        return str(self.flow.name)


WAITS = [
    Wait(sleeps, time_passes),
    Wait(sleeps_in_a_thread, time_passes),
    Wait(has_a_timer, time_passes),
    Wait(waits_for_a_signal, a_signal_comes, "signal"),
    Wait(waits_for_a_signal_for_a_time, a_signal_comes, "signal"),
    Wait(waits_for_a_signal_for_a_time, time_passes, "signal"),
    Wait(tries_again, time_passes, "run"),
    Wait(begins_again, time_passes, ""),
    Wait(waits_for_a_child, the_child_ends, "child", others=(child,)),
    Wait(waits_for_one_that_was_started, the_child_ends, "child", others=(child,)),
    Wait(waits_for_a_child_under_its_own_limit, the_child_ends, "child", others=(limited_child,)),
    Wait(waits_for_a_map, the_child_ends, "map", others=(limited_child,)),
    Wait(waits_for_a_limit, a_slot_is_free, "signal", no_slot_is_left),
]
every_wait = pytest.mark.parametrize("wait", WAITS, ids=str)


async def begin(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], wait: Wait, **options: Any
) -> RunHandle[Any]:
    """A run that waits."""
    run: RunHandle[Any] = await ow.run_workflow(wait.flow, **options)
    await wait.begins(ow, sql, run)
    await waits(sql, run)
    return run


async def serve(start_worker: StartWorker, wait: Wait, **options: Any) -> Any:
    """A worker for the runs that wait, which this answers, beside one for those waited for."""
    if wait.others:
        await start_worker(*wait.others)
    return await start_worker(wait.flow, **options)


async def waits(sql: asyncpg.Connection[Any], run: RunHandle[Any]) -> None:
    found = (
        "select status = 'pending' and claim_no > 0 and available_at > now() + interval '1 hour'"
        " from workflow_runs where id = $1"
    )
    await eventually(lambda: sql.fetchval(found, run.id), deadline=30)


async def ends_well(ow: OpenWorkflow, run: RunHandle[Any]) -> None:
    """It came to its result, and what it emitted came once."""
    assert "done" == await run.result(timeout=30)
    async with asyncio.timeout(20):
        assert ["before", "after"] == [event.value async for event in run.events("t")]


async def no_row_is_open(sql: asyncpg.Connection[Any]) -> bool:
    return bool(
        0 == await sql.fetchval("select count(*) from step_attempts where status = 'running'")
    )


async def is_due_for_its_build(run: RunHandle[Any]) -> bool:
    return "build" == (await run.explain()).reason


@every_wait
async def test_a_wait_ends(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    await serve(start_worker, wait)
    run = await begin(ow, sql, wait)
    waits = (await run.explain()).waits
    assert [wait.kind] * bool(wait.kind) == [each.kind for each in waits]

    await wait.ends(ow, sql, run)

    await ends_well(ow, run)
    assert await no_row_is_open(sql)


@every_wait
async def test_a_worker_that_dies_with_a_run_that_waited_leaves_the_wait_as_it_was(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    await serve(start_worker, wait)
    run = await begin(ow, sql, wait)
    await sql.execute(  # as the claim of a worker leaves it that dies at once
        "update workflow_runs set status = 'running', worker_id = 'gone/1',"
        " claim_no = claim_no + 1, available_at = now() - interval '1 second' where id = $1",
        run.id,
    )
    if wait.kind:
        await waits(sql, run)
        await wait.ends(ow, sql, run)

    await ends_well(ow, run)


@every_wait
async def test_a_drain_hands_a_run_that_waits_over(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    first = await serve(start_worker, wait)
    run = await begin(ow, sql, wait)
    await first.stop()
    await wait.ends(ow, sql, run)

    await start_worker(wait.flow)

    await ends_well(ow, run)


@every_wait
async def test_a_cancellation_ends_a_wait_for_good(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    await serve(start_worker, wait)
    run = await begin(ow, sql, wait)

    await run.cancel()
    with contextlib.suppress(InvalidRunState):
        await wait.ends(ow, sql, run)

    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=30)
    assert ["before"] == [event.value async for event in run.events("t")]
    await eventually(lambda: no_row_is_open(sql))


@every_wait
async def test_a_deadline_ends_a_wait(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    await serve(start_worker, wait)
    run = await ow.run_workflow(wait.flow, deadline="1s")
    await wait.begins(ow, sql, run)

    with pytest.raises(WorkflowFailed) as caught:
        await run.result(timeout=30)

    assert isinstance(caught.value.__cause__, DeadlineExceeded | ConnectionError)
    await eventually(lambda: no_row_is_open(sql), 30)


@every_wait
async def test_a_wait_of_a_pinned_run_ends_for_its_build_only(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    first = await serve(start_worker, wait, build_id="v1", build_policy="pinned")
    run = await begin(ow, sql, wait)
    await first.stop()
    other = await start_worker(wait.flow, build_id="v2", build_policy="pinned")
    await ow.limits.set("children", 2)  # one for the run that is due, and that nobody takes
    await wait.ends(ow, sql, run)
    await begin(ow, sql, wait)  # of v2, which had its chance to take the other
    assert RunStatus.PENDING is await run.status()
    await eventually(lambda: is_due_for_its_build(run))

    await start_worker(wait.flow, build_id="v1", build_policy="pinned")

    await ends_well(ow, run)
    await other.stop()


@every_wait
async def test_a_run_that_is_retried_by_hand_waits_again_or_goes_on(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    await serve(start_worker, wait)
    run = await begin(ow, sql, wait)
    await run.cancel()
    await eventually(lambda: no_row_is_open(sql))

    await ow.retry(run.id)

    while not (await run.status()).finished:
        with contextlib.suppress(InvalidRunState):
            await wait.ends(ow, sql, run)
        await asyncio.sleep(0.2)
    assert "done" == await run.result(timeout=30)
    told = [event.value async for event in run.events("t")]
    assert ("before", "after", 1) == (told[0], told[-1], told.count("after"))


@every_wait
async def test_a_replay_can_be_checked_while_a_run_waits(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, wait: Wait
) -> None:
    await serve(start_worker, wait)
    await begin(ow, sql, wait)

    with Replayer() as replayer:
        found = await recorded(ow._backend, wait.flow)
        assert (await replayer.replay(found, wait.flow)).found is None
    assert 1 == await sql.fetchval("select count(*) from workflow_events")
