"""A run that is claimed late: what others did goes before the times that were over after it.

Nobody executes the run while a signal is sent, or a child ends, and then a time of the run passes.
Whoever claims it next finds both, and the record says which was first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow import ChildTimeout, OpenWorkflow, SignalTimeout, Step, workflow
from tests.helpers import StartWorker, eventually

LONG = 3600
PARKS: Any = {"rest": timedelta(0), "drain": timedelta(milliseconds=50)}


@workflow(name="the-child")
async def child(step: Step) -> str:
    return "told"


async def by_signal(step: Step) -> Any:
    return await step.wait_for_signal("s")


async def by_child(step: Step) -> Any:
    return await step.run_workflow("child", child)


async def by_handle(step: Step) -> Any:
    return await (await step.start_workflow("child", child)).result()


async def by_map(step: Step) -> Any:
    found = await step.map("children", child, [None, None])
    return "told" if found == ["told", "told"] else found


Wait = Callable[[Step], Awaitable[Any]]
WAITS: dict[str, Wait] = {
    "signal": by_signal,
    "child": by_child,
    "handle": by_handle,
    "map": by_map,
}


async def in_timeout(step: Step, wait: Wait) -> Any:
    try:
        async with asyncio.timeout(LONG):
            return await wait(step)
    except TimeoutError:
        return "late"


async def in_wait_for(step: Step, wait: Wait) -> Any:
    try:
        return await asyncio.wait_for(wait(step), LONG)
    except TimeoutError:
        return "late"


async def beside_a_sleep(step: Step, wait: Wait) -> Any:
    late = asyncio.create_task(step.sleep("late", LONG))
    told: asyncio.Task[Any] = asyncio.create_task(wait(step))  # type: ignore[arg-type]
    done, _ = await asyncio.wait({late, told}, return_when=asyncio.FIRST_COMPLETED)
    return "late" if late in done else told.result()


async def in_as_completed(step: Step, wait: Wait) -> Any:
    first = next(iter(asyncio.as_completed([step.sleep("late", LONG), wait(step)])))
    return await first or "late"


async def beside_another_wait(step: Step, wait: Wait) -> Any:
    async def given_up() -> Any:
        return await step.wait_for_signal("never", timeout=LONG, default="late")

    return await next(iter(asyncio.as_completed([given_up(), wait(step)])))


RACES = [in_timeout, in_wait_for, beside_a_sleep, in_as_completed, beside_another_wait]
every_race = pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
every_wait = pytest.mark.parametrize("wait", WAITS.values(), ids=list(WAITS))


def racing(race: Any, wait: Wait) -> Any:
    @workflow(name="racing")
    async def flow(step: Step) -> Any:
        found = await race(step, wait)
        await step.sleep("after", 0.01)  # so that what it found is replayed too
        return found

    return flow


async def parked(sql: asyncpg.Connection[Any], run: Any, waits: int) -> None:
    """It waits, and all its waits are recorded."""
    found = (
        "select count(*) from step_attempts step join workflow_runs run on run.id ="
        " step.workflow_run_id where run.id = $1 and run.status = 'pending'"
        " and step.status = 'running'"
    )

    async def is_parked() -> bool:
        return bool(await sql.fetchval(found, run.id) == waits)

    await eventually(is_parked)


async def left_parked(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any], flow: Any, waits: int
) -> Any:
    """A run that waits, and that nobody executes any more."""
    first = await start_worker(flow, **PARKS)
    run = await ow.run_workflow(flow)
    await parked(sql, run, waits)
    await first.stop()
    return run


async def time_passes(sql: asyncpg.Connection[Any], run: Any) -> None:
    """Whatever the run waits for a time for is over; it is due."""
    await sql.execute(
        "update step_attempts set resume_at = clock_timestamp()"
        " where workflow_run_id = $1 and resume_at is not null",
        run.id,
    )
    await sql.execute("update workflow_runs set available_at = now() where id = $1", run.id)


async def others_act(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], start_worker: StartWorker, run: Any, wait: Wait
) -> None:
    """What the run waits for happens, and nobody executes the run."""
    if wait is by_signal:
        await run.signal("s", "told")
        return
    of_children = await start_worker(child, **PARKS)
    open_ = "select count(*) from workflow_runs where parent_run_id = $1 and completed_at is null"

    async def ended() -> bool:
        return bool(await sql.fetchval(open_, run.id) == 0)

    await eventually(ended)
    await of_children.stop()


@every_wait
@every_race
async def test_what_came_in_time_is_first_however_late_the_run_is_claimed(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, race: Any, wait: Wait
) -> None:
    flow = racing(race, wait)
    run = await left_parked(ow, start_worker, sql, flow, 2)
    await others_act(ow, sql, start_worker, run, wait)
    await time_passes(sql, run)

    await start_worker(flow, **PARKS)

    assert "told" == await run.result(timeout=20)


@every_wait
@every_race
async def test_what_came_too_late_is_second_however_late_the_run_is_claimed(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, race: Any, wait: Wait
) -> None:
    flow = racing(race, wait)
    run = await left_parked(ow, start_worker, sql, flow, 2)
    await time_passes(sql, run)
    await others_act(ow, sql, start_worker, run, wait)

    await start_worker(flow, **PARKS)

    assert "late" == await run.result(timeout=20)


@workflow(name="several")
async def several(step: Step) -> list[Any]:
    """What it does next depends on what came, and that came in time too."""
    found: list[Any] = []
    try:
        async with asyncio.timeout(LONG):
            found.append(await step.wait_for_signal("a"))
            found.append(await step.wait_for_signal("b"))
            found.append(await step.wait_for_signal("c"))
    except TimeoutError:
        found.append("late")
    return [*found, await step.wait_for_signal("c")]


async def test_one_signal_after_the_other_came_in_time_and_one_did_not(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    run = await left_parked(ow, start_worker, sql, several, 2)
    for name in "ab":
        await run.signal(name, name)
    await time_passes(sql, run)
    await run.signal("c", "c")

    await start_worker(several, **PARKS)

    assert ["a", "b", "late", "c"] == await run.result(timeout=20)


@workflow(name="giving-up")
async def giving_up(step: Step) -> list[Any]:
    try:
        found = await step.wait_for_signal("s", timeout=LONG)
    except SignalTimeout:
        found = "late"
    return [found, await step.wait_for_signal("s")]


async def test_a_signal_that_came_too_late_is_for_the_next_wait(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    run = await left_parked(ow, start_worker, sql, giving_up, 1)
    await time_passes(sql, run)
    await run.signal("s", "told")

    await start_worker(giving_up, **PARKS)

    assert ["late", "told"] == await run.result(timeout=20)


@workflow(name="impatient")
async def impatient(step: Step) -> Any:
    try:
        return await step.run_workflow("child", child, timeout=LONG)
    except ChildTimeout:
        return "late"


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_child_that_ended_in_time_counts_and_one_that_did_not_is_late(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any, in_time: bool
) -> None:
    run = await left_parked(ow, start_worker, sql, impatient, 1)
    if not in_time:
        await time_passes(sql, run)
    await others_act(ow, sql, start_worker, run, by_child)
    if in_time:
        await time_passes(sql, run)

    await start_worker(impatient, **PARKS)

    assert ("told" if in_time else "late") == await run.result(timeout=20)
