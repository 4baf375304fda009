"""Odd but legal asyncio programs that combine branches, and cancel them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from openworkflow import NonRetryableError, Step
from tests.programs import Programs
from tests.trials import RETRY, Program, World

PROGRAMS = Programs()
durable, races = PROGRAMS.durable, PROGRAMS.races


# -- combining branches --------------------------------------------------------------------------


@durable
async def a_gather_of_gathers(step: Step, world: World) -> Any:
    async def row(i: int) -> list[Any]:
        cells = (step.run("cell", world.effect, f"{i}{j}") for j in range(3))
        return list(await asyncio.gather(*cells))

    return await asyncio.gather(*(row(i) for i in range(3)))


@races
async def as_completed_over_step_coroutines(step: Step, world: World) -> Any:
    results = []
    for each in asyncio.as_completed([step.run(n, world.effect, n) for n in "abc"]):
        first = world.note(await each)
        results.append(first)
        await step.run(f"after-{first}", world.effect, "after")
    return results


@races
async def as_completed_over_tasks(step: Step, world: World) -> Any:
    tasks = [asyncio.create_task(step.run("same", world.effect, n)) for n in "abcd"]
    return [world.note(await each) for each in asyncio.as_completed(tasks)]


@races
async def as_completed_over_a_set_of_tasks_with_a_time_limit(step: Step, world: World) -> Any:
    tasks = {asyncio.create_task(step.run(n, world.effect, n)) for n in "abcd"}
    results = []
    try:
        for each in asyncio.as_completed(tasks, timeout=5):
            results.append(world.note(await each))
    except TimeoutError:
        world.note("late")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return results


@races
async def waiting_for_the_first_of_a_set(step: Step, world: World) -> Any:
    pending = {asyncio.create_task(step.run(n, world.effect, n)) for n in "abcde"}
    order = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        order += [world.note(task.result()) for task in done]
        await step.run(f"saw-{order[-1]}", world.effect, "saw")
    return order


@races
async def waiting_for_a_set_with_a_timeout(step: Step, world: World) -> Any:
    tasks = [asyncio.create_task(step.run(n, world.effect, n)) for n in "abc"]
    done, pending = await asyncio.wait(tasks, timeout=5)
    world.note((len(done), len(pending)))
    done_later, _ = await asyncio.wait(tasks)
    return sorted(task.result() for task in done_later)


@durable
async def a_task_group_with_a_failing_branch(step: Step, world: World) -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("breaks", world.broken, "breaks"))
            group.create_task(step.sleep("for-long", "30d"))
    except* NonRetryableError as errors:
        world.note([str(each) for each in errors.exceptions])
    return await step.run("after", world.effect, "after")


@races
async def a_task_group_whose_cancelled_branch_cleans_up_in_steps(step: Step, world: World) -> Any:
    async def careful() -> None:
        try:
            await step.run("work", world.effect, "work")
            await step.sleep("rest", 20)
        finally:
            world.note(await step.run("clean-up", world.effect, "clean-up"))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(careful())
            group.create_task(step.run("breaks", world.broken, "breaks"))
    except ExceptionGroup as errors:
        world.note(str(errors.exceptions[0]))
    return "over"


@durable
async def nested_task_groups(step: Step, world: World) -> Any:
    async def inner(i: int) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step.run("n", world.effect, f"{i}{j}", i)) for j in range(2)]
        return sum(task.result() for task in tasks)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(inner(i)) for i in range(3)]
    return [task.result() for task in tasks]


@durable
async def gather_that_returns_exceptions(step: Step, world: World) -> Any:
    results = await asyncio.gather(
        step.run("good", world.effect, "good"),
        step.run("bad", world.broken, "bad"),
        step.run("unsteady", world.unsteady, "unsteady", retry=RETRY),
        return_exceptions=True,
    )
    return [str(each) for each in results]


@durable
async def a_branch_that_fails_in_a_gather_while_others_go_on(step: Step, world: World) -> Any:
    task = asyncio.create_task(step.run("slow", world.effect, "slow"))
    with contextlib.suppress(NonRetryableError):
        await asyncio.gather(step.run("bad", world.broken, "bad"), task)
    return await task


@durable
async def exception_groups_with_except_star(step: Step, world: World) -> Any:
    async def fail(error: Exception) -> None:
        await step.run(f"before-{error}", world.effect, "before")
        raise error

    caught = []
    try:
        results = await asyncio.gather(
            fail(ValueError("v")), fail(KeyError("k")), return_exceptions=True
        )
        raise ExceptionGroup("both", [each for each in results if isinstance(each, Exception)])
    except* ValueError as group:
        caught.append(("value", len(group.exceptions)))
    except* KeyError as group:
        caught.append(("key", len(group.exceptions)))
    await step.run("after", world.effect, "after")
    return caught


# -- cancellation --------------------------------------------------------------------------------


@durable
async def a_task_that_cancels_itself(step: Step, world: World) -> Any:
    async def give_up() -> None:
        await step.run("a", world.effect, "a")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await step.run("never", world.effect, "never")

    task = asyncio.create_task(give_up())
    with contextlib.suppress(asyncio.CancelledError):
        await task
    world.note(task.cancelled())
    return await step.run("after", world.effect, "after")


@durable
async def a_function_that_cancels_itself_and_changes_its_mind(step: Step, world: World) -> Any:
    await step.run("a", world.effect, "a")
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await step.run("never", world.effect, "never")
    except asyncio.CancelledError:
        task.uncancel()
    return await step.run("after", world.effect, "after")


@races
async def a_cancelled_branch_whose_finally_does_steps(step: Step, world: World) -> Any:
    async def careful() -> None:
        try:
            await step.run("long", world.effect, "long")
            await step.sleep("longer", "1h")
        finally:
            await step.run("undo", world.effect, "undo")
            world.note("undone")

    task = asyncio.create_task(careful())
    await step.sleep("patience", 5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return "over"


@races
async def a_race_whose_losers_are_cancelled(step: Step, world: World) -> Any:
    tasks = [asyncio.create_task(step.run(name, world.effect, name)) for name in "abc"]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    winner = world.note(min(task.result() for task in done))
    return await step.run(f"prize-{winner}", world.effect, "prize")


@durable
async def a_cancelled_gather(step: Step, world: World) -> Any:
    work = asyncio.gather(step.sleep("a", "1h"), step.sleep("b", "2h"))
    await step.run("look", world.effect, "look")
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return await step.run("after", world.effect, "after")


@durable
async def a_branch_that_refuses_to_be_cancelled_once(step: Step, world: World) -> Any:
    async def stubborn() -> Any:
        try:
            await step.sleep("for-ever", "300d")
        except asyncio.CancelledError:
            world.note("no")
        return await step.run("still-here", world.effect, "still-here")

    task = asyncio.create_task(stubborn())
    await step.run("look", world.effect, "look")
    task.cancel()
    return await task


@races
async def all_tasks_of_the_function(step: Step, world: World) -> Any:
    """A set: what it answers, and in which order, is the same in a replay."""

    def names() -> list[str]:
        return [world.note(task.get_name()) for task in asyncio.all_tasks()]

    async def branch(name: str) -> Any:
        assert {"workflow", f"branch-{'abc'.index(name) + 1}"} <= set(names())
        return await step.run(name, world.effect, name)

    tasks = [asyncio.create_task(branch(name)) for name in "abc"]
    assert ["branch-1", "branch-2", "branch-3", "workflow"] == sorted(names())
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert set(tasks) == others
    done = await asyncio.gather(*others)
    assert ["workflow"] == names()
    await step.sleep("nap", "1d")
    assert ["workflow"] == names()
    return done


# -- the trials ----------------------------------------------------------------------------------


@PROGRAMS.each
def test_a_program_comes_to_an_end_and_replays_whatever_the_delays(program: Program) -> None:
    PROGRAMS.try_delays(program)


@PROGRAMS.each
def test_a_program_survives_an_interruption_at_every_write(program: Program) -> None:
    PROGRAMS.try_interruptions(program)
