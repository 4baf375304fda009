"""Odd but legal asyncio programs, each executed straight, with other delays, and interrupted.

A program in `DURABLE` comes to one result whatever the timing. Those in `RACES` depend on which
branch was faster: their result may differ between runs, but never between a run and its replay.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from openworkflow import NonRetryableError, Step
from openworkflow.engine.outcome import Completed
from tests import virtual_time
from tests.trials import RETRY, Program, World, ended, interruptions

WHO: ContextVar[str] = ContextVar("who", default="nobody")

DURABLE: list[Program] = []
RACES: list[Program] = []


def durable(program: Program) -> Program:
    DURABLE.append(program)
    return program


def races(program: Program) -> Program:
    RACES.append(program)
    return program


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


# -- time ----------------------------------------------------------------------------------------


@races
async def shield_within_wait_for(step: Step, world: World) -> Any:
    task = asyncio.create_task(step.run("slow", world.effect, "slow"))
    try:
        world.note(await asyncio.wait_for(asyncio.shield(task), 5))
    except TimeoutError:
        world.note("late")
    return await task


@races
async def a_timeout_inside_a_timeout(step: Step, world: World) -> Any:
    try:
        async with asyncio.timeout(9):
            try:
                async with asyncio.timeout(2):
                    world.note(await step.run("a", world.effect, "a"))
            except TimeoutError:
                world.note("inner")
                await step.run("b", world.effect, "b")
    except TimeoutError:
        world.note("outer")
    return await step.run("c", world.effect, "c")


@races
async def a_timeout_that_is_rescheduled(step: Step, world: World) -> Any:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(2) as limit:
            await step.run("a", world.effect, "a")
            limit.reschedule(loop.time() + 20)
            await step.run("b", world.effect, "b")
            limit.reschedule(None)
            await step.run("c", world.effect, "c")
    except TimeoutError:
        return world.note("late")
    return "in time"


@durable
async def a_timeout_of_none(step: Step, world: World) -> Any:
    async with asyncio.timeout(None):
        return await step.run("a", world.effect, "a")


@durable
async def a_timeout_that_has_passed_already(step: Step, world: World) -> Any:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await step.run("never", world.effect, "never")
    return await step.run("after", world.effect, "after")


@durable
async def asyncio_sleeps_of_branches(step: Step, world: World) -> Any:
    async def after(seconds: float) -> Any:
        await asyncio.sleep(seconds)
        return world.note(seconds)

    return await asyncio.gather(after(300), after(20), after(0.5), after(86_400))


@durable
async def call_later_and_call_soon(step: Step, world: World) -> Any:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    called: list[str] = []
    loop.call_soon(called.append, "soon")
    loop.call_later(40, future.set_result, "later")
    loop.call_later(80, called.append, "never").cancel()
    await step.run("a", world.effect, "a")
    return [await future, *called]


@durable
async def a_heartbeat_beside_a_step(step: Step, world: World) -> Any:
    """An endless loop in a task that is cancelled once the work is done."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(8)
            beats += 1

    task = asyncio.create_task(beat())
    result = await step.run("work", world.effect, "work")
    await step.sleep("nap", 7)
    task.cancel()
    world.note(beats)
    return result


# -- locks, queues, events -----------------------------------------------------------------------


@durable
async def a_pool_bounded_by_a_semaphore(step: Step, world: World) -> Any:
    pool = asyncio.Semaphore(2)

    async def work(i: int) -> Any:
        async with pool:
            return await step.run("work", world.effect, str(i))

    return await asyncio.gather(*(work(i) for i in range(5)))


@races
async def workers_on_a_queue_with_sentinels(step: Step, world: World) -> Any:
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=2)
    done: list[Any] = []

    async def work(who: int) -> None:
        while (item := await queue.get()) is not None:
            done.append(world.note((who, await step.run("item", world.effect, item))))

    async with asyncio.TaskGroup() as group:
        for who in range(2):
            group.create_task(work(who))
        for item in ["a", "b", "c", "d", None, None]:
            await queue.put(item)
    return sorted(item for _, item in done)


