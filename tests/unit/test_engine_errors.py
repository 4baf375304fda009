"""What one execution refuses, and what it makes of the errors of user code."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from openworkflow import RetryPolicy, Step, StepAborted, workflow
from openworkflow.core.recorded import RecordedStep
from openworkflow.engine.outcome import (
    Completed,
    Lost,
    Outcome,
    Parked,
    Released,
)
from tests.executions import (
    broken,
    failed,
    in_virtual_time,
    moments,
    one_step,
    prepared,
    quick,
    slow,
    statuses,
    two_branches,
)


@in_virtual_time
async def test_a_history_that_a_newer_program_wrote_is_left_to_others_for_a_while() -> None:
    run = prepared(one_step)
    await run.execute()
    odd: list[RecordedStep] = [row._replace(kind="fable") for row in run.steps]

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
        await step.run("a", quick, 1, 2, 3)  # type: ignore[call-overload]

    run = prepared(function)

    failed(await run.execute(), "TypeError", "positional argument")
    assert 1 == len(run.steps)


@in_virtual_time
async def test_a_misspelt_option_of_a_step_is_answered_with_the_one_that_was_meant() -> None:
    async def function(step: Step) -> None:
        await step.run("a", quick, 1, timout=2)  # type: ignore[call-arg]

    run = prepared(function)

    said = "unexpected keyword argument 'timout'; did you mean 'timeout', the option of step.run?"
    failed(await run.execute(), "TypeError", said)
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
        failed(await prepared(each).execute(), "StepAborted")


@in_virtual_time
async def test_a_step_that_is_cancelled_by_what_it_awaits_is_a_failure_like_any_other() -> None:
    async def effect() -> None:
        task = asyncio.create_task(asyncio.sleep(100))
        task.cancel()
        await task

    async def function(step: Step) -> None:
        await step.run("a", effect, retry=RetryPolicy(max_attempts=1))

    failed(await prepared(function).execute(), "StepAborted", "awaited something that was cancel")


@in_virtual_time
async def test_the_cancellation_of_the_worker_s_task_is_passed_on() -> None:
    run = prepared(two_branches)
    task = run.start(run.execution())
    await moments()
    task.cancel()
    await asyncio.wait({task}, timeout=10)

    assert task.cancelled() or Lost() == task.result()


@in_virtual_time
async def test_a_failed_step_tells_its_type_when_it_is_tried_again_and_how_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In any format: that of the application knows nothing of the run in progress."""

    async def declined() -> None:
        raise ValueError("declined")

    async def function(step: Step) -> None:
        retry = RetryPolicy(max_attempts=3, initial=0.5, jitter=0)
        await step.run("charge", declined, retry=retry)

    caplog.set_level("INFO")
    run = prepared(function)
    outcome: Outcome = Parked(None)
    while isinstance(outcome, Parked):
        outcome = await run.execute()
        await asyncio.sleep(1)
    failed(outcome, "ValueError", "declined")

    said = [record.getMessage() for record in caplog.records]
    assert [
        "step 'charge' failed, attempt 1 of 3, next in 0.5 s: ValueError: declined",
        "step 'charge' failed, attempt 2 of 3, next in 1.0 s: ValueError: declined",
        "step 'charge' failed, attempt 3 of 3, not tried again: ValueError: declined",
    ] == [each.partition(" (run ")[0] for each in said]
    assert all(each.endswith("of workflow 'w')") for each in said)
    traces = [record.exc_text or "" for record in caplog.records]
    assert ["in declined" in each for each in traces] == [True, False, True]


@in_virtual_time
async def test_a_step_that_ends_as_a_program_does_is_an_error_of_its_own_in_every_replay() -> None:
    """It was a RuntimeError, which nobody could tell from one that the function had raised."""
    calls: list[int] = []

    async def exits() -> None:
        calls.append(1)
        raise SystemExit(3)

    async def function(step: Step) -> str:
        try:
            await step.run("a", exits, retry=RetryPolicy(max_attempts=1))
        except StepAborted as error:
            return str(error)
        return "it went on"

    run = prepared(function)
    first, again = await run.execute(), await run.execute()

    assert issubclass(StepAborted, RuntimeError)  # as which it was caught before
    assert isinstance(first, Completed)
    assert first == again
    assert "sys.exit(3)" in (first.output or "")
    assert [1] == calls
