"""Odd but legal programs for workers whose runs share tasks: each comes to one result.

`World` is what is outside of the database: which steps were called, and what the code has seen.
Most steps wait for nothing, so that their runs are executed one after the other in one task.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from openworkflow import (
    NonRetryableError,
    RetryPolicy,
    Step,
    SyncStep,
    Workflow,
    current_step,
    workflow,
)

WHO: ContextVar[str] = ContextVar("who", default="nobody")
SOON, LATE = 0.02, 600
ONCE = RetryPolicy(max_attempts=1)
AGAIN = RetryPolicy(max_attempts=4, initial="5ms", factor=1, jitter=0)


class Panic(BaseException):
    """As extensions in Rust raise them."""


class World:
    """What steps do, by run and step."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.leaks: list[str] = []
        """Contexts, names or tasks of one run that another has seen."""

    def note(self, run: str) -> None:
        """A step of that run is called."""
        self.calls[run, current_step().name] += 1
        if WHO.get() not in ("nobody", run):
            self.leaks.append(f"{run} sees the context of {WHO.get()}")
        WHO.set(run)

    async def plain(self, run: str, what: Any = None) -> Any:
        """A step that waits for nothing."""
        self.note(run)
        return what

    async def turn(self, run: str, what: Any = None) -> Any:
        """A step that waits for a turn of the loop."""
        self.note(run)
        await asyncio.sleep(0)
        return what

    async def slow(self, run: str, what: Any = None) -> Any:
        """A step that takes a moment."""
        self.note(run)
        await asyncio.sleep(SOON)
        return what

    async def forever(self, run: str) -> None:
        """A step that does not end by itself."""
        self.note(run)
        await asyncio.sleep(LATE)

    async def fails(self, run: str) -> None:
        """A step that fails for good."""
        self.note(run)
        raise NonRetryableError("no")

    async def second(self, run: str, error: BaseException) -> str:
        """A step whose first call in this process raises."""
        self.note(run)
        if self.calls[run, current_step().name] % 2:
            raise error
        return "second"

    def thread(self, run: str, what: Any = None) -> Any:
        """A plain function as a step."""
        self.note(run)
        return what


Body = Callable[[Any, World, str], Awaitable[Any]]
PROGRAMS: list[Body] = []


def odd(body: Body) -> Body:
    """Take in a program."""
    PROGRAMS.append(body)
    return body


def workflows(world: World) -> list[Workflow[Any, Any]]:
    """A workflow for each program, and one that is a plain function."""
    return [*(_workflow(body, world) for body in PROGRAMS), *_others(world)]


def _workflow(body: Body, world: World) -> Workflow[Any, Any]:
    name = body.__name__

    @workflow(name=name)
    async def run(step: Step) -> Any:
        if WHO.get() != "nobody":
            world.leaks.append(f"{name} begins in the context of {WHO.get()}")
        WHO.set(name)
        task = asyncio.current_task()
        assert task is not None
        if task.get_name() != "workflow" or task.cancelling():
            world.leaks.append(f"{name} begins in {task!r}")
        return await body(step, world, name)

    return run


def _others(world: World) -> list[Workflow[Any, Any]]:
    @workflow
    def a_plain_function(step: SyncStep) -> Any:
        first = step.run("one", world.thread, "a_plain_function", 1)
        step.sleep("nap", SOON)
        return [first, step.run("two", world.plain, "a_plain_function", 2)]

    @workflow(name="it-counts-down")
    async def it_counts_down(input: int, step: Step) -> Any:
        left = await step.run("count", world.plain, "it_counts_down", input - 1)
        if left > 0:
            await step.continue_as_new(left)
        return left

    return [a_plain_function, it_counts_down]


# -- nothing is waited for -----------------------------------------------------------------------


@odd
async def never_awaits(step: Step, world: World, run: str) -> Any:
    return run


@odd
async def blocks(step: Step, world: World, run: str) -> Any:
    threading.Event().wait(0.01)
    await step.run("one", world.plain, run)
    threading.Event().wait(0.01)
    return run


@odd
async def one_after_the_other(step: Step, world: World, run: str) -> Any:
    return [await step.run(f"s{n}", world.plain, run, n) for n in range(4)]


@odd
async def one_name_again_and_again(step: Step, world: World, run: str) -> Any:
    return [await step.run("same", world.plain, run, n) for n in range(4)]


@odd
async def recursion(step: Step, world: World, run: str) -> Any:
    async def down(depth: int) -> int:
        here = await step.run(f"d{depth}", world.plain, run, depth)
        return int(here) + (await down(depth - 1) if depth else 0)

    return await down(5)


@odd
async def names_and_cancellations_of_its_own_task(step: Step, world: World, run: str) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.set_name(run)
    task.cancel()
    try:
        await step.run("refused", world.plain, run)
    except asyncio.CancelledError:
        task.uncancel()
    return [task.get_name(), await step.run("after", world.plain, run, task.cancelling())]