@durable
async def workers_on_a_queue_that_is_joined(step: Step, world: World) -> Any:
    queue: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
    results: list[Any] = []

    async def work() -> None:
        while True:
            number = await queue.get()
            results.append(await step.run("number", world.effect, str(number), number))
            queue.task_done()

    workers = [asyncio.create_task(work()) for _ in range(2)]
    for number in (3, 1, 2):
        queue.put_nowait(number)
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return sorted(results)


@durable
async def a_condition_between_branches(step: Step, world: World) -> Any:
    condition, stock = asyncio.Condition(), []

    async def produce() -> None:
        for name in "ab":
            made = await step.run("make", world.effect, name)
            async with condition:
                stock.append(made)
                condition.notify_all()

    async def consume() -> list[Any]:
        async with condition:
            await condition.wait_for(lambda: len(stock) == 2)
        return [await step.run("use", world.effect, each) for each in stock]

    used, _ = await asyncio.gather(consume(), produce())
    return used


@durable
async def an_event_between_branches(step: Step, world: World) -> Any:
    ready = asyncio.Event()

    async def second() -> Any:
        await ready.wait()
        return await step.run("second", world.effect, "second")

    async def first() -> None:
        await step.run("first", world.effect, "first")
        await step.sleep("pause", 60)
        ready.set()

    return (await asyncio.gather(second(), first()))[0]


@durable
async def a_barrier_of_three_branches(step: Step, world: World) -> Any:
    barrier = asyncio.Barrier(3)

    async def work(name: str) -> Any:
        await step.run("prepare", world.effect, name)
        async with barrier:
            return await step.run("go", world.effect, name)

    return await asyncio.gather(*(work(name) for name in "abc"))


@races
async def a_lock_that_the_faster_branch_takes(step: Step, world: World) -> Any:
    lock, order = asyncio.Lock(), []

    async def enter(name: str) -> None:
        await step.run("approach", world.effect, name)
        async with lock:
            order.append(world.note(await step.run("inside", world.effect, name)))

    await asyncio.gather(*(enter(name) for name in "abc"))
    return order


@durable
async def a_loop_of_sleep_zero_until_a_flag(step: Step, world: World) -> Any:
    """It polls, but what it polls for comes from another branch that only computes."""
    flag = []

    async def compute() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        flag.append(1)

    task = asyncio.create_task(compute())
    while not flag:
        await asyncio.sleep(0)
    await task
    return await step.run("after", world.effect, "after")


@durable
async def a_future_resolved_by_a_branch(step: Step, world: World) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def resolve() -> None:
        future.set_result(await step.run("a", world.effect, "a"))

    task = asyncio.create_task(resolve())
    result = await future
    await task
    return result


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


# -- the trials ----------------------------------------------------------------------------------

EVERY = [*DURABLE, *RACES]


def _name(program: Any) -> str:
    return str(program.__name__)


@pytest.mark.parametrize("program", EVERY, ids=_name)
def test_a_program_comes_to_an_end_and_replays_whatever_the_delays(program: Program) -> None:
    results = set()
    for seed in range(6):
        for rests in (False, True):
            outcome, _ = virtual_time.run(ended(program, seed, rests=rests))
            assert isinstance(outcome, Completed), outcome
            results.add(outcome.output)
    assert program in RACES or len(results) == 1, results


@pytest.mark.parametrize("program", EVERY, ids=_name)
def test_a_program_survives_an_interruption_at_every_write(program: Program) -> None:
    async def results() -> set[Any]:
        found = set()
        for interruption in await interruptions(program):
            rests = interruption.at % 2 == 0
            try:
                outcome, _ = await ended(program, 0, interruption, rests=rests)
            except BaseException as error:
                error.add_note(f"{interruption}, rests={rests}")
                raise
            assert isinstance(outcome, Completed), (interruption, outcome)
            found.add(outcome.output)
        return found

    found = virtual_time.run(results())
    assert program in RACES or len(found) == 1, found
