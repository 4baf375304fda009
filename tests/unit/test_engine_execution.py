"""One execution of one run: when it parks, rests, is handed back, fails, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import time
import weakref
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from openworkflow import NonRetryableError, RetryPolicy, Step, Workflow, workflow
from openworkflow.core.recorded import RecordedStep
from openworkflow.engine import program
from openworkflow.engine.execution import Execution
from openworkflow.engine.guard import LeaseGuard
from openworkflow.engine.outcome import (
    Completed,
    Continued,
    Failed,
    Lost,
    Outcome,
    Parked,
    Released,
)
from openworkflow.worker.slots import Slots
from tests import virtual_time
from tests.memory import Run
from tests.virtual_time import Clock

Test = Callable[..., Coroutine[Any, Any, None]]


def in_virtual_time(test: Test) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        virtual_time.run(test(*args, **kwargs))

    return run


def prepared(function: Any, **options: Any) -> Run:
    """A run of this function; virtual time is the database's too."""
    flow: Workflow[Any, Any] = workflow(name="w", **options)(function)
    run = Run(flow)
    run.journal.clock = Clock()  # type: ignore[assignment]
    return run


async def quick(value: Any = None) -> Any:
    return value


async def slow(seconds: float = 60) -> str:
    await asyncio.sleep(seconds)
    return "slow"


async def broken(error: Exception) -> None:
    raise error


async def moments(count: int = 50) -> None:
    """Let everything happen that needs no time."""
    for _ in range(count):
        await asyncio.sleep(0)


def statuses(run: Run) -> dict[str, str]:
    return {row.step_name: row.status for row in run.steps}


def failed(outcome: Outcome | None, kind: str, *said: str) -> None:
    assert isinstance(outcome, Failed), outcome
    assert outcome.failure.type.endswith(kind), outcome
    for each in said:
        assert each in outcome.failure.message, outcome


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


# -- draining ------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_drain_lets_the_running_step_end_and_be_recorded_and_begins_nothing_new() -> None:
    async def function(step: Step) -> None:
        await step.run("slow", slow)
        await step.run("next", quick)

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(1)
    execution.drain()

    assert Released() == await task
    assert {"slow": "succeeded"} == statuses(run)


@in_virtual_time
async def test_a_drain_of_a_run_that_begins_begins_nothing() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)

    run = prepared(function)
    execution = run.execution()
    execution.drain()

    assert Released() == await run.start(execution)
    assert [] == run.steps


@in_virtual_time
async def test_a_drain_of_branches_waits_for_all_of_their_steps() -> None:
    async def function(step: Step) -> None:
        async def branch(name: str, seconds: float) -> None:
            await step.run(name, slow, seconds)
            await step.run(f"{name}-2", quick)

        await asyncio.gather(branch("a", 5), branch("b", 50), step.sleep("nap", "1d"))

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(1)
    execution.drain()

    assert Released() == await task
    assert {"a": "succeeded", "b": "succeeded", "nap": "running"} == statuses(run)


@in_virtual_time
async def test_a_drain_while_the_workflow_cancels_its_losers_ends() -> None:
    async def function(step: Step) -> None:
        tasks = [asyncio.create_task(step.run(f"s{n}", slow, n)) for n in (1, 50, 50)]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await step.run("prize", quick)

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(0.5)
    execution.drain()
    await asyncio.wait({task}, timeout=600)

    assert task.done()
    assert Released() == task.result()


# -- deadlines -----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_run_whose_deadline_passed_before_its_claim_calls_nothing() -> None:
    called: list[int] = []

    async def function(step: Step) -> None:
        called.append(1)

    run = prepared(function)
    now = run.journal.clock.now()

    failed(await run.execute(deadline_at=now - timedelta(seconds=1)), "DeadlineExceeded")
    assert [] == called


@in_virtual_time
async def test_the_deadline_interrupts_the_run_where_it_is() -> None:
    async def function(step: Step) -> None:
        await step.run("slow", slow, 100)

    run = prepared(function)
    begun = asyncio.get_running_loop().time()
    deadline = run.journal.clock.now() + timedelta(seconds=10)

    failed(await run.execute(deadline_at=deadline), "DeadlineExceeded", "2026-01-01T00:00:10")
    assert asyncio.get_running_loop().time() == pytest.approx(begun + 10, abs=0.1)


