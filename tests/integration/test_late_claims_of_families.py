"""A run that is claimed late: what others did for it goes in the order in which they did it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from openworkflow import MapFailed, OpenWorkflow, Step, workflow
from tests.helpers import StartWorker, eventually
from tests.integration.test_late_claims import LONG, PARKS, child, left_parked, time_passes

A_MOMENT = timedelta(milliseconds=1)


@workflow(name="failing")
async def failing(input: int, step: Step) -> int:
    if input:
        raise ValueError("no")
    return input


async def children_end(start_worker: StartWorker, sql: Any, run: Any, *flows: Any) -> None:
    """The run's children end, and nobody executes the run."""
    worker = await start_worker(*(flows or (child,)), **PARKS)
    open_ = "select count(*) from workflow_runs where parent_run_id = $1 and completed_at is null"

    async def ended() -> bool:
        return bool(await sql.fetchval(open_, run.id) == 0)

    await eventually(ended)
    await worker.stop()


async def in_order(**coming: Any) -> list[str]:
    """The names of what came, in the order in which it did."""
    tasks = {asyncio.create_task(each): name for name, each in coming.items()}
    found: list[str] = []
    while len(found) < len(tasks):
        left = [task for task, name in tasks.items() if name not in found]
        done, _ = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        found += [tasks[task] for task in left if task in done]
    return found


@workflow(name="one-handle-after-the-other")
async def one_handle_after_the_other(step: Step) -> list[Any]:
    handles = [await step.start_workflow(name, child) for name in ("first", "second")]
    found: list[Any] = []
    try:
        async with asyncio.timeout(LONG):
            for handle in handles:
                found.append(await handle.result())
    except TimeoutError:
        found.append("late")
    return found


async def test_children_that_ended_in_time_are_first_though_waited_for_in_turn(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    flow = one_handle_after_the_other
    run = await left_parked(ow, start_worker, sql, flow, 2)
    await children_end(start_worker, sql, run)
    await time_passes(sql, run)

    await start_worker(flow, **PARKS)

    assert ["told", "told"] == await run.result(timeout=20)


@workflow(name="of-two-kinds")
async def of_two_kinds(step: Step) -> list[str]:
    handle = await step.start_workflow("by handle", child)
    return await in_order(
        late=step.wait_for_signal("late"),
        handle=handle.result(),
        run=step.run_workflow("run", child),
        map=step.map("map", child, [None]),
        early=step.wait_for_signal("early"),
    )


async def test_signals_and_children_are_told_in_the_order_in_which_they_came(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    run = await left_parked(ow, start_worker, sql, of_two_kinds, 5)
    await run.signal("early", None)
    await children_end(start_worker, sql, run)
    await run.signal("late", None)

    await start_worker(of_two_kinds, **PARKS)

    found = await run.result(timeout=20)
    assert ("early", "late") == (found[0], found[-1])
    assert {"handle", "run", "map"} == set(found[1:-1])


@workflow(name="of-a-failing-map")
async def of_a_failing_map(step: Step) -> list[str]:
    async def failed() -> None:
        with pytest.raises(MapFailed):
            await step.map("map", failing, [0, 1, 1, 0], tolerate_failures=1)

    async def late() -> None:
        await step.sleep("late", LONG)

    return await in_order(after=step.wait_for_signal("after"), late=late(), map=failed())


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_map_has_failed_when_one_item_too_many_had(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, in_time: bool
) -> None:
    run = await left_parked(ow, start_worker, sql, of_a_failing_map, 3)
    if not in_time:
        await time_passes(sql, run)
    await children_end(start_worker, sql, run, failing)
    if in_time:
        await time_passes(sql, run)
    await run.signal("after", None)

    await start_worker(of_a_failing_map, **PARKS)

    expected = ["map", "late", "after"] if in_time else ["late", "map", "after"]
    assert expected == await run.result(timeout=20)
