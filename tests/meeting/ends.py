"""Undoing, cancelling, deadlines, continuing as new, patches, repairs and pauses among branches."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from openworkflow import RetryPolicy, Step, Undo, workflow
from openworkflow.testing import Environment, Run
from tests.meeting.signals import early
from tests.meeting.world import World, odd

# -- undoing --------------------------------------------------------------------------------------


@odd()
def branches_are_undone_in_reverse(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def take(n: int) -> None:
            await step.sleep("wait", 60 * n)
            await step.run("take", w.quick, n, undo=w.undo)

        await asyncio.gather(*(take(n) for n in range(4)))
        await step.run("fails", w.fails, "no")

    return main


@odd()
def a_group_fails_beside_a_step_with_an_undo(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        await step.run("first", w.quick, "first", undo=w.undo)
        async with asyncio.TaskGroup() as group:
            undo = Undo(w.undo, uncertain=lambda _: w.undo("second"))
            group.create_task(step.run("second", w.slow, "second", undo=undo))
            group.create_task(step.run("fails", w.fails, "no"))

    return main


@odd()
def a_failure_that_was_caught_and_one_that_was_not(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        got = await asyncio.gather(
            step.run("a", w.quick, "a", undo=w.undo),
            step.run("b", w.fails, "b", undo=w.undo),
            return_exceptions=True,
        )
        await step.run("c", w.unsteady, "c", undo=w.undo, retry=RetryPolicy(max_attempts=2))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await step.sleep("long", "1h")
        await step.run("d", w.plain, len(got), undo=lambda n: w.undo(f"d{n}"))
        raise ValueError("the end")

    return main


@odd()
def an_undo_in_the_finally_of_a_generator(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def items() -> Any:
            try:
                for n in range(3):
                    yield await step.run("open", w.quick, n, undo=w.undo)
            finally:
                await step.run("close", w.quick, "close", undo=w.undo)

        async with contextlib.aclosing(items()) as stream:
            async for item in stream:
                if item == 1:
                    break
        await step.run("fails", w.fails, "no")

    return main


async def cancels(env: Environment, run: Run[Any], world: World) -> None:
    await env.settle()
    await run.cancel()


@odd(cancels)
def a_family_is_canceled_and_undone(w: World) -> Any:
    @workflow
    async def kid(n: int, step: Step) -> Any:
        await step.run("take", w.quick, "kid", undo=w.undo)
        await step.wait_for_signal("never")

    @workflow
    async def main(step: Step) -> Any:
        await step.run("take", w.quick, "parent", undo=w.undo)
        await asyncio.gather(step.run_workflow("kid", kid, 1), step.wait_for_signal("never"))

    return main, kid


@odd()
def a_deadline_while_branches_wait(w: World) -> Any:
    @workflow(deadline="1h")
    async def main(step: Step) -> Any:
        async def take(n: int) -> None:
            await step.run("take", w.quick, n, undo=w.undo)
            try:
                await step.wait_for_signal("never", timeout=None)
            finally:
                step.emit("finally", n)

        async with asyncio.TaskGroup() as group:
            group.create_task(take(1))
            await step.sleep("a moment", 1)
            group.create_task(take(2))
            group.create_task(step.sleep("long", "3h"))

    return main


@odd(again=True, input=0)
def what_continued_is_kept(w: World) -> Any:
    @workflow
    async def main(n: int, step: Step) -> Any:
        await step.run("take", w.quick, n, undo=w.undo)
        async with asyncio.timeout(3600):
            await step.sleep("nap", 10)
            if n < 2:
                await step.continue_as_new(n + 1)
        await asyncio.gather(step.run("more", w.quick, "more", undo=w.undo), step.sleep("b", 60))
        await step.run("fails", w.fails, "no")

    return main


# -- continuing -----------------------------------------------------------------------------------


@odd(early(*(("n", n) for n in range(5))), again=True, input=[])
def signals_are_kept_when_it_continues(w: World) -> Any:
    @workflow
    async def main(input: list[int], step: Step) -> Any:
        if len(input) == 4:
            return [*input, await step.wait_for_signal("n")]
        one, two = await asyncio.gather(step.wait_for_signal("n"), step.wait_for_signal("n"))
        step.emit("took", [one, two])
        return await step.continue_as_new([*input, *sorted([one, two])])

    return main


@odd(again=True, input=0)
def a_branch_continues_as_new(w: World) -> Any:
    @workflow
    async def main(n: int, step: Step) -> Any:
        step.emit("begins", n)
        step.set_status({"n": n})

        async def go_on() -> None:
            await step.run("work", w.slow, n)
            await step.continue_as_new(n + 1)

        if n < 3:
            await asyncio.create_task(go_on())
        step.tag(stage=f"end-{n}")
        return n

    return main


@odd(again=True, input=0)
def children_go_on_when_it_continues(w: World) -> Any:
    @workflow
    async def kid(n: int, step: Step) -> Any:
        await step.sleep("nap", "1h")
        await step.run("told", w.quick, n)
        return n

    @workflow
    async def main(n: int, step: Step) -> Any:
        await step.start_workflow("kid", kid, n, parent_close="abandon")
        if n < 2:
            await step.continue_as_new(n + 1)
        await step.sleep("wait", "2h")
        return n

    return main, kid


# -- patches --------------------------------------------------------------------------------------


@odd()
def patches_in_branches(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def walk(n: int) -> Any:
            await step.sleep("nap", n * 60)
            if await step.patched("quicker"):
                return await step.run("new", w.quick, n)
            return await step.run("old", w.slow, n)

        first = await asyncio.gather(*(walk(n) for n in (2, 0, 1)))
        return [first, await step.patched(f"after-{len(first)}")]

    return main


@odd(races=True)
def a_patch_after_a_race(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        tasks = [asyncio.create_task(step.run(n, f, n)) for n, f in (("a", w.quick), ("b", w.slow))]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        way = await step.patched("-".join(sorted(t.result() for t in done)))
        return [way, await asyncio.gather(*tasks), await step.run("end", w.plain, 1)]

    return main


# -- cancel, pause, retry, fork -------------------------------------------------------------------


@odd(cancels)
def a_cancel_runs_finally_blocks(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def waits(n: int) -> None:
            try:
                await step.sleep("long", "7d")
            except asyncio.CancelledError:
                await step.run("never", w.quick, n)
            finally:
                await step.run("nor this", w.quick, n)

        await asyncio.gather(*(waits(n) for n in range(3)), return_exceptions=True)
        return "never"

    return main


async def pauses(env: Environment, run: Run[Any], world: World) -> None:
    await env.settle()
    await world.ow.pause(run.id)
    await run.signal("go", 1)
    await env.skip("2d")
    await env.settle()
    assert not run.status.finished
    await world.ow.resume(run.id)


@odd(pauses)
def a_pause_over_sleeps_and_signals(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def naps() -> Any:
            await step.sleep("nap", "1d")
            return await step.run("slept", w.quick, 2)

        go = step.wait_for_signal("go", timeout="3d", default="late")
        return await asyncio.gather(naps(), go)

    return main


async def retries(env: Environment, run: Run[Any], world: World) -> None:
    await run.end()
    world.facts["mended"] = True
    await world.ow.retry(run.id)


@odd(retries, again=True)
def a_gather_that_failed_is_retried(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def branch(n: int) -> Any:
            await step.run("before", w.quick, n)
            if n == 1:
                await step.run("broken", w.once_broken, n)
            await step.sleep("nap", 60 * n)
            return await step.run("after", w.slow, n)

        return await asyncio.gather(*(branch(n) for n in range(3)))

    return main


@odd(retries, again=True)
def a_saga_with_a_child_is_retried(w: World) -> Any:
    @workflow
    async def kid(n: int, step: Step) -> Any:
        return await step.run("broken", w.once_broken, n)

    @workflow
    async def main(step: Step) -> Any:
        step.emit("begins", 1)
        async with contextlib.AsyncExitStack():
            a, b = await asyncio.gather(
                step.run("take", w.quick, "a", undo=w.undo),
                step.run("also", w.slow, "a", undo=w.undo),
            )
            return [a, b, await step.run_workflow("kid", kid, 3)]

    return main, kid


@odd(retries, again=True)
def a_group_that_failed_is_retried(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async with asyncio.TaskGroup() as group:
            a = group.create_task(step.run("broken", w.once_broken, 1))
            b = group.create_task(step.wait_for_signal("s", timeout="1h", default=0))
            c = group.create_task(step.map("items", w.slow, [1, 2, 3], concurrency=2))
        return [a.result(), b.result(), c.result()]

    return main


def from_step(key: str) -> Any:
    async def drive(env: Environment, run: Run[Any], world: World) -> None:
        await run.end()
        world.facts["mended"] = True
        await world.ow.retry(run.id, from_step=key)

    return drive


@odd(from_step("b"), again=True)
def branches_are_retried_from_a_step(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        a = await step.run("a", w.quick, 1)
        b, _ = await asyncio.gather(step.run("b", w.slow, 2), step.sleep("nap", 60))
        rest = await asyncio.gather(step.run("c", w.quick, 3), step.run("d", w.once_broken, 4))
        return [a, b, *rest]

    return main


async def forks(env: Environment, run: Run[Any], world: World) -> Any:
    await env.settle()
    await run.signal("s", 1)
    await run.end()
    found = []
    for given in ({"from_step": "s"}, {"results": {"b": 50}}, {}):
        fork = await env.find(await world.ow.fork(run.id, **given))
        await env.settle()
        if not fork.status.finished:
            await fork.signal("s", 9)
        await fork.end()
        found.append(fork.output)
    return found


@odd(forks, again=True)
def branches_are_forked(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        got = await asyncio.gather(step.run("a", w.quick, 1), step.wait_for_signal("s"))
        b = await step.run("b", w.slow, 5)
        c = await asyncio.gather(step.run("c", w.quick, b), step.sleep("nap", 60))
        return [*got, *c]

    return main


async def forces(env: Environment, run: Run[Any], world: World) -> None:
    await env.settle()
    await run.cancel(force=True)


@odd(forces)
def forced_to_end_with_an_undo(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        await step.run("take", w.quick, 1, undo=w.undo)
        async with asyncio.timeout(86400):
            await asyncio.gather(step.wait_for_signal("never"), step.sleep("nap", "2d"))

    return main


@odd(again=True)
def the_run_itself_is_attempted_again(w: World) -> Any:
    @workflow(retry=RetryPolicy(max_attempts=3, initial=60, jitter=0))
    async def main(step: Step) -> Any:
        step.emit("attempt", step.attempt)
        await asyncio.gather(step.run("a", w.quick, 1), step.sleep("nap", 5))
        if step.attempt < 3:
            raise RuntimeError("again")
        return await step.run("b", w.slow, step.attempt)

    return main