@in_virtual_time
async def test_a_retry_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    async def function(step: Step) -> None:
        await step.run("a", broken, ValueError("its own"), retry=RetryPolicy(initial=20, jitter=0))

    run = prepared(function)
    deadline = run.journal.clock.now() + timedelta(seconds=10)

    failed(await run.execute(deadline_at=deadline), "ValueError", "its own")


# -- what may begin ------------------------------------------------------------------------------


@in_virtual_time
async def test_nothing_begins_while_the_claim_is_not_vouched_for() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)

    run = prepared(function)
    loop = asyncio.get_running_loop()
    run.guard = guard = LeaseGuard(30, loop.time)
    await asyncio.sleep(31)
    task = run.start(run.execution())
    await asyncio.sleep(100)
    assert [] == run.steps

    guard.renew(loop.time())
    guard.release()

    assert isinstance(await task, Completed)


@in_virtual_time
async def test_a_claim_that_turns_out_lost_while_it_waits_to_be_vouched_for_calls_nothing() -> None:
    called: list[int] = []

    async def effect() -> None:
        called.append(1)

    async def function(step: Step) -> None:
        await step.run("a", effect)

    run = prepared(function)
    loop = asyncio.get_running_loop()
    run.guard = guard = LeaseGuard(30, loop.time)
    await asyncio.sleep(31)
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(1)
    execution.interrupt(Lost())
    guard.renew(loop.time())
    guard.release()

    assert Lost() == await task
    assert [] == called


@in_virtual_time
async def test_a_step_begins_only_after_what_came_before_it_is_durable() -> None:
    began: list[str] = []

    async def effect(name: str) -> None:
        began.append(name)

    async def function(step: Step) -> None:
        await step.run("a", effect, "a")
        await step.run("b", effect, "b")

    run = prepared(function)
    run.journal.at_once = False
    task = run.start(run.execution())
    await moments()
    assert ["a"] == began

    run.journal.flush()
    await moments()
    assert ["a", "b"] == began

    run.journal.flush()
    await task


@in_virtual_time
async def test_a_step_that_finds_the_claim_lost_is_the_last_thing_that_happens() -> None:
    began: list[str] = []

    async def effect(name: str) -> None:
        began.append(name)

    async def function(step: Step) -> None:
        await step.run("a", effect, "a")
        await step.run("b", effect, "b")

    run = prepared(function)
    run.journal.held = False

    assert Lost() == await run.execute()
    assert ["a"] == began


@in_virtual_time
async def test_a_run_has_a_limit_of_step_attempts_and_says_what_to_do() -> None:
    async def function(step: Step) -> None:
        for _ in range(100):
            await step.run("a", quick)

    run = prepared(function)
    run.limit = 10

    failed(await run.execute(), "TooManySteps", "limit of one run", "continue_as_new")
    assert 10 == len(run.steps)


@in_virtual_time
async def test_the_attempts_of_earlier_claims_count_towards_the_limit() -> None:
    async def function(step: Step) -> None:
        for i in range(4):
            await step.run("a", quick)
            await step.sleep(f"s{i}", 1)

    run = prepared(function)
    run.limit = 5
    outcome: Outcome = Parked(None)
    while isinstance(outcome, Parked):
        outcome = await run.execute()
        run.wake()

    failed(outcome, "TooManySteps")


# -- stopping ------------------------------------------------------------------------------------


async def _one_step(step: Step) -> None:
    await step.run("slow", slow)


async def _two_branches(step: Step) -> None:
    await asyncio.gather(step.run("a", slow), step.run("b", slow))


async def _waits_beside_a_step(step: Step) -> None:
    await asyncio.gather(step.run("a", slow), step.sleep("b", "1d"))


async def _shielded(step: Step) -> None:
    await asyncio.shield(asyncio.create_task(step.run("a", slow)))


async def _retries(step: Step) -> None:
    await asyncio.gather(
        step.run("a", broken, ValueError("x")), step.run("b", slow), return_exceptions=True
    )


