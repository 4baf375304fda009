"""Calls of one name whose order changes from execution to execution, as that of a set does."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from openworkflow import Step
from openworkflow.engine.outcome import Completed, Failed
from tests import virtual_time
from tests.trials import Trial, World, interruptions

SEEDS = range(4)


async def in_one_order(step: Step, world: World) -> str:
    return await sent(step, world, "abc")


async def sent(step: Step, world: World, order: str) -> str:
    """Send to each; "swapped" if one has got the result of another."""
    results = await asyncio.gather(*(step.run("send", world.effect, each) for each in order))
    return "right" if results == list(order) else "swapped"


@pytest.mark.parametrize("seed", SEEDS)
def test_none_of_them_gets_the_result_of_another(seed: int) -> None:
    """The first of them was recorded without saying which it was, and given to whoever came first.

    It was noticed by what the others had recorded, if anything of them was.
    """

    async def tried() -> set[str]:
        found = set()
        for interruption in await interruptions(in_one_order, seed):
            orders = itertools.cycle(["abc", "bca", "cab"])

            async def changing(step: Step, world: World) -> str:
                return await sent(step, world, next(orders))  # noqa: B023

            trial = Trial(changing, seed)
            outcome = await trial.until_it_ends(interruption)
            trial.run.threads.close()
            if isinstance(outcome, Completed):
                found.add(str(outcome.output))
            else:
                assert isinstance(outcome, Failed)
                found.add(outcome.failure.type.rpartition(":")[2])
        return found

    assert virtual_time.run(tried()) <= {'"right"', "NonDeterminism"}
