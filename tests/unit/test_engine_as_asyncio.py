"""A workflow function meets the asyncio that it knows: each program here also runs without us.

The programs of test_engine_programs.py agree with their replays. These agree with plain asyncio.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openworkflow import Step
from openworkflow.engine.outcome import Completed, Failed
from tests import virtual_time
from tests.trials import World, ended

Program = Callable[[Any], Awaitable[Any]]
PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


class PlainStep:
    """Steps without a record: calls."""

    async def run(self, name: str, function: Any, *args: Any) -> Any:
        return await function(*args)

    async def sleep(self, name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def effect(seconds: float, value: Any = None) -> Any:
    await asyncio.sleep(seconds)
    return value


@program
async def a_message_of_a_cancellation(step: Any) -> Any:
    task = asyncio.current_task()
    assert task is not None
    told = []
    for message in (None, "enough"):
        task.cancel(message)
        try:
            await step.run("never", effect, 1)
        except asyncio.CancelledError as error:
            told.append((error.args, task.uncancel()))
    branch = asyncio.create_task(step.sleep("nap", 100))
    await step.run("look", effect, 1)
    branch.cancel("too long")
    try:
        await branch
    except asyncio.CancelledError as error:
        told.append((error.args, branch.cancelled()))
    return told


@program
async def handles_of_timers(step: Any) -> Any:
    loop = asyncio.get_running_loop()
    start, fired = loop.time(), asyncio.Event()
    soon = loop.call_later(0, fired.set)
    late, never = loop.call_later(2, fired.set), loop.call_at(start + 9, fired.set)
    past = loop.call_at(start, fired.set)
    past.cancel()
    before = [each.cancelled() for each in (soon, late, never, past)]
    never.cancel()
    await asyncio.sleep(3)
    late.cancel()  # has fired: asyncio marks it all the same
    moments = [each.when() - start for each in (soon, late, never, past)]
    return before, [each.cancelled() for each in (soon, late, never, past)], moments


@program
async def a_handle_that_has_fired(step: Any) -> Any:
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(seconds, int) for seconds in (0, 1)]
    await asyncio.sleep(2)
    return [each.cancelled() for each in handles]


@program
async def cancellations_taken_back_before_they_come(step: Any) -> Any:
    """Python 3.13 forgets them, those before do not."""

    async def takes_back(name: str) -> Any:
        task = asyncio.current_task()
        assert task is not None
        told = []
        for times in (1, 2):
            for _ in range(times):
                task.cancel()
            task.uncancel()
            try:
                told.append(await step.run(f"{name} {times}", effect, 1, times))
            except asyncio.CancelledError:
                told.append(("cancelled", task.cancelling()))
        return told

    return await takes_back("own"), await asyncio.create_task(takes_back("branch"))


@program
async def the_stack_of_its_own_task(step: Any) -> Any:
    task = asyncio.current_task()
    assert task is not None
    printed = io.StringIO()
    task.print_stack(limit=1, file=printed)
    frames = [frame.f_code.co_name for frame in task.get_stack()]
    await step.run("look", effect, 1)
    return len(task.get_stack(limit=1)), bool(frames), printed.getvalue().split("<")[0]


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda each: each.__name__)
def test_a_program_returns_what_it_returns_in_plain_asyncio(function: Program) -> None:
    async def here(step: Step, world: World) -> Any:
        return repr(await function(step))

    async def plain() -> Any:
        return repr(await function(PlainStep()))

    outcome, _ = virtual_time.run(ended(here))

    assert isinstance(outcome, Completed), outcome
    assert virtual_time.run(plain()) == json.loads(outcome.output or "null")


# -- what plain asyncio leaves to hang or to recurse ----------------------------------------------


async def tasks_that_wait_for_each_other(step: Step, world: World) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def wait_for(number: int) -> None:
        await asyncio.sleep(0)
        await tasks[number]

    tasks += [asyncio.create_task(wait_for(1)), asyncio.create_task(wait_for(0))]
    await step.run("look", world.effect, "look")
    await asyncio.gather(*tasks)


def test_tasks_that_wait_for_each_other_end_the_run() -> None:
    outcome, _ = virtual_time.run(ended(tasks_that_wait_for_each_other))

    assert isinstance(outcome, Failed)
    assert outcome.failure.type.endswith(":Stalled")


async def a_long_row_of_tasks(step: Step, world: World) -> Any:
    async def link(left: int) -> Any:
        if left:
            return await asyncio.create_task(link(left - 1))
        await step.sleep("nap", "1h")
        return await step.run("end", world.effect, "end")

    return await link(2_000)


def test_a_row_of_tasks_longer_than_the_stack_is_parked_and_goes_on() -> None:
    outcome, trial = virtual_time.run(ended(a_long_row_of_tasks))

    assert outcome == Completed('"end"')
    assert 2 == trial.executions


class Unstoppable(asyncio.Future[None]):
    """A future of the user's own, with a mistake in it."""

    def cancel(self, msg: Any = None) -> bool:
        raise ValueError("not now")


async def a_future_that_cannot_be_cancelled(step: Step, world: World) -> None:
    await step.run("look", world.effect, "look")
    await Unstoppable(loop=asyncio.get_running_loop())


def test_a_future_that_cannot_be_cancelled_keeps_no_run_from_its_end() -> None:
    outcome, _ = virtual_time.run(ended(a_future_that_cannot_be_cancelled))

    assert isinstance(outcome, Failed)
    assert outcome.failure.type.endswith(":Stalled")
