"""Children among branches: waited for, raced, cancelled, mapped."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import UUID

from openworkflow import ChildFailed, ChildTimeout, MapFailed, RetryPolicy, Step, workflow
from tests.meeting.signals import sends
from tests.meeting.world import World, odd


def kid_of(w: World) -> Any:
    @workflow
    async def kid(n: int, step: Step) -> Any:
        if n < 0:
            return await step.run("fail", w.fails, n)
        first = await step.run("one", w.quick, n)
        await step.sleep("nap", 60 * (n % 3))
        return [first, await step.run("two", w.slow, n * 10)]

    return kid


@odd()
def two_branches_name_their_children_alike(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        async def both(n: int) -> Any:
            return [await step.run_workflow("kid", kid, each) for each in (n, n + 1)]

        return await asyncio.gather(both(1), both(4))

    return main, kid


@odd(races=True)
def the_first_child_wins_and_the_others_are_cancelled(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        tasks = [asyncio.create_task(step.run_workflow(f"kid-{n}", kid, n)) for n in (5, 3, 4)]
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return [each.result() for each in done]

    return main, kid


@odd(races=True)
def results_as_they_come(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        handles = [await step.start_workflow("kid", kid, n) for n in (2, 1, 3)]
        order = []
        for each in asyncio.as_completed([h.result() for h in handles]):
            order.append(await each)
            step.emit("came", order[-1])
            await step.run("note", w.quick, len(order))
        return order

    return main, kid


@odd()
def a_map_within_a_timeout(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        try:
            async with asyncio.timeout(30):
                await step.map("all", kid, [1, 2, 4], concurrency=2)
        except TimeoutError:
            pass
        got = await step.map("again", kid, [3, -1, 6], concurrency=2, tolerate_failures=1)
        return [each if not isinstance(each, Exception) else type(each).__name__ for each in got]

    return main, kid


@odd()
def a_map_beside_a_branch_that_fails(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        caught: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(step.map("all", kid, [1, 2, 5], concurrency=2))
                group.create_task(step.map("steps", w.slow, [1, 2, 3], concurrency=2))
                group.create_task(step.run("fails", w.fails, "no"))
        except* Exception as errors:
            caught = [type(each).__name__ for each in errors.exceptions]
        return [caught, await step.run("after", w.quick, 1)]

    return main, kid


@odd()
def a_shielded_child_is_awaited_again(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        child = asyncio.ensure_future(step.run_workflow("kid", kid, 5))
        try:
            await asyncio.wait_for(asyncio.shield(child), 10)
        except TimeoutError:
            await step.run("patience", w.quick)
        return await child

    return main, kid


@odd()
def handles_in_a_dict_one_cancelled(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        handles = {n: await step.start_workflow("kid", kid, n) for n in (3, 4, 5)}
        await handles[4].cancel()
        found: dict[str, Any] = {}
        for n, each in reversed(handles.items()):
            try:
                found[str(n)] = await each.result()
            except ChildFailed as error:
                found[str(n)] = str(error.status)
        return found

    return main, kid


@odd()
def parent_and_child_play_ping_pong(w: World) -> Any:
    @workflow
    async def pong(step: Step) -> Any:
        seen = []
        async with asyncio.timeout(3600):
            while (ball := await step.wait_for_signal("ball"))["n"] < 3:
                seen.append(ball["n"])
                await step.signal(UUID(ball["from"]), "back", ball["n"] + 1)
        return seen

    @workflow
    async def main(step: Step) -> Any:
        other, n = await step.start_workflow("pong", pong), 0
        while n < 3:
            await other.signal("ball", {"n": n, "from": str(step.run_id)})
            n = await step.wait_for_signal("back")
        await other.signal("ball", {"n": n})
        return [n, await other.result()]

    return main, pong


@odd()
def a_child_that_is_late_is_started_again(w: World) -> Any:
    @workflow
    async def lazy(n: int, step: Step) -> Any:
        await step.sleep("long", "1d")
        return n

    @workflow
    async def main(step: Step) -> Any:
        again = RetryPolicy(max_attempts=2, initial=1, jitter=0)

        async def waits(n: int) -> Any:
            try:
                return await step.run_workflow("lazy", lazy, n, timeout="1h", retry=again)
            except ChildTimeout:
                return await step.run("late", w.quick, f"late {n}")

        return await asyncio.gather(waits(1), waits(2), step.run("other", w.slow, 3))

    return main, lazy


@odd()
def three_generations(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def parent(n: int, step: Step) -> Any:
        return await asyncio.gather(*(step.run_workflow("kid", kid, n + m) for m in (0, 1)))

    @workflow
    async def main(step: Step) -> Any:
        return await asyncio.gather(*(step.run_workflow("parent", parent, n) for n in (0, 10)))

    return main, parent, kid


@odd()
def two_maps_of_one_name(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        async def both(items: list[int]) -> Any:
            doubled = await step.map("steps", w.quick, items, key=lambda n: f"k{n}", concurrency=1)
            return await step.map("kids", kid, doubled, concurrency=1)

        return await asyncio.gather(both([1, 2]), both([3, 4, 5]))

    return main, kid


@odd()
def one_result_for_two_branches(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        handle = await step.start_workflow("kid", kid, 4)

        async def waits(timeout: Any) -> Any:
            with contextlib.suppress(ChildTimeout):
                return await handle.result(timeout=timeout)
            return await handle.result()

        return await asyncio.gather(waits(None), waits("10s"), waits("1h"))

    return main, kid


@odd()
def a_map_that_fails_beside_a_sleep(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        nap = asyncio.create_task(step.sleep("nap", "1h"))
        said = "it did not fail"
        try:
            await step.map("kids", kid, [2, -1, 5, 8], concurrency=4)
        except MapFailed as error:
            said = type(error.__cause__).__name__
        await nap
        return said

    return main, kid


@odd(sends(("stop", 1)))
def a_child_is_raced_by_a_signal(w: World) -> Any:
    @workflow
    async def lazy(step: Step) -> Any:
        await step.wait_for_signal("never")

    @workflow
    async def main(step: Step) -> Any:
        child = asyncio.create_task(step.run_workflow("lazy", lazy))
        stop = asyncio.create_task(step.wait_for_signal("stop"))
        done, left = await asyncio.wait({child, stop}, return_when=asyncio.FIRST_COMPLETED)
        for each in left:
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
        return [each.result() for each in done]

    return main, lazy


@odd()
def an_abandoned_child_in_a_cancelled_branch(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    async def main(step: Step) -> Any:
        async def starts() -> None:
            await step.start_workflow("kid", kid, 2, parent_close="abandon")
            await step.run_workflow("waited", kid, 5, parent_close="abandon")

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(starts(), 30)
        await step.sleep("until they are over", "1h")
        return "left"

    return main, kid


@odd(again=True)
def a_child_continues_as_new_while_its_parent_waits(w: World) -> Any:
    @workflow
    async def counts(n: int, step: Step) -> Any:
        left = await step.run("count", w.quick, n - 1)
        await step.sleep("nap", 60)
        if left:
            await step.continue_as_new(left)
        return "done"

    @workflow
    async def main(step: Step) -> Any:
        return await asyncio.gather(*(step.run_workflow("c", counts, n) for n in (1, 3)))

    return main, counts