@odd
async def a_step_that_has_its_task_cancelled_later(step: Step, world: World, run: str) -> Any:
    """It forgets to take that back, and is over by then."""

    async def times_itself_out() -> None:
        world.note(run)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(SOON / 2, task.cancel)

    await step.run("timed", times_itself_out)
    return run


@odd
async def behind_it_in_the_same_task(step: Step, world: World, run: str) -> Any:
    return await step.run("slow", world.slow, run, run)


@odd
async def steps_that_name_and_mark_their_task(step: Step, world: World, run: str) -> Any:
    async def mark() -> str:
        task = asyncio.current_task()
        assert task is not None
        world.note(run)
        task.set_name(f"of {run}")
        if sys.version_info >= (3, 13):  # before, that cannot be taken back
            task.cancel()
            task.uncancel()
        return run

    return [await step.run(f"m{n}", mark) for n in range(2)]


# -- what is raised ------------------------------------------------------------------------------


def _raises(name: str, error: BaseException) -> None:
    async def body(step: Step, world: World, run: str) -> Any:
        try:
            return await step.run("raises", world.second, run, error, retry=AGAIN)
        finally:
            await step.run("finally", world.plain, run)

    body.__name__ = f"a_step_raises_{name}"
    odd(body)

    async def caught(step: Step, world: World, run: str) -> Any:
        await step.run("before", world.plain, run)
        try:
            raise error.with_traceback(None)
        except BaseException as raised:
            return [type(raised).__name__, await step.run("after", world.plain, run)]

    caught.__name__ = f"it_catches_{name}"
    odd(caught)

    async def uncaught(step: Step, world: World, run: str) -> Any:
        await step.run("before", world.plain, run)
        raise error.with_traceback(None)

    uncaught.__name__ = f"uncaught_{name}"
    odd(uncaught)

    async def fails() -> None:
        raise error.with_traceback(None)

    async def of_a_branch(step: Step, world: World, run: str) -> Any:
        return await asyncio.gather(fails(), step.run("beside", world.turn, run))

    of_a_branch.__name__ = f"uncaught_{name}_of_a_branch"
    odd(of_a_branch)


for _name, _error in {
    "an_error": ValueError("odd"),
    "system_exit": SystemExit(3),
    "keyboard_interrupt": KeyboardInterrupt(),
    "generator_exit": GeneratorExit(),
    "cancelled_error": asyncio.CancelledError("odd"),
    "stop_async_iteration": StopAsyncIteration(),
    "panic": Panic("odd"),
}.items():
    _raises(_name, _error)


# -- branches ------------------------------------------------------------------------------------


@odd
async def gather_of_all_kinds(step: Step, world: World, run: str) -> Any:
    kinds = (world.plain, world.turn, world.slow, world.thread)
    return await asyncio.gather(*(step.run(f"k{n}", fn, run, n) for n, fn in enumerate(kinds)))


@odd
async def branches_with_names_in_common(step: Step, world: World, run: str) -> Any:
    async def branch(who: int, fn: Any) -> Any:
        first = await step.run("first", fn, run, who)
        await step.sleep("nap", SOON)
        return [first, await step.run("send", world.plain, run, -who)]

    return await asyncio.gather(branch(1, world.slow), branch(2, world.plain))


@odd
async def a_group_whose_branch_fails(step: Step, world: World, run: str) -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("long", world.forever, run))
            group.create_task(step.run("fails", world.fails, run))
    except* NonRetryableError:
        await step.run("undo", world.plain, run)
    return await step.run("after", world.plain, run, run)


@odd
async def a_timeout_around_a_step(step: Step, world: World, run: str) -> Any:
    try:
        async with asyncio.timeout(SOON):
            await step.run("long", world.forever, run)
    except TimeoutError:
        return await step.run("fallback", world.turn, run, "late")


@odd
async def timeouts_within_timeouts(step: Step, world: World, run: str) -> Any:
    seen: list[Any] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SOON):
            try:
                async with asyncio.timeout(LATE):
                    await step.run("long", world.forever, run)
            except TimeoutError:
                seen.append("the inner one")
    return [*seen, await step.run("after", world.plain, run)]


@odd
async def a_step_with_a_timeout_of_its_own(step: Step, world: World, run: str) -> Any:
    async def own() -> str:
        world.note(run)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LATE)
        return "own"

    first = await step.run("own", own, timeout="20s")
    with contextlib.suppress(Exception):
        await step.run("long", world.forever, run, timeout="10ms", retry=ONCE)
    return [first, await step.run("after", world.plain, run)]


@odd
async def a_shield_that_is_left(step: Step, world: World, run: str) -> Any:
    task = asyncio.create_task(step.run("slow", world.slow, run, "slow"))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), 0.001)
    return await task


@odd
async def wait_for_the_first(step: Step, world: World, run: str) -> Any:
    tasks = [
        asyncio.create_task(step.run("plain", world.plain, run, "plain")),
        asyncio.create_task(step.run("long", world.forever, run)),
    ]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return [[task.result() for task in done], await step.run("after", world.plain, run)]