async def _swallows_everything(step: Step) -> None:
    while True:
        try:
            await step.run("slow", slow)
        except GeneratorExit:  # not even Python lets itself be told no here
            raise
        except BaseException:
            pass


async def _swallows_everything_in_a_branch(step: Step) -> None:
    await asyncio.create_task(_swallows_everything(step))


async def _asks_again_in_finally(step: Step) -> None:
    try:
        await step.run("slow", slow)
    finally:
        await step.run("clean-up", slow)


STATES = [
    _one_step,
    _two_branches,
    _waits_beside_a_step,
    _shielded,
    _retries,
    _swallows_everything,
    _swallows_everything_in_a_branch,
    _asks_again_in_finally,
]


@pytest.mark.parametrize("function", STATES)
@pytest.mark.parametrize("after", [0, 1, 2, 5, 50])
@in_virtual_time
async def test_a_run_stops_at_once_wherever_it_is_and_records_nothing_more(
    function: Any, after: int
) -> None:
    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await moments(after)
    execution.interrupt(Lost())
    written = run.journal.writes
    await asyncio.wait({task}, timeout=10)

    assert task.done()
    assert Lost() == task.result()
    assert written == run.journal.writes


@pytest.mark.parametrize("function", STATES)
@in_virtual_time
async def test_a_run_that_is_stopped_while_a_write_is_under_way_stops_after_it(
    function: Any,
) -> None:
    async def after_a_write(step: Step) -> None:
        await step.run("first", quick)
        await function(step)

    run = prepared(after_a_write)
    run.journal.at_once = False
    execution = run.execution()
    task = run.start(execution)
    await moments()
    assert 1 == len(run.journal.waiting)
    execution.interrupt(Released())
    await moments()
    run.journal.at_once = True
    run.journal.flush()
    await asyncio.wait({task}, timeout=10)

    assert task.done()
    assert Released() == task.result()


@in_virtual_time
async def test_an_execution_that_was_stopped_before_it_began_calls_nothing() -> None:
    called: list[int] = []

    async def function(step: Step) -> None:
        called.append(1)

    run = prepared(function)
    execution = run.execution()
    execution.interrupt(Lost())

    assert Lost() == await run.start(execution)
    assert [] == called


@in_virtual_time
async def test_a_run_that_has_failed_does_nothing_more() -> None:
    async def function(step: Step) -> None:
        async def branch() -> None:
            for i in range(6):
                await step.run(f"more-{i}", slow, 1)

        await asyncio.gather(step.run("bad", broken, NonRetryableError("x")), branch())

    run = prepared(function)
    failed(await run.execute(), "NonRetryableError")
    await asyncio.sleep(100)

    assert {"bad": "failed"} == statuses(run)


@in_virtual_time
async def test_a_run_that_has_ended_leaves_no_row_that_says_it_runs() -> None:
    async def function(step: Step) -> None:
        async def bad() -> None:
            await step.run("a", quick)
            raise NonRetryableError("x")

        await asyncio.gather(step.sleep("nap", "1d"), step.run("slow", slow), bad())

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    execution.recorder.announce(-1)
    failed(await task, "NonRetryableError")
    await moments()

    assert "running" not in statuses(run).values()


@in_virtual_time
async def test_what_a_run_left_behind_is_not_kept_in_memory() -> None:
    seen: weakref.WeakSet[Any] = weakref.WeakSet()

    async def function(step: Step) -> None:
        async def branch() -> None:
            await step.sleep("nap", "1d")

        tasks = [asyncio.create_task(branch()) for _ in range(3)]
        seen.update([*tasks, asyncio.get_running_loop(), asyncio.current_task()])
        await asyncio.wait([asyncio.shield(task) for task in tasks])

    run = prepared(function)
    assert isinstance(await run.start(run.execution()), Parked)
    await moments(2)
    gc.collect()

    assert [] == list(seen)


@in_virtual_time
async def test_a_timer_that_is_cancelled_in_the_moment_it_ends_does_not_fire() -> None:
    """The step and the timer end in one turn of the worker's loop, and the step was first."""
    fired: list[int] = []

    async def function(step: Step) -> None:
        fired.clear()
        timer = asyncio.get_running_loop().call_later(5, fired.append, 1)
        await step.run("a", slow, 5)
        timer.cancel()
        await step.sleep("nap", 60)

    run = prepared(function)
    for _ in range(2):
        await run.execute()
        assert [] == fired
        run.wake()


