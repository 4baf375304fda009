"""One execution of one run: what may begin, what is refused, how it ends."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from typing import Any

import pytest

from openworkflow import RetryPolicy, Step, workflow
from openworkflow.engine.guard import LeaseGuard
from openworkflow.engine.outcome import (
    Completed,
    Continued,
    Lost,
    Outcome,
    Parked,
)
from tests.executions import (
    broken,
    failed,
    in_virtual_time,
    moments,
    prepared,
    quick,
    slow,
)

# -- deadlines -----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_run_whose_deadline_passed_before_its_claim_calls_nothing() -> None:
    called: list[int] = []

    async def function(step: Step) -> None:
        called.append(1)

    run = prepared(function)
    now = run.journal.clock.now()

    failed(await run.execute(deadline_at=now - timedelta(seconds=1)), "DeadlineExceeded")
    assert [] == called


@in_virtual_time
async def test_the_deadline_interrupts_the_run_where_it_is() -> None:
    async def function(step: Step) -> None:
        await step.run("slow", slow, 100)

    run = prepared(function)
    begun = asyncio.get_running_loop().time()
    deadline = run.journal.clock.now() + timedelta(seconds=10)

    failed(await run.execute(deadline_at=deadline), "DeadlineExceeded", "2026-01-01T00:00:10")
    assert asyncio.get_running_loop().time() == pytest.approx(begun + 10, abs=0.1)


@in_virtual_time
async def test_a_retry_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    async def function(step: Step) -> None:
        await step.run("a", broken, ValueError("its own"), retry=RetryPolicy(initial=20, jitter=0))

    run = prepared(function)
    deadline = run.journal.clock.now() + timedelta(seconds=10)

    failed(await run.execute(deadline_at=deadline), "ValueError", "its own")


# -- what may begin ------------------------------------------------------------------------------


@in_virtual_time
async def test_nothing_begins_while_the_claim_is_not_vouched_for() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)

    run = prepared(function)
    loop = asyncio.get_running_loop()
    run.guard = guard = LeaseGuard(30, loop.time)
    await asyncio.sleep(31)
    task = run.start(run.execution())
    await asyncio.sleep(100)
    assert [] == run.steps

    guard.renew(loop.time())
    guard.release()

    assert isinstance(await task, Completed)


@in_virtual_time
async def test_a_claim_that_turns_out_lost_while_it_waits_to_be_vouched_for_calls_nothing() -> None:
    called: list[int] = []

    async def effect() -> None:
        called.append(1)

    async def function(step: Step) -> None:
        await step.run("a", effect)

    run = prepared(function)
    loop = asyncio.get_running_loop()
    run.guard = guard = LeaseGuard(30, loop.time)
    await asyncio.sleep(31)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(1)
    execution.interrupt(Lost())
    guard.renew(loop.time())
    guard.release()

    assert Lost() == await task
    assert [] == called


@in_virtual_time
async def test_a_step_begins_only_after_what_came_before_it_is_durable() -> None:
    began: list[str] = []

    async def effect(name: str) -> None:
        began.append(name)

    async def function(step: Step) -> None:
        await step.run("a", effect, "a")
        await step.run("b", effect, "b")

    run = prepared(function)
    run.journal.at_once = False
    task = run.start(run.execution())
    await moments()
    assert ["a"] == began

    run.journal.flush()
    await moments()
    assert ["a", "b"] == began

    run.journal.flush()
    await task


@in_virtual_time
async def test_a_step_that_finds_the_claim_lost_is_the_last_thing_that_happens() -> None:
    began: list[str] = []

    async def effect(name: str) -> None:
        began.append(name)

    async def function(step: Step) -> None:
        await step.run("a", effect, "a")
        await step.run("b", effect, "b")

    run = prepared(function)
    run.journal.held = False

    assert Lost() == await run.execute()
    assert ["a"] == began


@in_virtual_time
async def test_a_run_has_a_limit_of_step_attempts_and_says_what_to_do() -> None:
    async def function(step: Step) -> None:
        for _ in range(100):
            await step.run("a", quick)

    run = prepared(function)
    run.limit = 10

    failed(await run.execute(), "TooManySteps", "limit of one run", "continue_as_new")
    assert 10 == len(run.steps)


@in_virtual_time
async def test_the_attempts_of_earlier_claims_count_towards_the_limit() -> None:
    async def function(step: Step) -> None:
        for i in range(4):
            await step.run("a", quick)
            await step.sleep(f"s{i}", 1)

    run = prepared(function)
    run.limit = 5
    outcome: Outcome = Parked(None)
    while isinstance(outcome, Parked):
        outcome = await run.execute()
        run.wake()

    failed(outcome, "TooManySteps")


# -- other ends ----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_run_continues_as_new_with_another_input() -> None:
    async def function(number: int, step: Step) -> int:
        await step.run("a", quick)
        if number < 3:
            await step.continue_as_new(number + 1)
        return number

    run = prepared(function)
    run.input = "2"
    assert Continued("3") == await run.execute()

    run.input = "3"
    run.journal.rows.clear()
    assert Completed("3") == await run.execute()


@in_virtual_time
async def test_a_run_does_not_continue_as_new_while_a_step_is_unfinished() -> None:
    async def function(step: Step) -> None:
        task = asyncio.create_task(step.run("busy", slow))
        await step.sleep("nap", 1)
        try:
            await step.continue_as_new()
        finally:
            await task

    outcome = await prepared(function).execute()

    failed(outcome, "ConfigurationError", "'busy'", "await them first")


@in_virtual_time
async def test_the_answer_of_a_patch_never_changes_for_a_run() -> None:
    answers: list[bool] = []

    async def before(step: Step) -> None:
        await step.run("a", quick)
        await step.sleep("nap", 60)

    async def after(step: Step) -> None:
        answers.append(await step.patched("early"))
        await step.run("a", quick)
        await step.sleep("nap", 60)
        answers.append(await step.patched("late"))
        await step.sleep("nap-2", 60)

    run = prepared(before)
    await run.execute()
    run.wake()
    run.workflow = workflow(name="w")(after)
    for _ in range(3):
        await run.execute()
        run.wake()

    assert [False, True] * 3 == answers


@in_virtual_time
async def test_an_execution_whose_context_nobody_knows_does_the_same() -> None:
    async def function(step: Step) -> list[Any]:
        first = await step.run("a", quick, 1)
        return [first, *await asyncio.gather(step.run("b", quick, 2), step.run("c", quick, 3))]

    async def nothing(step: Step) -> int:
        return 3

    assert Completed("[1,2,3]") == await prepared(function).execution().run()
    assert Completed("3") == await prepared(nothing).execution().run()


def test_steps_are_coroutines_so_that_asyncio_takes_them() -> None:
    assert inspect.isfunction(Step.run)
    assert not inspect.iscoroutinefunction(Step.run)  # it checks at once, and awaits later
