"""What a step's function knows of its step, and the key for its effects."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import pickle
from typing import Any

import pytest

from openworkflow import RetryPolicy, Step, SyncStep, current_step
from openworkflow.core.errors import ConfigurationError
from openworkflow.engine.current import CurrentStep
from openworkflow.worker.slots import Slots
from tests.executions import in_virtual_time, prepared

SEEN: list[CurrentStep] = []


async def seen_async() -> None:
    await asyncio.sleep(0)
    SEEN.append(current_step())


def seen_in_a_thread() -> None:
    SEEN.append(current_step())


@in_virtual_time
async def test_a_step_knows_its_run_and_itself_async_and_in_a_thread() -> None:
    async def function(step: Step) -> list[Any]:
        SEEN.clear()
        await step.run("a", seen_async)
        await step.run("a", seen_in_a_thread)
        return [str(step.run_id), step.attempt, step.key]

    run = prepared(function)
    outcome = await run.execute(attempts=2)

    assert f'["{run.id}",3,"{run.id}"]' == getattr(outcome, "output", outcome)
    assert [
        CurrentStep(run.id, "w", "a", 1, f"{run.id}/a"),
        CurrentStep(run.id, "w", "a:1", 1, f"{run.id}/a:1@"),
    ] == SEEN


@in_virtual_time
async def test_so_does_one_that_a_thread_calls() -> None:
    def function(step: SyncStep) -> str:
        SEEN.clear()
        step.run("a", seen_in_a_thread)
        return f"{step.run_id} {step.attempt} {step.key}"

    run = prepared(function)
    await run.execute()

    assert [f"{run.id}/a"] == [each.key for each in SEEN]


@in_virtual_time
async def test_the_key_is_the_same_for_all_attempts_and_in_a_replay() -> None:
    async def fails_twice() -> None:
        SEEN.append(current_step())
        if len(SEEN) < 3:
            raise OSError("again")

    async def function(step: Step) -> None:
        await step.run("a", fails_twice, retry=RetryPolicy(initial="1d", max_delay="1d"))

    run = prepared(function)
    SEEN.clear()
    for _ in range(3):
        await run.execute()
        run.wake()

    assert [1, 2, 3] == [each.attempt for each in SEEN]
    assert 1 == len({each.key for each in SEEN})


@in_virtual_time
async def test_branches_that_share_a_name_have_keys_of_their_own_whoever_is_first() -> None:
    def function(slow_first: bool) -> Any:
        async def branch(step: Step, delay: float) -> None:
            await asyncio.sleep(delay)
            await step.run("a", seen_async)

        async def two(step: Step) -> None:
            delays = (2, 1) if slow_first else (1, 2)
            await asyncio.gather(*(branch(step, delay) for delay in delays))

        return two

    keys = []
    for slow_first in (True, False):
        run = prepared(function(slow_first))
        run.rest_seconds, run.slots = 10, Slots(2, freed=lambda: None)
        SEEN.clear()
        await run.execute()
        by_name = {each.name: each.key.removeprefix(str(run.id)) for each in SEEN}
        keys.append(by_name)
        assert {"/a:0@1", "/a:0@2"} == set(by_name.values())
    assert keys[0] != keys[1], "the names depend on who is first, the keys do not"


@in_virtual_time
async def test_a_run_that_continues_as_new_has_new_keys() -> None:
    async def function(step: Step) -> str:
        SEEN.clear()
        await step.run("a", seen_async)
        return step.key

    run = prepared(function)
    await run.execute(history_from=4)

    assert [f"{run.id}+4/a"] == [each.key for each in SEEN]


@in_virtual_time
async def test_outside_of_a_step_there_is_none() -> None:
    async def function(step: Step) -> str:
        with pytest.raises(ConfigurationError, match="for the functions that a workflow calls"):
            current_step()
        return "asked"

    with pytest.raises(ConfigurationError):
        current_step()
    assert '"asked"' == getattr(await prepared(function).execute(), "output", None)


@in_virtual_time
async def test_what_a_step_knows_is_data_that_may_be_copied() -> None:
    async def function(step: Step) -> None:
        SEEN.clear()
        await step.run("a", seen_async)

    run = prepared(function)
    await run.execute()

    (me,) = SEEN
    assert {"run_id", "workflow_name", "name", "attempt", "key"} == dataclasses.asdict(me).keys()
    assert me == pickle.loads(pickle.dumps(me)) == copy.copy(me)
