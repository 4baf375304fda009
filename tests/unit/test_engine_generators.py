"""Async generators that nobody closes: when Python frees them is no event of a run."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from openworkflow import Step, workflow
from openworkflow.engine.outcome import Completed
from tests import virtual_time
from tests.memory import Run
from tests.trials import Program, Trial, World, ended


@pytest.fixture(autouse=True)
def _garbage_is_collected_when_the_test_says_so() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _begin_and_leave(generator: AsyncGenerator[Any, None]) -> None:
    """As where an error that is kept holds the frame that holds the generator."""
    circle: list[Any] = [generator]
    circle.append(circle)
    await anext(generator)


def _collects(execution: int, finally_: Any) -> Program:
    """A program with a generator to be freed, in one of its executions before it has branches."""
    executions = 0

    async def program(step: Step, world: World) -> Any:
        nonlocal executions
        executions += 1

        async def pages() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await finally_(step, world)

        async def branch(what: str) -> Any:
            first = await step.run("first", world.effect, what)
            await step.sleep("nap", "1h")
            return [first, await step.run("then", world.effect, f"{what} then")]

        await _begin_and_leave(pages())
        if executions == execution:
            gc.collect()
        return await asyncio.gather(branch("a"), branch("b"))

    return program


async def _nothing(step: Step, world: World) -> None:
    """It has nothing to wait for."""


async def _a_turn(step: Step, world: World) -> None:
    await asyncio.sleep(0)


async def _a_step(step: Step, world: World) -> None:
    await step.run("close", world.effect, "close")


async def _a_timer(step: Step, world: World) -> None:
    await asyncio.sleep(60)


async def _a_task(step: Step, world: World) -> None:
    await asyncio.create_task(step.run("close", world.effect, "close"))


@pytest.mark.parametrize("execution", [1, 2, 3])
@pytest.mark.parametrize("finally_", [_nothing, _a_turn, _a_step, _a_timer, _a_task])
def test_a_replay_agrees_whenever_garbage_was_collected(execution: int, finally_: Any) -> None:
    outcome, _ = virtual_time.run(ended(_collects(execution, finally_)))

    assert outcome == Completed('[["a","a then"],["b","b then"]]')


def test_what_a_generator_still_had_to_await_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        virtual_time.run(ended(_collects(1, _a_step)))

    assert ["aclosing" in each.getMessage() for each in caplog.records] == [True]


def test_what_the_end_of_a_generator_does_at_once_is_done() -> None:
    closed: list[bool] = []

    async def closes(step: Step, world: World) -> None:
        closed.append(True)

    virtual_time.run(ended(_collects(1, closes)))

    assert [True] == closed


def test_a_generator_of_a_step_ends_on_the_worker_s_loop() -> None:
    ended_on: list[Any] = []

    async def program(step: Step, world: World) -> Any:
        async def lines() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await asyncio.sleep(1)
                ended_on.append(asyncio.get_running_loop())

        async def read() -> str:
            await _begin_and_leave(lines())
            return "read"

        found = await step.run("read", read)
        gc.collect()
        return [found, *await asyncio.gather(step.run("after", world.effect, "after"))]

    async def executed() -> tuple[Any, list[str]]:
        trial = Trial(program)
        outcome = await trial.until_it_ends()
        await asyncio.sleep(2)
        assert ended_on == [asyncio.get_running_loop()]
        return outcome, [row.step_name for row in trial.run.steps]

    assert virtual_time.run(executed()) == (Completed('["read","after"]'), ["read", "after"])


def test_a_generator_of_one_run_is_no_branch_of_another() -> None:
    freed: list[str] = []
    both = asyncio.Event()

    async def pages(name: str) -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            freed.append(name)
            await asyncio.sleep(60)

    async def wait() -> None:
        await both.wait()

    @workflow
    async def leaves(step: Step) -> str:
        await _begin_and_leave(pages("left"))
        await step.run("wait", wait)
        return "left"

    @workflow
    async def collects(step: Step) -> Any:
        await asyncio.sleep(0)
        gc.collect()
        both.set()
        return await asyncio.gather(step.run("one", wait), step.run("two", wait))

    async def executed() -> tuple[Any, list[str]]:
        one, two = Run(leaves), Run(collects)
        first = one.start(one.execution())
        await asyncio.sleep(0)
        outcome = await two.execute()
        return [await first, outcome], [row.step_name for row in (*one.steps, *two.steps)]

    assert virtual_time.run(executed()) == (
        [Completed('"left"'), Completed("[null,null]")],
        ["wait", "one", "two"],
    )
    assert ["left"] == freed