@in_virtual_time
async def test_a_step_function_that_takes_long_to_be_cancelled_bothers_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(60)

    async def function(step: Step) -> None:
        await asyncio.gather(step.run("a", stubborn), step.run("b", slow))

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await moments()
    execution.interrupt(Lost())
    assert Lost() == await task
    del execution, task
    await asyncio.sleep(100)
    gc.collect()

    assert "" == caplog.text


# -- what is refused -----------------------------------------------------------------------------


@in_virtual_time
async def test_a_history_that_a_newer_program_wrote_is_left_to_others_for_a_while() -> None:
    run = prepared(_one_step)
    await run.execute()
    odd: list[RecordedStep] = [row._replace(kind="signal") for row in run.steps]

    outcome = await run.start(run.execution(odd))

    assert isinstance(outcome, Released)
    assert outcome.delay > 0


@in_virtual_time
async def test_a_record_of_another_kind_ends_the_run_although_the_function_catches_everything() -> (
    None
):
    async def before(step: Step) -> None:
        await step.run("a", quick)
        await step.sleep("b", 60)

    async def after(step: Step) -> None:
        with contextlib.suppress(Exception):
            await step.sleep("a", 60)

    run = prepared(before)
    await run.execute()
    run.workflow = workflow(name="w")(after)

    failed(await run.execute(), "NonDeterminism", "'a' was recorded as a step")


@in_virtual_time
async def test_a_replay_that_asks_for_something_else_names_both_steps() -> None:
    async def before(step: Step) -> None:
        await step.run("a", quick)
        await step.run("b", quick)
        await step.sleep("nap", 60)

    async def after(step: Step) -> None:
        await step.run("a", quick)
        await step.run("x", quick)

    run = prepared(before)
    await run.execute()
    run.workflow = workflow(name="w")(after)

    failed(await run.execute(), "NonDeterminism", "has step 'b' next", "asks for step 'x'")
    assert "x" not in statuses(run)


@in_virtual_time
async def test_a_repeated_name_that_comes_with_other_arguments_in_a_replay_is_refused() -> None:
    order = ["a", "b"]

    async def function(step: Step) -> None:
        for name in order:
            await step.run("send", quick, name)
        await step.sleep("nap", 60)

    run = prepared(function)
    await run.execute()
    order[:] = ["a", "c"]

    failed(await run.execute(), "NonDeterminism", "'send:1' was recorded for another function")


@in_virtual_time
async def test_a_step_inside_a_step_is_refused_before_its_effect_and_not_tried_again() -> None:
    called: list[int] = []

    async def function(step: Step) -> None:
        async def outer() -> None:
            called.append(1)
            await step.sleep("inner", 1)

        await step.run("outer", outer)

    failed(await prepared(function).execute(), "ConfigurationError", "'inner'", "inside a step")
    assert [1] == called


@in_virtual_time
async def test_a_forgotten_await_is_told_by_name() -> None:
    async def function(step: Step) -> None:
        step.run("charge", quick)  # type: ignore[unused-coroutine]

    failed(await prepared(function).execute(), "ConfigurationError", "'charge' never ran")


@in_virtual_time
async def test_a_task_that_nobody_waits_for_is_told_by_the_name_of_its_step() -> None:
    async def function(step: Step) -> None:
        task = asyncio.create_task(step.run("charge", slow))
        await step.run("other", quick)
        del task

    failed(await prepared(function).execute(), "ConfigurationError", "'charge' had not ended")


@in_virtual_time
async def test_a_call_that_cannot_work_fails_at_once() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick, 1, 2, 3)

    run = prepared(function)

    failed(await run.execute(), "TypeError", "positional argument")
    assert 1 == len(run.steps)


@in_virtual_time
async def test_a_type_error_of_the_function_itself_is_tried_again() -> None:
    async def function(step: Step) -> None:
        await step.run("a", broken, TypeError("its own"))

    assert isinstance(await prepared(function).execute(), Parked)


