"""`step.continue_as_new`: when a run may, what it leaves, and what it must have asked for."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from openworkflow import Step
from openworkflow.engine.outcome import Completed, Continued, Outcome
from tests.executions import broken, failed, in_virtual_time, prepared, quick, slow
from tests.memory import Run


@in_virtual_time
async def test_a_run_continues_as_new_from_within_a_timeout() -> None:
    """Its timer is cut short, as it is when the function returns."""

    async def function(step: Step) -> None:
        async with asyncio.timeout(60):
            await step.run("page", quick)
            await step.continue_as_new()

    assert Continued(None) == await prepared(function).execute()


@in_virtual_time
async def test_a_run_continues_as_new_while_a_timer_of_a_branch_goes_on() -> None:
    async def function(step: Step) -> None:
        ticking = asyncio.create_task(asyncio.sleep(60))
        await step.run("page", slow, 1)
        assert not ticking.done()
        await step.continue_as_new()

    assert Continued(None) == await prepared(function).execute()


@in_virtual_time
async def test_a_sleep_of_a_branch_keeps_a_run_from_continuing_as_new() -> None:
    """It has a name: somebody wants its end."""

    async def function(step: Step) -> None:
        pause = asyncio.create_task(step.sleep("pause", 60))
        await step.run("page", slow, 1)
        assert not pause.done()
        await step.continue_as_new()

    failed(await prepared(function).execute(), "ConfigurationError", "'pause'", "await them")


@pytest.mark.parametrize("plain", [False, True])
def test_a_replay_that_continues_as_new_before_all_that_is_recorded_is_no_replay(
    plain: bool,
) -> None:
    """Else the history that the code has no use for would be gone, and nobody told."""
    steps = ["a", "b"]

    def of_thread(step: object) -> None:
        for name in steps:
            step.run(name, quick)  # type: ignore[attr-defined]
        step.continue_as_new()  # type: ignore[attr-defined]

    async def of_loop(step: Step) -> None:
        for name in steps:
            await step.run(name, quick)
        await step.continue_as_new()

    @in_virtual_time
    async def execute() -> None:
        run = prepared(of_thread if plain else of_loop)
        assert Continued(None) == await run.execute()
        assert Continued(None) == await run.execute()  # its end was lost with the worker
        steps.pop()
        failed(await run.execute(), "NonDeterminism", "'b'", "continues as new")

    execute()


async def _continues_in_a_group(step: Step) -> None:
    async def branch() -> None:
        await step.run("page", quick)
        await step.continue_as_new()

    async with asyncio.TaskGroup() as group:
        group.create_task(branch())


async def _fails_in_a_group(step: Step) -> None:
    """The engine ends the run, by an error that the function does not get."""

    async def branch() -> None:
        for number in range(3):
            await step.run(f"page-{number}", quick)

    async with asyncio.TaskGroup() as group:
        group.create_task(branch())


async def _raises_on_its_way_out(step: Step) -> None:
    try:
        await asyncio.gather(_continues_in_a_group(step))
    finally:
        raise LookupError("nobody sees this")


@pytest.mark.parametrize(
    ("function", "limit"),
    [(_continues_in_a_group, 0), (_fails_in_a_group, 2), (_raises_on_its_way_out, 0)],
)
def test_what_a_function_makes_of_its_being_stopped_is_not_logged(
    function: object, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    """That it was stopped is its outcome; a traceback of our own signal says nothing to anybody."""

    async def executed() -> Outcome:
        run: Run = prepared(function)
        run.limit = limit
        return await run.execute()

    @in_virtual_time
    async def execute() -> None:
        assert not isinstance(await executed(), Completed)
        gc.collect()

    with caplog.at_level(logging.WARNING):
        execute()
    assert [] == [record.getMessage() for record in caplog.records]


@in_virtual_time
async def test_an_error_that_ends_a_group_still_fails_the_run() -> None:
    async def function(step: Step) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(broken(LookupError("odd")))

    failed(await prepared(function).execute(), "ExceptionGroup")
