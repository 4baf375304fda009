"""Executions with hundreds and thousands of branches: what each costs, and how they are stopped."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from openworkflow import Step
from openworkflow.engine.outcome import Completed, Parked
from openworkflow.worker.slots import Slots
from tests.executions import in_virtual_time, prepared, quick
from tests.memory import Run


def fan_out(branches: int) -> Run:
    """A run of so many branches, each of a step, a sleep and a step; it rests in between."""

    async def function(step: Step) -> int:
        async def branch(number: int) -> Any:
            await step.run(f"first-{number}", quick, number)
            await step.sleep(f"nap-{number}", 1)
            return await step.run(f"second-{number}", quick, number)

        return sum(await asyncio.gather(*map(branch, range(branches))))

    run = prepared(function)
    run.slots, run.rest_seconds = Slots(1, freed=lambda: None), 5.0
    return run


async def calls(run: Run) -> int:
    """How many Python functions are called, or coroutines stepped, while it executes."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        outcome = await run.execute()
    finally:
        sys.setprofile(None)
    assert isinstance(outcome, Completed), outcome
    return count


@in_virtual_time
async def test_a_branch_costs_the_same_however_many_there_are() -> None:
    """Each step waited for the writes of all branches one by one: twice as many cost four times."""
    few, many = await calls(fan_out(100)), await calls(fan_out(400))

    assert many < 4.4 * few


@in_virtual_time
async def test_the_writes_of_branches_that_end_together_share_their_flushes() -> None:
    """First steps, begins of sleeps, their ends, second steps: however many branches there are."""
    flushes: list[None] = []
    run = fan_out(100)
    run.journal.on_flush = lambda: flushes.append(None)
    await run.execute()

    assert 400 == run.journal.writes
    assert 4 == len(flushes)


@in_virtual_time
async def test_thousands_of_branches_unwind_and_each_cleans_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """More callbacks than one function may need to be stopped: each branch may have its own."""
    branches, cleaned = 4_000, 0

    async def function(step: Step) -> None:
        async def branch(number: int) -> None:
            nonlocal cleaned
            try:
                await step.sleep(f"nap-{number}", "1d")
            finally:
                await asyncio.sleep(0)
                cleaned += 1

        await asyncio.gather(*map(branch, range(branches)))

    assert isinstance(await prepared(function).execute(), Parked)
    assert branches == cleaned
    assert "" == caplog.text


@in_virtual_time
async def test_a_branch_that_does_not_let_itself_be_stopped_is_dropped_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns = 0

    async def function(step: Step) -> None:
        async def stubborn() -> None:
            nonlocal turns
            while True:
                try:
                    turns += 1
                    await asyncio.sleep(0 if turns > 1 else 86_400)
                except asyncio.CancelledError:
                    pass

        await asyncio.gather(stubborn())

    assert isinstance(await prepared(function).execute(), Parked)
    assert "does not let itself be stopped" in caplog.text
    assert turns < 20_000
