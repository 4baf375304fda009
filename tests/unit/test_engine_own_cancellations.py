"""Steps that cancel the task they are executed in, or leave it with a cancellation behind.

That is an error of the step, or nothing at all; it is no word that the worker is torn down, after
which a run would be dropped here, and found by nobody before its lease has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from openworkflow import RetryPolicy, Step
from openworkflow.engine.outcome import Completed, Parked
from tests.executions import failed, in_virtual_time, moments, prepared, quick, slow

ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial=1)


async def _fails() -> None:
    raise ValueError("odd")


async def group_that_fails() -> str:
    """Python before 3.13 takes back nothing of the cancellation of its task."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_fails())
    except* ValueError:
        pass
    return "group"


async def of_something_cancelled() -> None:
    await asyncio.sleep(0)
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancels_itself() -> None:
    _own_task().cancel()
    await asyncio.sleep(0)


async def cancels_itself_later() -> None:
    await asyncio.sleep(0)
    _own_task().cancel()
    await asyncio.sleep(0)


async def cancels_itself_and_returns() -> str:
    await asyncio.sleep(0)
    _own_task().cancel()
    return "returned"


async def cancels_itself_and_returns_at_once() -> str:
    _own_task().cancel()
    return "returned"


async def cancels_itself_and_raises() -> None:
    await asyncio.sleep(0)
    _own_task().cancel()
    raise ValueError("odd")


async def cancels_itself_and_raises_at_once() -> None:
    _own_task().cancel()
    raise ValueError("odd")


async def cancels_itself_and_exits_at_once() -> None:
    _own_task().cancel()
    raise SystemExit(3)


async def cancels_itself_and_takes_it_back() -> str:
    await asyncio.sleep(0)
    _own_task().cancel()
    _own_task().uncancel()
    return "returned"


def _own_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@in_virtual_time
async def test_a_group_that_fails_in_a_step_does_not_have_the_next_error_mistaken() -> None:
    async def function(step: Step) -> Any:
        await step.run("group", group_that_fails)
        await step.run("cancelled", of_something_cancelled, retry=ONCE)

    failed(await prepared(function).execute(), "RuntimeError", "was cancelled")


@pytest.mark.parametrize("function", [cancels_itself, cancels_itself_later])
def test_a_step_that_cancels_its_own_task_fails(function: Any) -> None:
    @in_virtual_time
    async def execute() -> None:
        async def of_one_step(step: Step) -> Any:
            await step.run("odd", function, retry=ONCE)

        failed(await prepared(of_one_step).execute(), "RuntimeError", "was cancelled")

    execute()


@pytest.mark.parametrize(
    "function",
    [
        group_that_fails,
        cancels_itself_and_returns,
        cancels_itself_and_returns_at_once,
        cancels_itself_and_takes_it_back,
    ],
)
def test_a_cancellation_that_a_step_leaves_behind_reaches_nothing(function: Any) -> None:
    @in_virtual_time
    async def execute() -> None:
        async def of_two_steps(step: Step) -> Any:
            first = await step.run("odd", function)
            await step.run("next", slow, 1)
            return [first, await step.run("last", quick, 1)]

        outcome = await prepared(of_two_steps).execute()
        assert isinstance(outcome, Completed), outcome

    execute()


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(
    "function",
    [
        cancels_itself_and_raises,
        cancels_itself_and_raises_at_once,
        cancels_itself_and_exits_at_once,
        cancels_itself_and_returns_at_once,
    ],
)
def test_nothing_waits_for_a_lease_after_a_step_that_cancelled_its_task(
    function: Any, beside: bool
) -> None:
    """Alone in the task of its execution, and as a branch in a task of its own."""

    @in_virtual_time
    async def execute() -> None:
        async def of_branches(step: Step) -> Any:
            odd = step.run("odd", function, retry=TWICE)
            if beside:
                await asyncio.gather(odd, step.run("beside", slow, 9), return_exceptions=True)
            else:
                with contextlib.suppress(ValueError, RuntimeError):
                    await odd
            return await step.run("last", quick, 1)

        run = prepared(of_branches)
        outcome = await run.execute()
        if isinstance(outcome, Parked):  # for the second attempt
            run.wake()
            outcome = await run.execute()
        assert isinstance(outcome, Completed), outcome

    execute()


@pytest.mark.parametrize("before", [quick, group_that_fails, cancels_itself_and_returns_at_once])
def test_a_worker_that_is_torn_down_takes_the_step_with_it(before: Any) -> None:
    @in_virtual_time
    async def execute() -> None:
        async def of_two_steps(step: Step) -> Any:
            await step.run("before", before)
            await step.run("slow", slow)

        run = prepared(of_two_steps)
        execution = run.execution()
        task = run.start(execution)
        await moments()
        task.cancel()
        await asyncio.wait({task}, timeout=1)

        assert ["before"] == [row.step_name for row in run.steps]
        assert task.done()

    execute()
