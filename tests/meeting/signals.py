"""Signals among branches, timeouts, queues and generators."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from openworkflow import SerializationError, SignalTimeout, Step, workflow
from openworkflow.testing import Environment, Run
from tests.meeting.world import World, odd


def sends(*signals: tuple[str, Any]) -> Any:
    """Each once nothing is executed any more."""

    async def drive(env: Environment, run: Run[Any], world: World) -> None:
        for name, value in signals:
            await env.settle()
            await run.signal(name, value)

    return drive


def early(*signals: tuple[str, Any]) -> Any:
    """All at once, whatever is executed."""

    async def drive(env: Environment, run: Run[Any], world: World) -> None:
        for name, value in signals:
            await run.signal(name, value)

    return drive


@odd(sends(("s", 1), ("s", 2)))
def two_branches_wait_for_one_name(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        got = await asyncio.gather(step.wait_for_signal("s"), step.wait_for_signal("s"))
        return sorted([*got, await step.run("after", w.quick, 3)])

    return main


@odd(sends(("s", 1)), races=True)
def a_wait_that_lost_leaves_its_signal(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        wait = asyncio.create_task(step.wait_for_signal("s"))
        done, left = await asyncio.wait(
            {wait, asyncio.create_task(step.run("slow", w.slow, "slow"))},
            return_when=asyncio.FIRST_COMPLETED,
        )
        first = [each.result() for each in done]
        if wait in left:
            wait.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await wait
            first.append(await step.wait_for_signal("s"))
        return sorted(map(str, first))

    return main


@odd(sends(("s", 7)))
def the_clock_passes_before_the_signal(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        try:
            async with asyncio.timeout(3600):
                early = await step.wait_for_signal("s")
        except TimeoutError:
            early = "late"
        if early == "late":
            return [early, await step.wait_for_signal("s")]
        return [early]

    return main


async def late(env: Environment, run: Run[Any], world: World) -> None:
    await env.skip("2h")
    await run.signal("s", 7)


@odd(late)
def a_timeout_and_then_the_signal(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        got: list[Any] = []
        try:
            async with asyncio.timeout(3600):
                got.append(await step.wait_for_signal("s"))
        except TimeoutError:
            got.append(await step.run("remind", w.quick, "reminded"))
        got.append(await step.wait_for_signal("s"))
        return got

    return main


@odd()
def a_step_tells_its_own_run(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        waits = asyncio.create_task(step.wait_for_signal("own"))
        sent = await asyncio.gather(*(step.run("send", w.sends, "own", n) for n in range(3)))
        got = [await waits, *[await step.wait_for_signal("own") for _ in range(2)]]
        return [sent, sorted(got)]

    return main


@odd()
def a_workflow_tells_itself_in_branches(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def ping(n: int) -> Any:
            await step.signal(step.run_id, f"p{n}", n)
            return await step.wait_for_signal(f"p{n}")

        return await asyncio.gather(*(ping(n) for n in range(4)))

    return main


@odd(sends(*(("item", n) for n in range(5))))
def a_queue_is_fed_by_signals(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)
        stored: list[Any] = []

        async def feed() -> None:
            for _ in range(5):
                await queue.put(await step.wait_for_signal("item"))
            await queue.put(None)

        async def store() -> None:
            while (item := await queue.get()) is not None:
                stored.append(await step.run("store", w.slow, item))

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            group.create_task(store())
        return stored

    return main


@odd(early(*(("item", n) for n in (1, 2, 3))))
def a_generator_of_signals_is_left_early(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        closed: list[Any] = []

        async def items() -> Any:
            try:
                while True:
                    yield await step.wait_for_signal("item")
            finally:
                closed.append(await step.run("close", w.quick, "closed"))

        got: list[Any] = []
        async with contextlib.aclosing(items()) as stream:
            async for item in stream:
                got.append(await step.run("take", w.quick, item))
                if item == 2:
                    break
        return [got, closed, await step.wait_for_signal("item")]

    return main


@odd(early(("n", "text"), ("n", 5)))
def a_signal_that_does_not_fit_in_a_branch(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def number() -> Any:
            while True:
                try:
                    return await step.wait_for_signal("n", type=int)
                except SerializationError:
                    await step.run("complain", w.quick, "bad")

        return await asyncio.gather(number(), step.run("other", w.slow, 1))

    return main


@odd()
def defaults_and_timeouts_side_by_side(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def late() -> Any:
            try:
                return await step.wait_for_signal("b", timeout="2h")
            except SignalTimeout:
                return await step.run("late", w.quick, "late")

        return await asyncio.gather(
            step.wait_for_signal("a", timeout="1h", default=None),
            late(),
            step.sleep("nap", "90m"),
            step.wait_for_signal("c", timeout="3h", default="d"),
        )

    return main


@odd()
def children_hear_a_topic(w: World) -> Any:
    @workflow
    async def hears(n: int, step: Step) -> Any:
        return [n, await step.wait_for_signal("topic")]

    @workflow
    async def main(step: Step) -> Any:
        kids = [await step.start_workflow("kid", hears, n) for n in range(3)]
        await step.signal("topic", "go")
        return await asyncio.gather(*(kid.result() for kid in kids))

    return main, hears


@odd(sends(("s", 1), ("s", 2), ("s", 3)))
def a_semaphore_around_waits(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        one, order = asyncio.Semaphore(1), []

        async def take(n: int) -> None:
            async with one:
                order.append([n, await step.wait_for_signal("s")])
                await step.run("handle", w.slow, n)

        await asyncio.gather(*(take(n) for n in range(3)))
        return order

    return main


@odd(sends(("stop", 1)))
def a_signal_cancels_the_branches(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        undone: list[str] = []

        async def beat(n: int) -> None:
            try:
                while True:
                    await step.sleep("beat", "1d")
            finally:
                undone.append(f"beat {n}")

        beats = [asyncio.create_task(beat(n)) for n in range(2)]
        await step.wait_for_signal("stop")
        for each in beats:
            each.cancel()
        await asyncio.gather(*beats, return_exceptions=True)
        return [undone, await step.run("end", w.quick, "end")]

    return main


@odd(sends(("go", 1)))
def a_shielded_wait_outlives_its_timeout(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        wait = asyncio.ensure_future(step.wait_for_signal("go"))
        tries = 0
        while True:
            try:
                async with asyncio.timeout(60):
                    return [await asyncio.shield(wait), tries > -1]
            except TimeoutError:
                tries += 1
                await step.run("nag", w.quick, tries)

    return main


@odd(early(("a", 1), ("b", 2)))
def a_condition_between_two_signals(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        ready, got = asyncio.Condition(), {}

        async def hear(name: str) -> None:
            value = await step.wait_for_signal(name)
            async with ready:
                got[name] = value
                ready.notify_all()

        async with asyncio.TaskGroup() as group:
            group.create_task(hear("a"))
            group.create_task(hear("b"))
            async with ready:
                await ready.wait_for(lambda: len(got) == 2)
            return [got["a"], got["b"], await step.run("both", w.quick, 3)]

    return main
