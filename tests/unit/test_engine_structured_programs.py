"""Odd but legal asyncio programs whose branches supervise, cut short and restart one another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from typing import Any

from openworkflow import NonRetryableError, Step
from tests.programs import Programs
from tests.trials import RETRY, Program, World

PROGRAMS = Programs()
durable, races = PROGRAMS.durable, PROGRAMS.races


@races
async def a_timeout_moved_by_another_branch(step: Step, world: World) -> Any:
    loop = asyncio.get_running_loop()
    given: asyncio.Future[asyncio.Timeout] = loop.create_future()

    async def guarded() -> Any:
        try:
            async with asyncio.timeout(None) as limit:
                given.set_result(limit)
                return await step.run("long", world.effect, "long")
        except TimeoutError:
            return world.note("cut")

    task = asyncio.create_task(guarded())
    limit = await given
    await step.run("decide", world.effect, "decide")
    if not task.done():
        limit.reschedule(loop.time() + 2)
    return [await task, loop.time()]


@durable
async def children_that_add_children(step: Step, world: World) -> Any:
    seen: list[str] = []

    async def node(group: asyncio.TaskGroup, depth: int, name: str) -> None:
        seen.append(await step.run("node", world.effect, name))
        for child in range(2 * bool(depth)):
            group.create_task(node(group, depth - 1, f"{name}.{child}"))

    async with asyncio.TaskGroup() as group:
        group.create_task(node(group, 2, "root"))
    world.note(list(seen))
    return sorted(seen)


@races
async def a_group_cancelled_while_it_is_failing(step: Step, world: World) -> Any:
    async def stubborn() -> None:
        try:
            await step.run("work", world.effect, "work")
            await asyncio.Event().wait()
        finally:
            await step.run("undo", world.effect, "undo")
            await step.sleep("settle", 2)

    async def group_of_both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stubborn())
            await step.run("body", world.effect, "body")
            raise ValueError("body")

    try:
        await asyncio.wait_for(group_of_both(), 4)
    except TimeoutError:
        return world.note("late")
    except BaseExceptionGroup as errors:
        return world.note([repr(each) for each in errors.exceptions])


@races
async def a_supervisor_that_restarts_what_is_cancelled(step: Step, world: World) -> Any:
    log: list[str] = []
    children: dict[int, asyncio.Task[Any]] = {}

    async def supervise(number: int) -> None:
        for attempt in range(4):
            name = f"child-{number}-{attempt}"
            task = children[number] = asyncio.create_task(step.run("child", world.effect, name))
            try:
                log.append(await task)
                return
            except asyncio.CancelledError:
                log.append(f"again {number}")

    supervisors = [asyncio.create_task(supervise(number)) for number in range(2)]
    for _ in range(3):
        await asyncio.sleep(2)
        for child in children.values():
            child.cancel()
    await asyncio.gather(*supervisors)
    return world.note(log)


@races
async def a_bounded_map_made_of_callbacks(step: Step, world: World) -> Any:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    left, going, results = list(range(7)), set[asyncio.Task[Any]](), list[Any]()

    def fill() -> None:
        while left and len(going) < 3:
            task = loop.create_task(step.run("map", world.effect, f"map-{left.pop(0)}"))
            going.add(task)
            task.add_done_callback(ended)

    def ended(task: asyncio.Task[Any]) -> None:
        going.discard(task)
        results.append(task.result())
        fill()
        if not going:
            over.set_result(None)

    fill()
    await over
    return world.note(results)


@races
async def readers_and_writers_of_a_condition(step: Step, world: World) -> Any:
    changed, state, log = asyncio.Condition(), {"readers": 0, "writing": 0}, list[Any]()

    async def use(kind: str, name: str) -> None:
        async with changed:
            await changed.wait_for(
                lambda: not state["writing"] and (kind == "readers" or not state["readers"])
            )
            state[kind] += 1
        try:
            log.append(await step.run(kind, world.effect, name))
        finally:
            async with changed:
                state[kind] -= 1
                changed.notify_all()

    kinds = ["readers", "writing", "readers", "writing", "readers"]
    await asyncio.gather(*(use(kind, f"use-{n}") for n, kind in enumerate(kinds)))
    return world.note(log)


@races
async def each_item_of_a_generator_in_time(step: Step, world: World) -> Any:
    async def pages() -> AsyncIterator[str]:
        for number in range(4):
            yield await step.run("page", world.effect, f"page-{number}")

    read: list[str] = []
    async with contextlib.aclosing(pages()) as each:  # type: ignore[type-var]
        while True:
            try:
                read.append(world.note(await asyncio.wait_for(anext(each), 5)))
            except StopAsyncIteration:
                break
            except TimeoutError:
                read.append(world.note("late"))
    return read


@durable
async def awaitables_of_its_own_in_branches(step: Step, world: World) -> Any:
    class Lazy:
        def __init__(self, name: str) -> None:
            self.name, self.value = name, None

        def __await__(self) -> Generator[Any, Any, Any]:
            if self.value is None:
                asked = step.run("lazy", world.effect, self.name)
                self.value = yield from asked.__await__()
            return self.value

    async def twice(each: Lazy) -> list[Any]:
        return [await each, await each]

    results = await asyncio.gather(Lazy("a"), twice(Lazy("b")), Lazy("c"))
    return world.note([*results, await twice(Lazy("d"))])


@durable
async def an_exit_stack_that_undoes_in_steps(step: Step, world: World) -> Any:
    log: list[Any] = []

    @contextlib.asynccontextmanager
    async def booked(name: str) -> AsyncIterator[None]:
        await step.run(f"book-{name}", world.effect, name)
        try:
            yield
        except NonRetryableError as error:
            undone = await step.run(f"undo-{name}", world.unsteady, f"undo-{name}", retry=RETRY)
            log.append([str(error), undone])
            raise

    try:
        async with contextlib.AsyncExitStack() as stack:
            for name in "abc":
                await stack.enter_async_context(booked(name))
            stack.push_async_callback(step.run, "tell", world.effect, "tell")
            await step.run("boom", world.broken, "boom")
    except NonRetryableError:
        log.append(await step.run("over", world.effect, "over"))
    return world.note(log)


@durable
async def results_computed_once_for_all_who_ask(step: Step, world: World) -> Any:
    known: dict[int, asyncio.Task[int]] = {}

    def fibonacci(number: int) -> asyncio.Task[int]:
        if number not in known:
            known[number] = asyncio.create_task(compute(number))
        return known[number]

    async def compute(number: int) -> int:
        if number < 2:
            return int(await step.run("base", world.effect, f"base-{number}", number + 1))
        first, second = await asyncio.gather(fibonacci(number - 1), fibonacci(number - 2))
        return int(await step.run("sum", world.effect, f"sum-{number}", first + second))

    return world.note(await fibonacci(6))


@PROGRAMS.each
def test_a_program_comes_to_its_end_and_replays_whatever_the_delays(program: Program) -> None:
    PROGRAMS.try_delays(program)


@PROGRAMS.each
def test_a_program_survives_an_interruption_at_every_write(program: Program) -> None:
    PROGRAMS.try_interruptions(program)
