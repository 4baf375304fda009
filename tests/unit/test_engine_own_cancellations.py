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
from openworkflow.engine.outcome import Completed, Lost, Parked, Released
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

    failed(await prepared(function).execute(), "StepAborted", "was cancelled")


@pytest.mark.parametrize("function", [cancels_itself, cancels_itself_later])
def test_a_step_that_cancels_its_own_task_fails(function: Any) -> None:
    @in_virtual_time
    async def execute() -> None:
        async def of_one_step(step: Step) -> Any:
            await step.run("odd", function, retry=ONCE)

        failed(await prepared(of_one_step).execute(), "StepAborted", "was cancelled")

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


def _cancelled_after(seconds: float, error: Exception | None) -> Any:
    """As by a watchdog, or a time limit made by hand that nobody takes back after an error."""
    calls: list[int] = []

    async def function() -> str:
        calls.append(1)
        if len(calls) == 1:
            asyncio.get_running_loop().call_later(seconds, _own_task().cancel)
            if error is not None:
                raise error
            await asyncio.sleep(60)
        return "second"

    return function


@pytest.mark.parametrize("error", [None, ValueError("odd")])
def test_a_branch_whose_task_is_cancelled_by_others_stands_still_for_nobody(error: Any) -> None:
    """While its function waits it is an error of the step; before the next attempt, no end."""

    @in_virtual_time
    async def execute() -> None:
        odd = _cancelled_after(1, error)

        async def of_branches(step: Step) -> Any:
            retry = RetryPolicy(max_attempts=2, initial=5)
            return await asyncio.gather(
                step.run("odd", odd, retry=retry), step.run("beside", slow, 20)
            )

        run = prepared(of_branches)
        outcome = await asyncio.wait_for(run.execute(), 100)
        if error is not None:
            assert Released() == outcome
            run.wake()
            outcome = await asyncio.wait_for(run.execute(), 100)
        assert Completed('["second","slow"]') == outcome

    execute()


@in_virtual_time
async def test_a_sleep_of_a_branch_whose_task_is_cancelled_by_others_goes_on_elsewhere() -> None:
    async def cancels_all() -> None:
        for task in asyncio.all_tasks():
            if "_perform" in repr(task) and task is not asyncio.current_task():
                task.cancel()

    async def of_branches(step: Step) -> Any:
        nap = asyncio.create_task(step.sleep("nap", 60))
        await step.run("before", slow, 1)
        with contextlib.suppress(Exception):
            await asyncio.gather(step.run("odd", cancels_all), step.run("beside", slow, 30))
        await nap

    run = prepared(of_branches)
    assert Released() == await asyncio.wait_for(run.execute(), 100)


@pytest.mark.parametrize("beside", [False, True])
def test_a_worker_that_is_torn_down_records_nothing_of_its_branches(beside: bool) -> None:
    """As `asyncio.run` does it: every task is cancelled before one of them goes on."""

    @in_virtual_time
    async def execute() -> None:
        async def of_branches(step: Step) -> Any:
            others = [step.run("beside", slow)] if beside else []
            await asyncio.gather(step.run("slow", slow), *others)

        run = prepared(of_branches)
        before = asyncio.all_tasks()
        task = run.start(run.execution())
        await moments()
        for each in asyncio.all_tasks() - before:
            each.cancel()
        await asyncio.wait({task}, timeout=1)

        assert task.cancelled() or Lost() == task.result()
        run.journal.flush()
        assert [] == [row for row in run.steps if row.status != "running"]

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
