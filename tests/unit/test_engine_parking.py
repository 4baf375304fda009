"""Where nothing of a run can move: it is parked, rests in memory, or fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio.to_thread
import pytest

from openworkflow import RetryPolicy, Step
from openworkflow.engine import program
from openworkflow.engine.execution import Execution
from openworkflow.engine.outcome import (
    Completed,
    Failed,
    Lost,
    Outcome,
    Parked,
    Released,
)
from openworkflow.worker.slots import Slots
from tests.executions import (
    broken,
    failed,
    in_virtual_time,
    moments,
    prepared,
    quick,
    slow,
    statuses,
)
from tests.memory import Run
from tests.virtual_time import Clock

# -- parking -------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_run_of_which_every_branch_waits_is_parked_until_the_first_is_due() -> None:
    async def function(step: Step) -> None:
        await asyncio.gather(step.sleep("a", "7d"), step.sleep("b", "2d"))

    run = prepared(function)
    start = run.journal.clock.now()

    assert Parked(start + timedelta(days=2)) == await run.execute()


@in_virtual_time
async def test_a_sleep_beside_quick_steps_parks_after_all_of_them_however_slow_commits() -> None:
    async def function(step: Step) -> None:
        async def work() -> None:
            for name in "abcd":
                await step.run(name, quick)

        await asyncio.gather(step.sleep("reminder", "7d"), work())

    run = prepared(function)
    run.journal.at_once = False
    task = run.start(run.execution())
    for _ in range(100):
        await asyncio.wait({task}, timeout=1)
        run.journal.flush(1)

    assert isinstance(task.result(), Parked)
    assert {"a", "b", "c", "d", "reminder"} == set(statuses(run))


@in_virtual_time
async def test_a_run_is_not_parked_while_a_step_function_runs() -> None:
    async def function(step: Step) -> None:
        await asyncio.gather(step.sleep("nap", 5), step.run("slow", slow))

    run = prepared(function)

    assert isinstance(await run.execute(), Completed)


@in_virtual_time
async def test_a_run_that_waits_for_a_retry_is_parked_until_then() -> None:
    async def function(step: Step) -> None:
        await step.run(
            "a", broken, ValueError("x"), retry=RetryPolicy(initial="10m", max_delay="1h", jitter=0)
        )

    run = prepared(function)
    now = run.journal.clock.now()

    assert Parked(now + timedelta(minutes=10)) == await run.execute()


@in_virtual_time
async def test_a_park_carries_the_number_of_wakes_that_the_claim_has_seen() -> None:
    async def function(step: Step) -> None:
        await step.sleep("a", "1d")

    outcome = await prepared(function).execute(wake_no=3)

    assert isinstance(outcome, Parked)
    assert 3 == outcome.wake_no


@in_virtual_time
async def test_a_step_that_was_cancelled_and_cleans_up_does_not_keep_the_run_from_parking() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)

    async def function(step: Step) -> None:
        task = asyncio.create_task(step.run("stubborn", stubborn))
        await step.sleep("patience", 5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await step.sleep("long", "30d")

    run = prepared(function)
    task = run.start(run.execution())
    await asyncio.wait({task}, timeout=3600)

    assert task.done()
    assert isinstance(task.result(), Parked)


@in_virtual_time
async def test_other_code_that_blocks_the_event_loop_decides_nothing() -> None:
    async def function(step: Step) -> Any:
        async def branch(name: str) -> Any:
            await step.run(name, quick)
            return await step.run(f"{name}-2", quick, name)

        await asyncio.gather(branch("a"), branch("b"))
        await step.sleep("nap", 60)
        return await asyncio.gather(branch("c"), branch("d"))

    run = prepared(function)
    await run.execute()
    run.wake()
    task = run.start(run.execution())
    while not task.done():
        time.sleep(0.01)  # noqa: ASYNC251  # the law is about this
        run.journal.clock.ahead += 5  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    assert Completed('["c","d"]') == task.result()


# -- what nothing will move ----------------------------------------------------------------------


@in_virtual_time
async def test_a_function_that_waits_for_what_nobody_will_do_fails_at_once() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)
        await asyncio.Event().wait()

    failed(await prepared(function).execute(), "Stalled", "an event or a future that nobody sets")


@in_virtual_time
async def test_a_function_that_polls_without_end_fails_and_lets_others_run_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program, "MOST_CALLBACKS", 20_000)

    async def function(step: Step) -> None:
        while True:
            await asyncio.sleep(0)

    run = prepared(function)
    task = run.start(run.execution())
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)

    failed(task.result(), "ConfigurationError", "did not come to rest")
    assert turns > 10


@in_virtual_time
async def test_a_wait_that_was_given_up_is_not_taken_for_what_is_still_to_begin() -> None:
    """While it is drained: there were as many waits as operations, and it was parked for a day."""

    async def limited(step: Step) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await step.sleep("long", "1d")
        await step.sleep("next", 60)

    async def function(step: Step) -> None:
        await asyncio.gather(limited(step), step.sleep("other", "2d"))

    run = rested(function, Slots(1, freed=lambda: None))
    run.rest_seconds = 600.0
    execution = run.execution()
    run.journal.on_flush = lambda: (
        execution.drain() if statuses(run).get("asyncio-timer") == "succeeded" else None
    )

    assert isinstance(await run.start(execution), Released)
    assert "next" not in statuses(run)


# -- resting -------------------------------------------------------------------------------------


def rested(function: Any, slots: Slots) -> Run:
    run = prepared(function)
    run.slots, run.rest_seconds = slots, 5.0
    return run


async def nap(step: Step) -> str:
    await step.sleep("nap", 3)
    return await step.run("after", quick, "woke")


@in_virtual_time
async def test_a_short_wait_is_spent_in_memory_without_a_slot() -> None:
    slots = Slots(1, freed=lambda: None)
    run = rested(nap, slots)
    task = run.start(run.execution())
    await moments()

    assert (0, 1, 1) == (slots.used, slots.resting, slots.claimable)
    assert Completed('"woke"') == await task
    assert (1, 0) == (slots.used, slots.resting)


@in_virtual_time
async def test_a_run_that_has_rested_goes_on_once_there_is_a_slot() -> None:
    slots = Slots(1, freed=lambda: None)
    run = rested(nap, slots)
    task = run.start(run.execution())
    await moments()
    slots.reserve(1)
    (other,) = slots.fill(1, 1)
    await asyncio.sleep(60)
    assert not task.done()
    assert "after" not in statuses(run)

    other.close()

    assert Completed('"woke"') == await task


@in_virtual_time
async def test_a_run_is_parked_where_there_is_no_room_to_rest() -> None:
    run = rested(nap, Slots(1, most_resting=0, freed=lambda: None))

    assert isinstance(await run.execute(), Parked)


@in_virtual_time
async def test_a_long_wait_is_parked_although_there_is_room_to_rest() -> None:
    async def function(step: Step) -> None:
        await step.sleep("long", 6)

    assert isinstance(await rested(function, Slots(1, freed=lambda: None)).execute(), Parked)


@in_virtual_time
async def test_branches_that_wake_one_after_the_other_rest_and_take_the_slot_each_time() -> None:
    async def function(step: Step) -> list[Any]:
        async def branch(seconds: int) -> Any:
            await step.sleep(f"nap-{seconds}", seconds)
            return await step.run(f"after-{seconds}", quick, seconds)

        return list(await asyncio.gather(branch(1), branch(2), branch(4)))

    slots = Slots(1, freed=lambda: None)
    run = rested(function, slots)

    assert Completed("[1,2,4]") == await run.execute()
    assert (1, 0) == (slots.used, slots.resting)


@in_virtual_time
async def test_a_run_that_rests_can_be_stopped_and_drained() -> None:
    ways: list[tuple[Callable[[Execution], object], type[Outcome]]] = [
        (lambda e: e.interrupt(Lost()), Lost),
        (lambda e: e.drain(), Parked),
        (lambda e: e.fail(ValueError("x")), Failed),
    ]
    for stop, ends in ways:
        run = rested(nap, Slots(1, freed=lambda: None))
        execution = run.execution()
        task = run.start(execution)
        await moments()
        stop(execution)
        await asyncio.wait({task}, timeout=1)
        assert task.done()
        assert isinstance(task.result(), ends)


async def never() -> None:
    await asyncio.Event().wait()


@in_virtual_time
async def test_a_function_that_stalls_is_told_where() -> None:
    async def branches(step: Step) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(never())
            group.create_task(step.run("quick", quick))

    outcome = await prepared(branches).execute()

    failed(outcome, "Stalled", "test_engine_parking.py line ", "(never)", "(branches)")


@in_virtual_time
async def test_a_function_that_waits_for_a_thread_is_told_that() -> None:
    async def threads(step: Step) -> None:
        await anyio.to_thread.run_sync(str)

    outcome = await prepared(threads).execute()

    failed(outcome, "Stalled", "test_engine_parking.py line ", "(threads)", "a thread, which")


@in_virtual_time
async def test_what_fell_due_while_nobody_executed_the_run_ends_in_that_order() -> None:
    """No deadline passes before what was over before it, however late the run is claimed."""

    async def function(step: Step) -> str:
        try:
            await asyncio.wait_for(step.sleep("a", "1h"), timeout=7200)
        except TimeoutError:
            return "timed out"
        return "slept"

    run = prepared(function)
    clock = run.journal.clock = Clock()  # type: ignore[assignment]
    assert isinstance(await run.execute(), Parked)
    clock.ahead += 3 * 3600

    assert Completed('"slept"') == await run.execute()
    assert Completed('"slept"') == await run.execute()
