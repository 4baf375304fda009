"""What is logged of tasks and futures that nobody looks at: failures, but no run that stops."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from openworkflow import NonRetryableError, Step
from openworkflow.core.errors import BackendError
from openworkflow.engine.outcome import Completed, Lost, Parked, Released
from tests.executions import broken, in_virtual_time, moments, prepared, quick, slow


async def _sleeps_beside_branches(step: Step) -> None:
    await asyncio.gather(step.sleep("a", "1d"), step.sleep("b", "1d"), asyncio.sleep(86_400))


async def _asks_again_in_finally(step: Step) -> None:
    try:
        await asyncio.gather(step.run("a", slow), step.run("b", slow))
    finally:
        await step.run("clean-up", slow)


async def _branches_that_ask_again_in_finally(step: Step) -> None:
    async def branch(number: int) -> None:
        try:
            await step.run(f"slow-{number}", slow)
        finally:
            await step.run(f"clean-up-{number}", slow)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(branch(number))


async def _looks_later_at_a_branch_that_fails(step: Step) -> None:
    task = asyncio.create_task(step.run("broken", broken, NonRetryableError("broken")))
    await step.run("slow", slow)
    await task


async def _cleans_up_badly(step: Step) -> None:
    task = asyncio.create_task(step.run("slow", slow))
    try:
        await task
    except BaseException as error:
        raise RuntimeError("not cleaned up") from error


FUNCTIONS = [
    _sleeps_beside_branches,
    _asks_again_in_finally,
    _branches_that_ask_again_in_finally,
    _looks_later_at_a_branch_that_fails,
    _cleans_up_badly,
]


@pytest.mark.parametrize("way", ["drained", "lost", "handed back", "torn down"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("after", [1, 5, 50])
@in_virtual_time
async def test_a_run_that_is_stopped_leaves_no_noise(
    function: Any, way: str, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await moments(after)
    match way:
        case "drained":
            execution.drain()
        case "lost":
            execution.interrupt(Lost())
        case "handed back":
            execution.interrupt(Released())
        case "torn down":
            task.cancel()
    await asyncio.wait({task})
    assert task.cancelled() or task.exception() is None
    del execution, task
    await moments()
    gc.collect()

    # That a step failed is told in any case.
    noise = [each for each in caplog.records if each.name != "openworkflow.engine.operations.call"]
    assert [] == noise, caplog.text


@in_virtual_time
async def test_a_branch_that_is_cut_short_by_the_end_of_its_run_is_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def function(step: Step) -> None:
        async def branch() -> None:
            try:
                await step.sleep("nap", "1d")
            finally:
                await step.run("clean-up", quick)

        task = asyncio.create_task(branch())
        await asyncio.wait({task}, timeout=5)

    run = prepared(function)
    while isinstance(outcome := await run.execute(), Parked):
        assert outcome.resume_at is not None
        run.journal.clock.pass_until(outcome.resume_at)  # type: ignore[attr-defined]
        gc.collect()
    gc.collect()

    assert isinstance(outcome, Completed)
    assert "" == caplog.text


@in_virtual_time
async def test_a_write_that_is_refused_after_its_claim_was_lost_is_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def function(step: Step) -> None:
        await asyncio.gather(step.run("a", quick), step.run("b", slow))

    run = prepared(function)
    run.journal.at_once = False
    execution = run.execution()
    task = run.start(execution)
    await moments()
    execution.interrupt(Lost())
    ((row, written),) = run.journal.waiting
    written.refuse(BackendError("not that"), row)
    run.journal.waiting.clear()
    assert Lost() == await task
    del execution, task, written
    await moments()
    gc.collect()

    assert "" == caplog.text


@in_virtual_time
async def test_a_branch_that_failed_and_that_nobody_looks_at_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def function(step: Step) -> None:
        async def branch() -> None:
            await step.run("a", quick)
            raise ValueError("forgotten")

        await asyncio.wait([asyncio.create_task(branch())])
        await step.run("b", quick)

    assert isinstance(await prepared(function).execute(), Completed)
    gc.collect()

    assert "exception was never retrieved" in caplog.text
    assert "ValueError: forgotten" in caplog.text


@in_virtual_time
async def test_a_branch_that_fails_while_the_end_of_its_run_cuts_it_short_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def function(step: Step) -> None:
        async def branch() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("not cleaned up")

        asyncio.create_task(branch())  # noqa: RUF006
        await step.run("a", quick)

    assert isinstance(await prepared(function).execute(), Completed)
    gc.collect()

    assert "ValueError: not cleaned up" in caplog.text
