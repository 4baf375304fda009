"""What a run that waits costs: no slot and no replay for a moment, and after that no memory."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any
from weakref import WeakSet

import asyncpg
import pytest

from openworkflow import OpenWorkflow, RetryPolicy, Step, workflow
from openworkflow.worker.options import WorkerOptions
from tests.helpers import StartWorker, eventually
from tests.integration.test_residents import PARKS

RESTING: Any = {"concurrency": 1, "rest": WorkerOptions().rest}


async def test_a_short_sleep_is_no_replay_and_gives_its_slot_to_others(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    seen: list[str] = []

    async def start_other() -> None:
        await ow.run_workflow("other")

    @workflow
    async def napping(step: Step) -> None:
        seen.append("begins")
        await step.run("start", start_other)
        await step.sleep("nap", "100ms")
        while "other" not in seen:
            await step.sleep("nap", "100ms")
        seen.append("wakes")

    @workflow
    async def other(step: Step) -> None:
        await step.run("see", seen.append, "other")

    await start_worker(napping, other, **RESTING)
    run = await ow.run_workflow(napping)
    await run.result(timeout=20)

    assert ["begins", "other", "wakes"] == seen
    assert 1 == (await run.run()).claim_no


@pytest.mark.parametrize("stays", [RESTING, PARKS], ids=["resting", "resident"])
async def test_a_short_pause_before_a_retry_is_no_replay_either(
    ow: OpenWorkflow, start_worker: StartWorker, stays: Any
) -> None:
    calls: list[str] = []

    async def flaky() -> int:
        calls.append("step")
        if calls.count("step") < 3:
            raise ConnectionError("busy")
        return len(calls)

    @workflow
    async def trying(step: Step) -> int:
        calls.append("workflow")
        return await step.run("flaky", flaky, retry=RetryPolicy(initial="50ms"))

    await start_worker(trying, **stays)

    assert 4 == await (await ow.run_workflow(trying)).result(timeout=20)
    assert ["workflow", "step", "step", "step"] == calls


async def test_a_run_that_rests_is_handed_back_by_a_drain(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection
) -> None:
    @workflow
    async def napping(step: Step) -> None:
        await step.sleep("nap", "20s")

    worker = await start_worker(napping, concurrency=1, rest=timedelta(minutes=1))
    run = await ow.run_workflow(napping)

    async def rests() -> bool:
        return (await run.run()).claim_no == 1 and len((await ow.get_run(run.id)).steps) == 1

    await eventually(rests)
    async with asyncio.timeout(25):
        await worker.stop()

    row = await run.run()
    assert ("pending", None, 0) == (row.status, row.worker_id, row.crashes)
    until = await sql.fetchval("SELECT resume_at FROM step_attempts")
    assert until == row.available_at


async def test_parked_runs_leave_no_tasks_and_nothing_of_themselves_in_memory(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection
) -> None:
    """Also those that shield a branch, or wait for one with a limit: each left a task forever."""
    functions: WeakSet[Any] = WeakSet()
    branches: WeakSet[Any] = WeakSet()
    runs = 2000

    class Held:
        """Lives as long as the function that holds it."""

    @workflow
    async def waiting(step: Step) -> None:
        functions.add(held := Held())

        async def branch(name: str) -> None:
            branches.add(mine := Held())
            await step.sleep(name, "1d")
            del mine

        one, other = (asyncio.create_task(branch(name)) for name in ("one", "other"))
        await asyncio.wait([one, other], timeout=3600, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.shield(one)
        del held

    async def parked() -> bool:
        count = "SELECT count(*) FROM workflow_runs WHERE status = 'pending' AND claim_no > 0"
        return runs == int(await sql.fetchval(count))

    worker = await start_worker(waiting, concurrency=100)
    before = len(asyncio.all_tasks())
    await ow.run_workflows(waiting, [None] * runs)
    await eventually(parked, deadline=60)
    await eventually(lambda: worker.slots_used == 0)
    gc.collect()

    assert (0, 0) == (len(functions), len(branches))
    assert len(asyncio.all_tasks()) <= before