@odd
async def as_completed(step: Step, world: World, run: str) -> Any:
    names = "abc"
    found = [
        await step.run(f"next-{await each}", world.plain, run)
        for each in asyncio.as_completed([step.run(n, world.turn, run, n) for n in names])
    ]
    return len(found)


@odd
async def a_branch_that_is_cancelled_cleans_up(step: Step, world: World, run: str) -> Any:
    async def branch() -> None:
        try:
            await step.run("long", world.forever, run)
        finally:
            await step.run("undo", world.plain, run)

    task = asyncio.create_task(branch())
    await step.run("other", world.slow, run)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


@odd
async def a_generator_that_is_dropped(step: Step, world: World, run: str) -> Any:
    closed = asyncio.Event()

    async def pages() -> AsyncIterator[Any]:
        try:
            for n in range(9):
                yield await step.run("page", world.plain, run, n)
        finally:
            await step.run("close", world.plain, run)
            closed.set()

    async for page in pages():
        if page == 2:
            break
    await closed.wait()
    return run


@odd
async def a_generator_that_is_closed(step: Step, world: World, run: str) -> Any:
    async def pages() -> AsyncIterator[Any]:
        try:
            for n in range(9):
                yield await step.run("page", world.plain, run, n)
        finally:
            await step.run("close", world.turn, run)

    async with contextlib.aclosing(pages()) as each:  # type: ignore[type-var]
        async for page in each:
            if page == 2:
                return page
    return None


@odd
async def generators_within_steps(step: Step, world: World, run: str) -> Any:
    async def drops() -> int:
        world.note(run)

        async def numbers() -> AsyncIterator[int]:
            try:
                for n in range(9):
                    yield n
            finally:
                await asyncio.sleep(0)

        async for n in numbers():
            if n == 2:
                break
        return n

    return [await step.run(f"drops{n}", drops) for n in range(2)]


@odd
async def locks_events_and_queues(step: Step, world: World, run: str) -> Any:
    lock, queue, order = asyncio.Lock(), asyncio.Queue[Any](), list[Any]()

    async def produce() -> None:
        for n in range(3):
            async with lock:
                await queue.put(await step.run("make", world.turn, run, n))
        await queue.put(None)

    async def consume() -> None:
        while (item := await queue.get()) is not None:
            async with lock:
                order.append(await step.run("use", world.plain, run, item))

    await asyncio.gather(consume(), produce())
    return order


@odd
async def contexts_of_branches(step: Step, world: World, run: str) -> Any:
    mine: ContextVar[str] = ContextVar("mine", default="trunk")

    async def see() -> str:
        world.note(run)
        return mine.get()

    async def branch(name: str) -> Any:
        mine.set(name)
        await step.run(f"turn-{name}", world.turn, run)
        return await step.run(f"see-{name}", see)

    return [*await asyncio.gather(branch("a"), branch("b")), await step.run("see", see)]


@odd
async def a_step_whose_group_fails(step: Step, world: World, run: str) -> Any:
    """Python before 3.13 leaves its task with a cancellation that nobody asked for."""

    async def group() -> str:
        world.note(run)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_raise())
        except* ValueError:
            pass
        return "group"

    async def of_something_cancelled() -> None:
        world.note(run)
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    first = await step.run("group", group)
    try:
        await step.run("cancelled", of_something_cancelled, retry=ONCE)
    except Exception as error:
        return [first, str(error), await step.run("after", world.turn, run)]


async def _raise() -> None:
    raise ValueError("odd")


# -- signals -------------------------------------------------------------------------------------


@odd
async def signals_in_a_gather(step: Step, world: World, run: str) -> Any:
    await step.run("before", world.plain, run)
    waits = (step.wait_for_signal(name, type=int) for name in ("one", "two"))
    return [*await asyncio.gather(*waits), await step.run("after", world.plain, run)]


@odd
async def a_signal_in_a_timeout(step: Step, world: World, run: str) -> Any:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SOON):
            await step.wait_for_signal("never")
    first = await step.wait_for_signal("one", type=int)
    return [first, await step.run("after", world.plain, run)]


@odd
async def a_signal_in_a_shield(step: Step, world: World, run: str) -> Any:
    task = asyncio.create_task(step.wait_for_signal("two", type=int))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), 0.001)
    return [await task, await step.wait_for_signal("three", timeout=SOON, default="none")]


@odd
async def a_signal_against_a_step(step: Step, world: World, run: str) -> Any:
    one = asyncio.create_task(step.wait_for_signal("never"))
    two = asyncio.create_task(step.run("slow", world.slow, run, "slow"))
    done, _ = await asyncio.wait({one, two}, return_when=asyncio.FIRST_COMPLETED)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    return [[task.result() for task in done], await step.wait_for_signal("one", type=int)]
