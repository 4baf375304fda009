"""A run that is drained, interrupted or over stops, and does nothing more."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any
from uuid import uuid4

import pytest

from openworkflow import NonRetryableError, Step
from openworkflow.engine.outcome import (
    Completed,
    Lost,
    Parked,
    Released,
)
from tests.executions import (
    broken,
    failed,
    in_virtual_time,
    moments,
    one_step,
    prepared,
    quick,
    slow,
    statuses,
    two_branches,
)

# -- draining ------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_drain_lets_the_running_step_end_and_be_recorded_and_begins_nothing_new() -> None:
    async def function(step: Step) -> None:
        await step.run("slow", slow)
        await step.run("next", quick)

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(1)
    execution.drain()

    assert Released() == await task
    assert {"slow": "succeeded"} == statuses(run)


@in_virtual_time
async def test_a_drain_of_a_run_that_begins_begins_nothing() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)

    run = prepared(function)
    execution = run.execution()
    execution.drain()

    assert Released() == await run.start(execution)
    assert [] == run.steps


@in_virtual_time
async def test_a_drain_of_branches_waits_for_all_of_their_steps() -> None:
    async def function(step: Step) -> None:
        async def branch(name: str, seconds: float) -> None:
            await step.run(name, slow, seconds)
            await step.run(f"{name}-2", quick)

        await asyncio.gather(branch("a", 5), branch("b", 50), step.sleep("nap", "1d"))

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(1)
    execution.drain()

    assert Released() == await task
    assert {"a": "succeeded", "b": "succeeded", "nap": "running"} == statuses(run)


@in_virtual_time
async def test_a_drain_while_the_workflow_cancels_its_losers_ends() -> None:
    async def function(step: Step) -> None:
        tasks = [asyncio.create_task(step.run(f"s{n}", slow, n)) for n in (1, 50, 50)]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await step.run("prize", quick)

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(0.5)
    execution.drain()
    await asyncio.wait({task}, timeout=600)

    assert task.done()
    assert Released() == task.result()


# -- stopping ------------------------------------------------------------------------------------


async def _waits_beside_a_step(step: Step) -> None:
    await asyncio.gather(step.run("a", slow), step.sleep("b", "1d"))


async def _shielded(step: Step) -> None:
    await asyncio.shield(asyncio.create_task(step.run("a", slow)))


async def _retries(step: Step) -> None:
    await asyncio.gather(
        step.run("a", broken, ValueError("x")), step.run("b", slow), return_exceptions=True
    )


async def _swallows_everything(step: Step) -> None:
    while True:
        try:
            await step.run("slow", slow)
        except GeneratorExit:  # not even Python lets itself be told no here
            raise
        except BaseException:
            pass


async def _swallows_everything_in_a_branch(step: Step) -> None:
    await asyncio.create_task(_swallows_everything(step))


async def _asks_again_in_finally(step: Step) -> None:
    try:
        await step.run("slow", slow)
    finally:
        await step.run("clean-up", slow)


STATES = [
    one_step,
    two_branches,
    _waits_beside_a_step,
    _shielded,
    _retries,
    _swallows_everything,
    _swallows_everything_in_a_branch,
    _asks_again_in_finally,
]


@pytest.mark.parametrize("function", STATES)
@pytest.mark.parametrize("after", [0, 1, 2, 5, 50])
@in_virtual_time
async def test_a_run_stops_at_once_wherever_it_is_and_records_nothing_more(
    function: Any, after: int
) -> None:
    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await moments(after)
    execution.interrupt(Lost())
    written = run.journal.writes
    await asyncio.wait({task}, timeout=10)

    assert task.done()
    assert Lost() == task.result()
    assert written == run.journal.writes


@pytest.mark.parametrize("function", STATES)
@in_virtual_time
async def test_a_run_that_is_stopped_while_a_write_is_under_way_stops_after_it(
    function: Any,
) -> None:
    async def after_a_write(step: Step) -> None:
        await step.run("first", quick)
        await function(step)

    run = prepared(after_a_write)
    run.journal.at_once = False
    execution = run.execution()
    task = run.start(execution)
    await moments()
    assert 1 == len(run.journal.waiting)
    execution.interrupt(Released())
    await moments()
    run.journal.at_once = True
    run.journal.flush()
    await asyncio.wait({task}, timeout=10)

    assert task.done()
    assert Released() == task.result()


@in_virtual_time
async def test_an_execution_that_was_stopped_before_it_began_calls_nothing() -> None:
    called: list[int] = []

    async def function(step: Step) -> None:
        called.append(1)

    run = prepared(function)
    execution = run.execution()
    execution.interrupt(Lost())

    assert Lost() == await run.start(execution)
    assert [] == called


@in_virtual_time
async def test_a_run_that_has_failed_does_nothing_more() -> None:
    async def function(step: Step) -> None:
        async def branch() -> None:
            for i in range(6):
                await step.run(f"more-{i}", slow, 1)

        await asyncio.gather(step.run("bad", broken, NonRetryableError("x")), branch())

    run = prepared(function)
    failed(await run.execute(), "NonRetryableError")
    await asyncio.sleep(100)

    assert {"bad": "failed"} == statuses(run)


@in_virtual_time
async def test_a_run_that_has_ended_leaves_no_row_that_says_it_runs() -> None:
    async def function(step: Step) -> None:
        async def bad() -> None:
            await step.run("a", quick)
            raise NonRetryableError("x")

        await asyncio.gather(step.sleep("nap", "1d"), step.run("slow", slow), bad())

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    execution.recorder.announce(-1)
    failed(await task, "NonRetryableError")
    await moments()

    assert "running" not in statuses(run).values()


@in_virtual_time
async def test_what_a_run_left_behind_is_not_kept_in_memory() -> None:
    seen: weakref.WeakSet[Any] = weakref.WeakSet()

    async def function(step: Step) -> None:
        async def branch() -> None:
            await step.sleep("nap", "1d")

        tasks = [asyncio.create_task(branch()) for _ in range(3)]
        seen.update([*tasks, asyncio.get_running_loop(), asyncio.current_task()])
        await asyncio.wait([asyncio.shield(task) for task in tasks])

    run = prepared(function)
    assert isinstance(await run.start(run.execution()), Parked)
    await moments(2)
    gc.collect()

    assert [] == list(seen)


@in_virtual_time
async def test_a_timer_that_is_cancelled_in_the_moment_it_ends_does_not_fire() -> None:
    """The step and the timer end in one turn of the worker's loop, and the step was first."""
    fired: list[int] = []

    async def function(step: Step) -> None:
        fired.clear()
        timer = asyncio.get_running_loop().call_later(5, fired.append, 1)
        await step.run("a", slow, 5)
        timer.cancel()
        await step.sleep("nap", 60)

    run = prepared(function)
    for _ in range(2):
        await run.execute()
        assert [] == fired
        run.wake()


