"""More odd but legal programs, of what people do with asyncio by hand; see odd_programs.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextvars import ContextVar, copy_context
from typing import Any

from openworkflow import NonRetryableError, Step
from tests.odd_programs import SOON, World, odd

MINE: ContextVar[str] = ContextVar("mine", default="none")


@odd
async def a_group_in_a_group_fails_alone(step: Step, world: World, run: str) -> Any:
    failed: list[int] = []

    async def inner() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(step.run("fails", world.fails, run))
                group.create_task(step.run("long", world.forever, run))
        except* NonRetryableError as errors:
            failed.append(len(errors.exceptions))
            await step.run("make good", world.turn, run)

    async with asyncio.TaskGroup() as group:
        group.create_task(inner())
        other = group.create_task(step.run("other", world.slow, run, "other"))
    return [failed, other.result()]


@odd
async def branches_take_turns_by_a_condition(step: Step, world: World, run: str) -> Any:
    condition, hits = asyncio.Condition(), list[Any]()

    async def player(me: int) -> None:
        for number in range(3):
            async with condition:
                await condition.wait_for(lambda: len(hits) % 2 == me)
                hits.append(await step.run("hit", world.turn, run, [me, number]))
                condition.notify_all()

    await asyncio.gather(player(1), player(0))
    return hits


@odd
async def a_barrier_that_is_broken(step: Step, world: World, run: str) -> Any:
    barrier = asyncio.Barrier(2)

    async def waits() -> Any:
        try:
            await barrier.wait()
        except asyncio.BrokenBarrierError:
            return await step.run("broken", world.plain, run, "broken")

    task = asyncio.create_task(waits())
    await step.run("before", world.turn, run)
    await barrier.abort()
    return await task


@odd
async def futures_set_by_timers_and_callbacks(step: Step, world: World, run: str) -> Any:
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    loop.call_later(SOON, first.set_result, "late")
    first.add_done_callback(lambda done: second.set_result(f"{done.result()}!"))
    return [await step.run("before", world.plain, run), await second]


@odd
async def a_callback_that_makes_a_branch(step: Step, world: World, run: str) -> Any:
    made: list[asyncio.Task[Any]] = []

    def then(task: asyncio.Task[Any]) -> None:
        made.append(asyncio.create_task(step.run("then", world.turn, run, task.result())))

    task = asyncio.create_task(step.run("first", world.turn, run, "first"))
    task.add_done_callback(then)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    return [await each for each in made]


@odd
async def a_branch_cancelled_again_as_it_cleans_up(step: Step, world: World, run: str) -> Any:
    last: list[Any] = []

    async def branch() -> None:
        try:
            await step.run("long", world.forever, run)
        finally:
            try:
                await step.run("clean up", world.forever, run)
            finally:
                last.append(await step.run("last", world.plain, run, "last"))

    task = asyncio.create_task(branch())
    for name in ("one", "two"):
        await step.sleep(name, SOON)
        task.cancel()
    await asyncio.wait([task])
    return [last, task.cancelled()]


@odd
async def a_child_that_cancels_its_parent(step: Step, world: World, run: str) -> Any:
    parent = asyncio.current_task()
    assert parent is not None

    async def child() -> Any:
        found = await step.run("child", world.turn, run, "child")
        parent.cancel("enough")
        return found

    task, told = asyncio.create_task(child()), list[Any]()
    try:
        await step.run("long", world.forever, run)
    except asyncio.CancelledError as error:
        told = [*error.args, parent.uncancel()]
    return [told, await task, await step.run("after", world.plain, run, "after")]


@odd
async def a_generator_that_is_sent_and_thrown_at(step: Step, world: World, run: str) -> Any:
    async def echo() -> AsyncGenerator[Any, Any]:
        heard: Any = "start"
        while True:
            try:
                heard = yield await step.run("echo", world.plain, run, heard)
            except ValueError as error:
                heard = await step.run("error", world.turn, run, str(error))

    each = echo()
    found = [await anext(each), await each.asend("one"), await each.athrow(ValueError("two"))]
    await each.aclose()
    return found


@odd
async def branches_in_a_context_made_by_hand(step: Step, world: World, run: str) -> Any:
    async def see() -> str:
        world.note(run)
        return MINE.get()

    context = copy_context()
    context.run(MINE.set, "by hand")
    given = await asyncio.create_task(step.run("given", see), context=context)
    token = MINE.set("mine")
    mine = await step.run("mine", see)
    MINE.reset(token)
    return [given, mine, await step.run("reset", see), context[MINE]]


@odd
async def a_set_of_shields_decides_the_order(step: Step, world: World, run: str) -> Any:
    tasks = [asyncio.create_task(step.run(f"a{n}", world.turn, run, n)) for n in range(5)]
    await asyncio.gather(*tasks)
    done, _ = await asyncio.wait([asyncio.shield(task) for task in tasks])
    used = [await step.run("use", world.plain, run, each.result()) for each in done]
    return sorted(used)


@odd
async def undos_of_a_stack_that_was_moved(step: Step, world: World, run: str) -> Any:
    undone: list[Any] = []

    async def undo(name: str) -> None:
        undone.append(await step.run("undo", world.turn, run, name))

    async with contextlib.AsyncExitStack() as stack:
        for name in "abc":
            await step.run("do", world.plain, run, name)
            stack.push_async_callback(undo, name)
        kept = stack.pop_all()
    await kept.aclose()
    return undone
