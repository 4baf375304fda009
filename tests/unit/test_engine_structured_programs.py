"""Odd but legal asyncio programs whose branches supervise, cut short and restart one another."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import pytest

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


class Driven:
    """Awaits a coroutine by hand, and does not close it: that is freed later than its run ends."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        inner, value = self._coroutine.__await__(), None
        while True:
            try:
                asked = inner.send(value)
            except StopIteration as stop:
                return stop.value
            value = yield asked


@durable
async def a_coroutine_driven_by_hand(step: Step, world: World) -> Any:
    async def branch(name: str) -> Any:
        first = await step.run("first", world.effect, f"{name}-1")
        await asyncio.sleep(1)
        return first, await step.run("second", world.effect, f"{name}-2")

    alone = await Driven(branch("alone"))
    return alone, await asyncio.gather(asyncio.ensure_future(Driven(branch("a"))), branch("b"))


@durable
async def task_groups_and_deadlines_of_anyio(step: Step, world: World) -> Any:
    anyio = pytest.importorskip("anyio")
    sender, receiver = anyio.create_memory_object_stream(2)
    done: list[Any] = []

    async def make(names: str) -> None:
        async with sender.clone() as out:
            for name in names:
                await out.send(await step.run(f"make-{name}", world.effect, name))

    async def use() -> None:
        async for name in receiver:
            with anyio.move_on_after(1000):
                done.append(await step.run(f"use-{name}", world.effect, name))

    with sender, receiver:
        async with anyio.create_task_group() as group:
            group.start_soon(use)
            async with anyio.create_task_group() as makers:
                makers.start_soon(make, "ab")
                makers.start_soon(make, "cd")
            sender.close()
    with anyio.move_on_after(2) as scope:
        await anyio.sleep(3)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 3600)
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    return sorted(done), scope.cancelled_caught, await step.run("end", world.effect, "end")


def test_a_coroutine_that_is_freed_after_its_run_ends_is_not_heard_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ignored: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: ignored.append(repr(seen.exc_value)))
    PROGRAMS.try_delays(a_coroutine_driven_by_hand)
    gc.collect()
    assert [] == ignored


@PROGRAMS.each
def test_a_program_comes_to_its_end_and_replays_whatever_the_delays(program: Program) -> None:
    PROGRAMS.try_delays(program)


@PROGRAMS.each
def test_a_program_survives_an_interruption_at_every_write(program: Program) -> None:
    PROGRAMS.try_interruptions(program)