@in_virtual_time
async def test_a_step_function_that_takes_long_to_be_cancelled_bothers_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(60)

    async def function(step: Step) -> None:
        await asyncio.gather(step.run("a", stubborn), step.run("b", slow))

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await moments()
    execution.interrupt(Lost())
    assert Lost() == await task
    del execution, task
    await asyncio.sleep(100)
    gc.collect()

    assert "" == caplog.text


# -- claims that the heartbeat found lost --------------------------------------------------------


@in_virtual_time
async def test_no_step_begins_once_the_heartbeat_knows_that_its_claim_is_lost() -> None:
    """What held up the event loop holds up the word of it too, and this step was next."""
    called = []

    async def function(step: Step) -> None:
        await step.run("first", first)
        await step.run("next", second)

    async def first() -> None:
        run.guard.lost = frozenset({(run.id, run.claim_no)})

    async def second() -> None:
        called.append("next")

    run = prepared(function)

    assert Lost() == await run.execute()
    assert [] == called


@in_virtual_time
async def test_what_the_heartbeat_found_lost_stops_no_other_claim() -> None:
    async def function(step: Step) -> str:
        await step.run("first", quick)
        return str(await step.run("next", quick, "done"))

    run = prepared(function)
    run.guard.lost = frozenset({(run.id, 7), (uuid4(), 1)})

    assert isinstance(await run.execute(), Completed)
