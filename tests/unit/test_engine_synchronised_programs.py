"""Odd but legal asyncio programs whose branches wait for one another by asyncio's own means."""

from __future__ import annotations

import asyncio
from typing import Any

from openworkflow import Step
from tests.programs import Programs
from tests.trials import RETRY, Program, World

PROGRAMS = Programs()
durable, races = PROGRAMS.durable, PROGRAMS.races


@races
async def branches_meet_at_a_barrier(step: Step, world: World) -> Any:
    barrier, seen = asyncio.Barrier(3), list[str]()

    async def branch(number: int) -> None:
        await step.run(f"before{number}", world.effect, f"before{number}")
        seen.append(f"here{await barrier.wait()}")
        seen.append(await step.run(f"after{number}", world.effect, f"after{number}"))

    await asyncio.gather(*map(branch, range(3)))
    return world.note(seen)


@races
async def a_bounded_queue_between_a_producer_and_two_consumers(step: Step, world: World) -> Any:
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    got: list[list[Any]] = []

    async def consume(who: str) -> None:
        while True:
            item = await queue.get()
            got.append([who, await step.run(f"take{item}", world.effect, f"take{item}", item)])
            queue.task_done()

    consumers = [asyncio.create_task(consume(who)) for who in "ab"]
    for number in range(5):
        await queue.put(await step.run(f"make{number}", world.effect, f"make{number}", number))
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    return world.note(got)


@durable
async def a_condition_that_three_wait_for(step: Step, world: World) -> Any:
    condition, count = asyncio.Condition(), 0

    async def wait(least: int) -> Any:
        async with condition:
            await condition.wait_for(lambda: count >= least)
        return await step.run(f"met{least}", world.effect, f"met{least}")

    async def count_up() -> None:
        nonlocal count
        for number in range(3):
            await step.run(f"count{number}", world.effect, f"count{number}")
            async with condition:
                count += 1
                condition.notify_all()

    _, *met = await asyncio.gather(count_up(), *map(wait, (1, 2, 3)))
    return world.note(met)


@durable
async def two_events_that_take_turns(step: Step, world: World) -> Any:
    ping, pong, seen = asyncio.Event(), asyncio.Event(), list[str]()

    async def player(name: str, own: asyncio.Event, other: asyncio.Event) -> None:
        for number in range(3):
            await own.wait()
            own.clear()
            seen.append(await step.run(f"{name}{number}", world.effect, f"{name}{number}"))
            other.set()

    ping.set()
    await asyncio.gather(player("ping", ping, pong), player("pong", pong, ping))
    return world.note(seen)


@races
async def turns_without_a_wait_between_steps(step: Step, world: World) -> Any:
    seen: list[str] = []

    async def branch(name: str, turns: int) -> None:
        for number in range(turns):
            seen.append(f"{name}{number}")
            await asyncio.sleep(0)
        seen.append(await step.run(name, world.effect, name))

    await asyncio.gather(branch("a", 5), branch("b", 3), branch("c", 4))
    return world.note(seen)


@races
async def a_callback_starts_a_branch(step: Step, world: World) -> Any:
    started: list[asyncio.Task[Any]] = []
    first = asyncio.create_task(step.run("first", world.effect, "first"))
    first.add_done_callback(
        lambda _: started.append(asyncio.create_task(step.run("next", world.effect, "next")))
    )
    beside = asyncio.create_task(step.run("beside", world.effect, "beside"))
    await first
    await asyncio.sleep(0)
    return world.note([await started[0], await beside])


@races
async def a_timer_sets_an_event_beside_a_step(step: Step, world: World) -> Any:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(4, event.set)

    async def after() -> Any:
        await event.wait()
        return await step.run("after", world.effect, "after")

    return world.note(await asyncio.gather(after(), step.run("beside", world.effect, "beside")))


@races
async def a_cancellation_that_is_taken_back(step: Step, world: World) -> Any:
    async def stubborn() -> Any:
        try:
            await step.run("long", world.effect, "long")
            await step.sleep("longer", 100)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            return await step.run("rescue", world.effect, "rescue")

    task = asyncio.create_task(stubborn())
    await step.run("decide", world.effect, "decide")
    await asyncio.sleep(15)
    task.cancel()
    return world.note(await task)


@races
async def two_waits_for_one_set_with_times(step: Step, world: World) -> Any:
    tasks = [asyncio.create_task(step.run(f"t{n}", world.effect, f"t{n}")) for n in range(4)]
    done, left = await asyncio.wait(tasks, timeout=5)
    if left:
        await asyncio.wait(left, timeout=8, return_when=asyncio.FIRST_COMPLETED)
    early = [number for number, task in enumerate(tasks) if task in done]
    return world.note([early, await asyncio.gather(*tasks)])


@races
async def a_step_cancelled_while_it_waits_for_its_next_attempt(step: Step, world: World) -> Any:
    first = asyncio.create_task(step.run("unsteady", world.unsteady, "unsteady", retry=RETRY))
    await asyncio.sleep(1)
    await step.run("decide", world.effect, "decide")
    first.cancel()
    (found,) = list[Any](await asyncio.gather(first, return_exceptions=True))
    again = asyncio.create_task(step.run("unsteady", world.effect, "again"))
    return world.note([type(found).__name__, await again])


@durable
async def a_return_in_finally_after_steps(step: Step, world: World) -> Any:
    async def returns() -> Any:
        try:
            return await step.run("tried", world.effect, "tried")
        finally:
            await step.run("cleaned", world.effect, "cleaned")
            return await step.run("instead", world.effect, "instead")  # noqa: B012, SIM107

    async def raises() -> Any:
        try:
            await step.run("broken", world.broken, "broken")
        finally:
            raise ValueError(await step.run("reason", world.effect, "reason"))

    found = await asyncio.gather(returns(), raises(), return_exceptions=True)
    return world.note([str(each) for each in found])


@PROGRAMS.each
def test_a_program_comes_to_its_end_and_replays_whatever_the_delays(program: Program) -> None:
    PROGRAMS.try_delays(program)


@PROGRAMS.each
def test_a_program_survives_an_interruption_at_every_write(program: Program) -> None:
    PROGRAMS.try_interruptions(program)
