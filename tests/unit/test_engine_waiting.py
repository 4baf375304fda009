"""Odd but legal asyncio programs that wait: for time, locks, queues and events."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from openworkflow import Step
from tests.programs import Programs
from tests.trials import Program, World

PROGRAMS = Programs()
durable, races = PROGRAMS.durable, PROGRAMS.races


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
async def a_timeout_around_a_task_whose_group_has_failed(step: Step, world: World) -> Any:
    """Were the group in the timeout's own task, Python before 3.13 would raise CancelledError."""

    async def group() -> None:
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(step.run("broken", world.broken, "broken"))
                group.create_task(step.sleep("nap", "1d"))

    try:
        async with asyncio.timeout(3600):
            await asyncio.create_task(group())
            await step.sleep("long", "1d")
    except TimeoutError:
        return "late"


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


# -- sets of what waits --------------------------------------------------------------------------


@races
async def the_first_of_the_gathers_that_are_done(step: Step, world: World) -> Any:
    """Two steps see one order of the set, though the run was parked between them."""
    pairs = [asyncio.gather(step.run(f"a{n}", world.effect, f"a{n}")) for n in range(8)]
    done, _ = await asyncio.wait(pairs)
    order = world.note([each.result()[0] for each in done])
    before = await step.run("before", world.effect, "before", order)
    await step.sleep("pause", 100)
    assert before == order
    return before


@races
async def gathers_that_end_as_they_are_completed(step: Step, world: World) -> Any:
    pairs = [asyncio.gather(step.run(f"a{n}", world.effect, f"a{n}")) for n in range(8)]
    await asyncio.gather(*pairs)
    order = [world.note((await each)[0]) for each in asyncio.as_completed(pairs)]
    before = await step.run("before", world.effect, "before", order)
    await step.sleep("pause", 100)
    assert before == order
    return before


@durable
async def futures_made_by_hand_by_the_loop(step: Step, world: World) -> Any:
    loop = asyncio.get_running_loop()
    made = [loop.create_future() for _ in range(8)]
    for number, future in enumerate(made):
        loop.call_later(number + 1, future.set_result, number)
    done, _ = await asyncio.wait(made)
    order = [each.result() for each in done]
    before = await step.run("before", world.effect, "before", order)
    await step.sleep("pause", 100)
    assert before == order
    return sorted(before)


@durable
async def one_future_of_the_class_itself_has_no_order(step: Step, world: World) -> Any:
    future: asyncio.Future[str] = asyncio.Future()
    asyncio.get_running_loop().call_later(1, future.set_result, "set")
    both: list[asyncio.Future[Any]] = [future, asyncio.create_task(asyncio.sleep(2))]
    done, _ = await asyncio.wait(both)
    return [len(done), await future, await step.run("a", world.effect, "a")]


# -- the trials ----------------------------------------------------------------------------------


@PROGRAMS.each
def test_a_program_comes_to_an_end_and_replays_whatever_the_delays(program: Program) -> None:
    PROGRAMS.try_delays(program)


@PROGRAMS.each
def test_a_program_survives_an_interruption_at_every_write(program: Program) -> None:
    PROGRAMS.try_interruptions(program)
