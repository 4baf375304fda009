"""Odd but legal asyncio programs that pass steps around: generators, contexts, steps as values."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

from openworkflow import NonRetryableError, Step
from tests.programs import Programs
from tests.trials import RETRY, Program, World

WHO: ContextVar[str] = ContextVar("who", default="nobody")

PROGRAMS = Programs()
durable, races = PROGRAMS.durable, PROGRAMS.races


# -- generators and contexts ---------------------------------------------------------------------


@durable
async def an_async_generator_of_step_results(step: Step, world: World) -> Any:
    async def pages() -> AsyncIterator[Any]:
        for number in range(4):
            yield await step.run("page", world.effect, f"page-{number}")

    return [world.note(page) async for page in pages()]


@durable
async def an_async_generator_left_early(step: Step, world: World) -> Any:
    async def pages() -> AsyncGenerator[Any, None]:
        try:
            for number in itertools.count():
                yield await step.run("page", world.effect, f"page-{number}")
        finally:
            world.note(await step.run("close", world.effect, "close"))

    async with contextlib.aclosing(pages()) as each:
        async for page in each:
            if page == "page-1":
                break
    return "read"


@durable
async def a_sync_generator_of_step_coroutines(step: Step, world: World) -> Any:
    def plan() -> Iterator[Any]:
        for name in "abc":
            yield step.run(name, world.effect, name)

    return [await each for each in plan()]


@durable
async def an_async_context_manager_around_steps(step: Step, world: World) -> Any:
    @contextlib.asynccontextmanager
    async def reserved(name: str) -> AsyncIterator[Any]:
        ticket = await step.run("reserve", world.effect, name)
        try:
            yield ticket
        finally:
            await step.run("release", world.effect, name)

    async with contextlib.AsyncExitStack() as stack:
        tickets = [await stack.enter_async_context(reserved(name)) for name in "ab"]
        with contextlib.suppress(NonRetryableError):
            await step.run("breaks", world.broken, "breaks")
    return tickets


@durable
async def context_variables_of_a_branch_are_seen_by_its_steps(step: Step, world: World) -> Any:
    async def who() -> str:
        return WHO.get()

    async def branch(name: str) -> Any:
        WHO.set(name)
        await step.run("wait", world.effect, name)
        return await step.run("who", who)

    WHO.set("trunk")
    own = await step.run("own", who)
    return [own, *await asyncio.gather(branch("a"), branch("b")), WHO.get()]


@durable
async def an_async_generator_that_is_just_dropped(step: Step, world: World) -> Any:
    """Its `finally` is for the event loop to run, which makes a task for it."""
    closed = asyncio.Event()

    async def pages() -> AsyncIterator[Any]:
        try:
            for number in itertools.count():
                yield await step.run("page", world.effect, f"page-{number}")
        finally:
            await step.run("close", world.effect, "close")
            closed.set()

    async for page in pages():
        if page == "page-1":
            break
    await closed.wait()
    return world.note(await step.run("after", world.effect, "after"))


@durable
async def tasks_named_by_asyncio(step: Step, world: World) -> Any:
    async def branch() -> Any:
        task = asyncio.current_task()
        assert task is not None
        return await step.run(task.get_name(), world.effect, "x")

    results = await asyncio.gather(*(branch() for _ in range(3)))
    task = asyncio.current_task()
    assert task is not None
    return [*results, world.note(task.get_name())]


# -- steps as values -----------------------------------------------------------------------------


@durable
async def steps_in_comprehensions(step: Step, world: World) -> Any:
    texts = [await step.run("each", world.effect, name) for name in "ab"]
    return texts + [x for x in "cd" if await step.run("ask", world.effect, x, x == "d")]


@durable
async def coroutines_made_early_and_awaited_in_another_order(step: Step, world: World) -> Any:
    made = {name: step.run(name, world.effect, name) for name in "abc"}
    await step.sleep("nap", 10)
    results = [await made[name] for name in "cab"]
    same = [step.run("same", world.effect, name) for name in "xyz"]
    return results + [await each for each in reversed(same)]


@durable
async def tasks_awaited_after_a_sleep(step: Step, world: World) -> Any:
    tasks = [asyncio.create_task(step.run("early", world.effect, name)) for name in "abc"]
    await step.sleep("nap", "1d")
    return [await task for task in tasks]


@durable
async def a_task_that_several_branches_await(step: Step, world: World) -> Any:
    shared = asyncio.create_task(step.run("shared", world.effect, "shared"))

    async def use(name: str) -> Any:
        return [await shared, await step.run("use", world.effect, name)]

    return await asyncio.gather(use("a"), use("b"))


@durable
async def recursion(step: Step, world: World) -> Any:
    async def count(depth: int) -> int:
        if depth == 0:
            return 0
        here = await step.run("count", world.effect, str(depth), 1)
        return int(here) + await count(depth - 1)

    return await count(5)


@durable
async def a_tree_of_tasks(step: Step, world: World) -> Any:
    async def grow(path: str) -> list[Any]:
        name = await step.run("node", world.effect, path)
        if len(path) == 2:
            return [name]
        grown = await asyncio.gather(grow(path + "l"), grow(path + "r"))
        return [name, *itertools.chain(*grown)]

    return await grow("")


@durable
async def helper_functions_that_take_the_step(step: Step, world: World) -> Any:
    async def checkout(step: Step, order: str) -> Any:
        await step.run("charge", world.effect, order)
        return await ship(step, order)

    async def ship(step: Step, order: str) -> Any:
        await step.sleep("pack", 5)
        return await step.run("ship", world.effect, order)

    return [await checkout(step, "a"), *await asyncio.gather(checkout(step, "b"))]


@durable
async def partials_bound_methods_and_callable_objects(step: Step, world: World) -> Any:
    class Sender:
        async def __call__(self, what: str) -> str:
            return f"sent {what}"

    return [
        await step.run("partial", functools.partial(world.effect, "p", result="bound")),
        await step.run("method", world.effect, "m"),
        await step.run("plain", world.plain, "plain"),
        await step.run("object", Sender(), "o"),
        await step.run("lambda", lambda: world.effect("l")),
    ]


@durable
async def a_step_that_raises_and_is_tried_again_by_a_loop(step: Step, world: World) -> Any:
    for attempt in itertools.count(1):
        try:
            return await step.run(
                f"try-{attempt}", world.broken if attempt < 3 else world.effect, "x"
            )
        except NonRetryableError:
            await step.sleep(f"back-off-{attempt}", attempt * 10)
    return None


@durable
async def retries_in_two_branches(step: Step, world: World) -> Any:
    return await asyncio.gather(
        *(step.run("unsteady", world.unsteady, name, retry=RETRY) for name in "ab")
    )


# -- coroutines that are driven by hand ----------------------------------------------------------


@durable
async def steps_that_are_begun_and_given_up_by_hand(step: Step, world: World) -> Any:
    """As code does that looks whether an awaitable has something at once."""
    closed, thrown, kept = (step.run(name, world.effect, name) for name in "abc")
    for each in (closed, thrown, kept):
        each.send(None)
    closed.close()
    with contextlib.suppress(KeyError):
        thrown.throw(KeyError("enough"))
    found = [await step.run("d", world.effect, "d")]
    await step.sleep("nap", "1h")
    found.append(await step.run("a", world.effect, "another"))
    kept.close()
    return found


@durable
async def a_branch_that_gives_up_a_step_by_hand(step: Step, world: World) -> Any:
    async def branch(name: str) -> Any:
        given_up = step.run("look", world.effect, f"look {name}")
        given_up.send(None)
        await asyncio.sleep(0)
        given_up.close()
        await step.sleep("nap", "1h")
        return await step.run("look", world.effect, name)

    return await asyncio.gather(branch("a"), branch("b"))


# -- the trials ----------------------------------------------------------------------------------


@PROGRAMS.each
def test_a_program_comes_to_an_end_and_replays_whatever_the_delays(program: Program) -> None:
    PROGRAMS.try_delays(program)


@PROGRAMS.each
def test_a_program_survives_an_interruption_at_every_write(program: Program) -> None:
    PROGRAMS.try_interruptions(program)
