"""The ledgers of the tests notice a step that is called although it is recorded.

They once asked for the step's key in a way that answered something else, and noticed nothing.
"""

from __future__ import annotations

import random
from typing import Any

from openworkflow import Step
from tests import branching, odd_programs, trials
from tests.executions import in_virtual_time, prepared


async def two_steps(step: Step, world: Any) -> None:
    for _ in range(2):
        await step.run("send", world.effect, "mail")


@in_virtual_time
async def test_a_trial_notices_a_recorded_step_that_is_called() -> None:
    trial = trials.Trial(two_steps)
    trial.world.recorded = lambda: {"send:1"}
    await trial.once()

    assert ["send:1"] == trial.world.repeated


@in_virtual_time
async def test_the_world_of_branching_programs_notices_a_recorded_step_that_is_called() -> None:
    world = branching.World(random.Random(0), recorded=lambda: {"send"}, kind=True)

    async def function(step: Step) -> None:
        await step.run("send", world.effect, "mail", "nobody", retry=branching.RETRY)

    await prepared(function).execute()

    assert "send was called again" in world.wrong


@in_virtual_time
async def test_the_world_of_odd_programs_counts_calls_by_the_keys_of_their_rows() -> None:
    world = odd_programs.World()

    async def function(step: Step) -> None:
        for each in (world.plain, world.thread, world.turn):
            await step.run("send", each, "run")

    run = prepared(function)
    await run.execute()

    assert {("run", row.step_name): 1 for row in run.steps} == world.calls
