"""Limits, rates, schedules, what a run tells, and plain functions with threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openworkflow import Cron, Limit, Rate, RetryPolicy, Step, SyncStep, workflow
from openworkflow.testing import Environment, Run
from tests.meeting.children import kid_of
from tests.meeting.signals import early, sends
from tests.meeting.world import World, odd

# -- limits and rates -----------------------------------------------------------------------------

SLOW = Rate(1, per="1m", name="vendor")


@odd()
def steps_at_a_rate_in_branches(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        calls = [step.run(f"call-{n}", w.quick, n, rate=SLOW) for n in range(3)]
        got = await asyncio.gather(*calls)
        return [got, await step.run("free", w.slow, 1)]

    return main


@odd()
def a_rate_within_a_timeout(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        await step.run("first", w.quick, 1, rate=SLOW)
        try:
            async with asyncio.timeout(20):
                return await step.run("second", w.quick, 2, rate=SLOW)
        except TimeoutError:
            return await step.run("instead", w.slow, 3)

    return main


@odd()
def a_map_at_a_rate_with_retries(w: World) -> Any:
    again = RetryPolicy(max_attempts=3, initial=1, jitter=0)

    @workflow
    async def main(step: Step) -> Any:
        return await asyncio.gather(
            step.map("calls", w.unsteady, [1, 2], rate=SLOW, retry=again, concurrency=2),
            step.run("beside", w.quick, 3),
        )

    return main


@odd()
def a_limit_is_paused_by_a_branch(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def pauses() -> None:
            await step.pause_limit("vendor", "5m")
            step.emit("paused", 1)

        await asyncio.gather(pauses(), step.run("free", w.quick, 0))
        return await asyncio.gather(
            step.run("call", w.quick, 1, rate=SLOW),
            step.sleep("nap", "1m"),
            step.run("c", w.slow, 2),
        )

    return main


@odd()
def a_family_under_a_limit_of_one(w: World) -> Any:
    @workflow(limits=[Limit(1, name="one")])
    async def kid(n: int, step: Step) -> Any:
        await step.run("a", w.quick, n)
        await step.sleep("nap", 60)
        return await step.run("b", w.slow, n)

    @workflow(limits=[Limit(1, name="one")])
    async def main(step: Step) -> Any:
        got = await asyncio.gather(*(step.run_workflow("kid", kid, n) for n in range(3)))
        return [got, await step.map("kids", kid, [4, 5], concurrency=2)]

    return main, kid


@odd()
def children_begin_at_a_rate(w: World) -> Any:
    @workflow(rate=Rate(1, per="1m"))
    async def kid(n: int, step: Step) -> Any:
        return await step.run("a", w.quick, n)

    @workflow
    async def main(step: Step) -> Any:
        try:
            async with asyncio.timeout(90):
                await step.map("kids", kid, [0, 1, 2, 3], concurrency=4)
        except TimeoutError:
            return await step.run_workflow("last", kid, 9)

    return main, kid


async def cancels_while_limited(env: Environment, run: Run[Any], world: World) -> None:
    await env.skip("30s")
    await run.cancel()


@odd(cancels_while_limited, races=True)
def a_saga_is_canceled_while_it_waits_for_a_turn(w: World) -> Any:
    @workflow(limits=[Limit(1)])
    async def main(step: Step) -> Any:
        await step.run("first", w.quick, 1, rate=SLOW, undo=w.undo)
        await asyncio.gather(
            step.run("second", w.quick, 2, rate=SLOW, undo=w.undo), step.wait_for_signal("never")
        )

    return main


# -- schedules ------------------------------------------------------------------------------------


async def three_days(env: Environment, run: Run[Any], world: World) -> Any:
    ow = world.ow
    await ow.schedules.create("nightly", "nightly", Cron("0 3 * * *"))
    await env.skip("72h")
    await ow.schedules.trigger("nightly")
    await env.settle()
    await env.skip("2h")
    await ow.schedules.delete("nightly")
    await run.signal("done", 1)
    found: list[Run[Any]] = await env.runs("nightly")
    runs = [each for each in found if each.status.value == "succeeded"]
    return [len(runs) in (4, 5), {str(each.output) for each in runs}]


@odd(three_days, races=True)
def occurrences_with_branches(w: World) -> Any:
    @workflow
    async def nightly(step: Step) -> Any:
        when = step.scheduled_for
        async with asyncio.timeout(7200):
            got = await asyncio.gather(step.sleep("nap", "10m"), step.run("report", w.quick, 1))
        return [got, when is not None and when.minute >= 0]

    @workflow
    async def main(step: Step) -> Any:
        return await step.wait_for_signal("done")

    return main, nightly


# -- what a run tells -----------------------------------------------------------------------------


@odd()
def branches_tell(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def branch(n: int) -> None:
            step.emit(f"t{n}", "begins")
            await step.sleep("nap", 60 * (n + 1))
            step.set_status({"branch": n})
            await step.run("work", w.tells, n)
            step.emit(f"t{n}", "ends")
            step.tag(**{f"b{n}": "done"})

        try:
            await asyncio.gather(*(branch(n) for n in range(3)))
        finally:
            step.emit("end", 1)
        return 1

    return main


@odd()
def a_generator_tells_what_it_yields(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        async def pages() -> Any:
            for n in range(4):
                step.emit("page", n)
                yield await step.run("fetch", w.tells, n)

        total = 0
        async with contextlib.aclosing(pages()) as all_pages:
            async for page in all_pages:
                total += page
                step.set_status({"total": total})
                if total > 2:
                    break
        await step.sleep("nap", "1h")
        step.emit("total", total)
        return total

    return main


@odd()
def it_tells_when_a_timeout_passes(w: World) -> Any:
    @workflow
    async def main(step: Step) -> Any:
        for n in range(3):
            try:
                async with asyncio.timeout(5 * n + 1):
                    step.emit("try", n)
                    await step.sleep("nap", 7)
                    step.emit("slept", n)
            except TimeoutError:
                step.emit("late", n)
        return await step.run("end", w.plain, 1)

    return main


# -- plain functions ------------------------------------------------------------------------------


@odd(early(("s", 1), ("t", 2)))
def threads_wait_for_signals(w: World) -> Any:
    @workflow
    def main(step: SyncStep) -> Any:
        got: dict[str, Any] = {}

        def hear(name: str) -> None:
            got[name] = step.wait_for_signal(name)
            got[f"{name}-kept"] = step.run(f"keep-{name}", w.plain, got[name])

        threads = [threading.Thread(target=hear, args=(name,)) for name in ("s", "t")]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return [got["s"], got["t-kept"], step.run("after", w.quick, 3)]

    return main


@odd(threads=True)
def a_pool_of_threads(w: World) -> Any:
    @workflow
    def main(step: SyncStep) -> Any:
        def work(n: int) -> Any:
            step.emit(f"t{n}", n)  # of which thread is first nothing is known
            first = step.run(f"one-{n}", w.slow, n)
            return step.run(f"two-{n}", w.quick, first)

        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(work, range(3)))

    return main


@odd()
def a_plain_saga_with_children(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    def main(step: SyncStep) -> Any:
        step.run("a", w.plain, "a", undo=w.undo)
        kids = step.map("kids", kid, [1, 2, 3], concurrency=2)
        handle = step.start_workflow("other", kid, 4)
        step.run("b", w.quick, len(kids), undo=w.undo)
        if step.patched("wait"):
            handle.result()
        step.emit("told", 1)
        step.run("c", w.fails, "no", undo=w.undo)

    return main, kid


@odd(again=True, input=0)
def a_plain_function_continues_as_new(w: World) -> Any:
    @workflow
    def main(n: int, step: SyncStep) -> Any:
        def items() -> Any:
            try:
                for m in range(3):
                    yield step.run("item", w.plain, m)
            finally:
                step.emit("closed", n)

        got = []
        for item in items():
            got.append(item)
            if item == 1:
                break
        step.set_status({"n": n})
        if n < 2:
            step.continue_as_new(n + 1)
        return [n, got, step.map("m", w.plain, [1, 2, 3], concurrency=2)]

    return main


@odd(sends(("go", 1)))
def a_lock_between_threads(w: World) -> Any:
    @workflow
    def main(step: SyncStep) -> Any:
        lock, order = threading.Lock(), []

        def work(name: str) -> None:
            got = step.run(f"get-{name}", w.quick, name)
            with lock:
                order.append(step.run(f"put-{name}", w.plain, got))

        threads = [threading.Thread(target=work, args=(n,)) for n in ("x", "y", "z")]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        step.wait_for_signal("go")
        return sorted(order)

    return main


@odd()
def threads_start_children(w: World) -> Any:
    kid = kid_of(w)

    @workflow
    def main(step: SyncStep) -> Any:
        with ThreadPoolExecutor(2) as pool:
            found = [pool.submit(step.run_workflow, f"kid-{n}", kid, n) for n in (1, 2)]
            return [each.result() for each in found]

    return main, kid


# -- all of it ------------------------------------------------------------------------------------


@odd(sends(("go", 1)))
def everything_at_once(w: World) -> Any:
    @workflow(limits=[Limit(1, name="one")])
    async def kid(n: int, step: Step) -> Any:
        step.emit("kid", n)
        return await step.run("take", w.quick, f"kid {n}", undo=w.undo)

    @workflow(limits=[Limit(1, name="one")], deadline="30d")
    async def main(step: Step) -> Any:
        new = await step.patched("new")

        async def orders() -> Any:
            async with asyncio.timeout(86400 * 7):
                return await step.wait_for_signal("go", default=None, timeout="10d")

        async with asyncio.TaskGroup() as group:
            order = group.create_task(orders())
            kids = group.create_task(step.map("kids", kid, [1, 2, 3], concurrency=2))
            call = group.create_task(step.run("call", w.unsteady, 4, rate=SLOW, undo=w.undo))
        step.tag(order=str(order.result()))
        step.set_status(kids.result())
        step.emit("new", new)
        await step.run("fails", w.fails, call.result())

    return main, kid