@in_virtual_time
async def test_an_option_that_the_function_takes_itself_is_not_eaten() -> None:
    async def wait(timeout: int = 0) -> int:
        return timeout

    async def function(step: Step) -> None:
        await step.run("a", wait, timeout=3)

    failed(await prepared(function).execute(), "ConfigurationError", "functools.partial")


class Panic(BaseException):
    """As extensions in Rust raise them."""


@pytest.mark.parametrize("error", [Panic("p"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
@in_virtual_time
async def test_no_exception_of_the_function_leaves_its_run(error: BaseException) -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick)
        raise error

    async def branch(step: Step) -> None:
        await asyncio.gather(function(step), step.sleep("b", 60))

    for each in (function, branch):
        failed(await prepared(each).execute(), type(error).__name__)


@pytest.mark.parametrize("error", [Panic("p"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
@in_virtual_time
async def test_no_exception_of_a_step_leaves_its_run(error: BaseException) -> None:
    async def effect() -> None:
        raise error

    async def function(step: Step) -> None:
        await step.run("a", effect, retry=RetryPolicy(max_attempts=1))

    async def branch(step: Step) -> None:
        await asyncio.gather(function(step), step.run("b", slow))

    for each in (function, branch):
        failed(await prepared(each).execute(), "RuntimeError")


@in_virtual_time
async def test_a_step_that_is_cancelled_by_what_it_awaits_is_a_failure_like_any_other() -> None:
    async def effect() -> None:
        task = asyncio.create_task(asyncio.sleep(100))
        task.cancel()
        await task

    async def function(step: Step) -> None:
        await step.run("a", effect, retry=RetryPolicy(max_attempts=1))

    failed(await prepared(function).execute(), "RuntimeError", "awaited something that was cancel")


@in_virtual_time
async def test_the_cancellation_of_the_worker_s_task_is_passed_on() -> None:
    run = prepared(_two_branches)
    task = run.start(run.execution())
    await moments()
    task.cancel()
    await asyncio.wait({task}, timeout=10)

    assert task.cancelled() or Lost() == task.result()


# -- other ends ----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_run_continues_as_new_with_another_input() -> None:
    async def function(number: int, step: Step) -> int:
        await step.run("a", quick)
        if number < 3:
            await step.continue_as_new(number + 1)
        return number

    run = prepared(function)
    run.input = "2"
    assert Continued("3") == await run.execute()

    run.input = "3"
    run.journal.rows.clear()
    assert Completed("3") == await run.execute()


@in_virtual_time
async def test_a_run_does_not_continue_as_new_while_a_step_is_unfinished() -> None:
    async def function(step: Step) -> None:
        task = asyncio.create_task(step.run("busy", slow))
        await step.sleep("nap", 1)
        try:
            await step.continue_as_new()
        finally:
            await task

    outcome = await prepared(function).execute()

    failed(outcome, "ConfigurationError", "'busy'", "await them first")


@in_virtual_time
async def test_the_answer_of_a_patch_never_changes_for_a_run() -> None:
    answers: list[bool] = []

    async def before(step: Step) -> None:
        await step.run("a", quick)
        await step.sleep("nap", 60)

    async def after(step: Step) -> None:
        answers.append(await step.patched("early"))
        await step.run("a", quick)
        await step.sleep("nap", 60)
        answers.append(await step.patched("late"))
        await step.sleep("nap-2", 60)

    run = prepared(before)
    await run.execute()
    run.wake()
    run.workflow = workflow(name="w")(after)
    for _ in range(3):
        await run.execute()
        run.wake()

    assert [False, True] * 3 == answers


@in_virtual_time
async def test_an_execution_whose_context_nobody_knows_does_the_same() -> None:
    async def function(step: Step) -> list[Any]:
        first = await step.run("a", quick, 1)
        return [first, *await asyncio.gather(step.run("b", quick, 2), step.run("c", quick, 3))]

    async def nothing(step: Step) -> int:
        return 3

    assert Completed("[1,2,3]") == await prepared(function).execution().run()
    assert Completed("3") == await prepared(nothing).execution().run()


def test_steps_are_coroutines_so_that_asyncio_takes_them() -> None:
    assert inspect.isfunction(Step.run)
    assert not inspect.iscoroutinefunction(Step.run)  # it checks at once, and awaits later
