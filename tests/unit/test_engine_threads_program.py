"""Workflows that are plain functions: executed in a thread, with the same laws."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openworkflow import NonRetryableError, RetryPolicy, SyncStep, workflow
from openworkflow.engine.outcome import Completed, Failed, Lost, Outcome, Parked, Released
from tests.memory import Run


def prepared(function: Any) -> Run:
    return Run(workflow(name="w")(function))


async def executed(run: Run, **claim: Any) -> Outcome:
    try:
        return await asyncio.wait_for(run.execute(**claim), 20)
    finally:
        run.threads.close()
        run.threads = type(run.threads)(4, "test")


def identity(value: Any) -> Any:
    return value


def failed(outcome: Outcome, kind: str, said: str = "") -> None:
    assert isinstance(outcome, Failed), outcome
    assert outcome.failure.type.endswith(kind), outcome
    assert said in outcome.failure.message, outcome


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_steps_one_after_the_other_replay_to_the_same_results() -> None:
    called: list[str] = []

    def effect(what: str) -> str:
        called.append(what)
        return what

    def function(step: SyncStep) -> list[str]:
        first = [step.run("a", effect, "a"), step.run("a", effect, "a2")]
        step.sleep("nap", 60)
        return [*first, step.run("b", effect, "b")]

    run = prepared(function)
    assert isinstance(await executed(run), Parked)
    run.wake()

    assert Completed('["a","a2","b"]') == await executed(run)
    assert Completed('["a","a2","b"]') == await executed(run)
    assert ["a", "a2", "b"] == called


async def test_the_error_of_a_step_is_raised_in_its_own_type_now_and_in_a_replay() -> None:
    def effect() -> None:
        raise NonRetryableError("no")

    def function(step: SyncStep) -> str:
        try:
            step.run("a", effect)
        except NonRetryableError as error:
            step.sleep("nap", 60)
            return str(error)
        return ""

    run = prepared(function)
    assert isinstance(await executed(run), Parked)
    run.wake()

    assert Completed('"no"') == await executed(run)


async def test_a_replay_that_asks_for_something_else_is_found_at_once() -> None:
    names = ["a", "b"]

    def function(step: SyncStep) -> None:
        for name in names:
            step.run(name, identity, 1)
        step.sleep("nap", 60)

    run = prepared(function)
    await executed(run)
    names[:] = ["a", "x", "b"]

    failed(await executed(run), "NonDeterminism", "asks for step 'x'")


async def test_a_function_that_returns_before_all_that_was_recorded_is_a_mismatch() -> None:
    go_on = [True]

    def function(step: SyncStep) -> None:
        step.run("a", identity, 1)
        if go_on:
            step.run("b", identity, 1)
            step.sleep("nap", 60)

    run = prepared(function)
    await executed(run)
    go_on.clear()

    failed(await executed(run), "NonDeterminism", "has step 'b' next, but the code returned")


async def test_threads_of_the_function_may_ask_for_steps_with_names_of_their_own() -> None:
    called: list[str] = []

    def effect(what: str) -> str:
        called.append(what)
        return what

    def function(step: SyncStep) -> list[str]:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda name: step.run(name, effect, name), "abc"))

    run = prepared(function)

    assert Completed('["a","b","c"]') == await executed(run)
    assert Completed('["a","b","c"]') == await executed(run)
    assert ["a", "b", "c"] == sorted(called)


async def test_one_name_in_two_threads_is_refused() -> None:
    def function(step: SyncStep) -> None:
        def ask() -> None:
            step.run("a", identity, 1)

        ask()
        errors: list[BaseException] = []

        def other() -> None:
            try:
                ask()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        raise errors[0]

    failed(await executed(prepared(function)), "ConfigurationError", "asked for by two threads")


async def test_a_step_inside_a_step_is_refused() -> None:
    def function(step: SyncStep) -> None:
        step.run("outer", lambda: step.run("inner", identity, 1))

    failed(await executed(prepared(function)), "ConfigurationError", "inside a step")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
async def test_no_exception_of_the_function_leaves_its_run(error: BaseException) -> None:
    def function(step: SyncStep) -> None:
        step.run("a", identity, 1)
        raise error

    assert isinstance(await executed(prepared(function)), Failed)


async def test_a_retry_parks_the_run_until_then() -> None:
    def effect() -> None:
        raise ValueError("x")

    def function(step: SyncStep) -> None:
        step.run("a", effect, retry=RetryPolicy(max_attempts=2, initial=60))

    run = prepared(function)
    assert isinstance(await executed(run), Parked)
    run.wake()

    failed(await executed(run), "ValueError")
    assert [1, 2] == [row.attempt for row in run.steps]


async def test_a_run_stops_while_its_step_runs_and_its_thread_goes_on_alone() -> None:
    inside, leave = threading.Event(), threading.Event()

    def effect() -> None:
        inside.set()
        leave.wait(10)

    def function(step: SyncStep) -> None:
        step.run("a", effect)
        step.run("b", effect)

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await until(inside.is_set)
    execution.interrupt(Lost())
    try:
        assert Lost() == await asyncio.wait_for(task, 10)
    finally:
        leave.set()
        run.threads.close()
    assert [] == run.steps


async def test_a_function_that_swallows_everything_does_not_keep_the_execution() -> None:
    stop = threading.Event()

    def function(step: SyncStep) -> None:
        while not stop.is_set():
            with contextlib.suppress(BaseException):
                step.sleep("nap", "1d")

    run = prepared(function)
    try:
        assert isinstance(await asyncio.wait_for(run.execute(), 10), Parked)
    finally:
        stop.set()
        run.threads.close()


async def test_a_drain_lets_the_step_end_and_begins_nothing_new() -> None:
    inside, leave = threading.Event(), threading.Event()

    def effect() -> str:
        inside.set()
        leave.wait(10)
        return "done"

    def function(step: SyncStep) -> None:
        step.run("a", effect)
        step.run("b", effect)

    run = prepared(function)
    execution = run.execution()
    task = run.start(execution)
    await until(inside.is_set)
    execution.drain()
    leave.set()

    assert Released() == await asyncio.wait_for(task, 10)
    run.threads.close()
    assert [("a", "succeeded")] == [(row.step_name, row.status) for row in run.steps]


async def test_a_drain_after_the_end_changes_nothing() -> None:
    run = prepared(lambda step: step.run("a", identity, 1))
    execution = run.execution()

    outcome = await asyncio.wait_for(run.start(execution), 10)
    execution.drain()  # the worker still records the end
    execution.interrupt(Released())

    run.threads.close()
    assert isinstance(outcome, Completed)
    assert execution.stopped == outcome


async def test_continue_as_new_leaves_the_function() -> None:
    after: list[int] = []

    def function(number: int, step: SyncStep) -> int:
        step.run("a", identity, number)
        leave: Callable[[int], object] = step.continue_as_new
        leave(number + 1)
        after.append(1)
        return number

    run = prepared(function)
    run.input = "1"
    outcome = await executed(run)

    assert "2" == getattr(outcome, "input", None)
    assert [] == after


async def test_a_patch_is_answered_in_the_thread() -> None:
    def function(step: SyncStep) -> list[bool]:
        answers = [step.patched("new")]
        step.sleep("nap", 60)
        return [*answers, step.patched("new")]

    run = prepared(function)
    assert isinstance(await executed(run), Parked)
    run.wake()

    assert Completed("[true,true]") == await executed(run)


async def test_what_a_generator_still_asks_for_at_a_park_is_turned_away_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ignored: list[str] = []
    gc.collect()  # what other tests left is not told to the hook of this one
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: ignored.append(repr(seen.exc_value)))

    def rows(step: SyncStep) -> Iterator[str]:
        try:
            yield step.run("row", identity, "row")
            yield "last"
        finally:
            step.run("close", identity, "closed")

    def function(step: SyncStep) -> list[str]:
        found = []
        for row in rows(step):
            step.sleep(f"after-{row}", 60)
            found.append(row)
        return found

    run = prepared(function)
    assert isinstance(await executed(run), Parked)
    run.wake()
    assert isinstance(await executed(run), Parked)
    run.wake()
    assert '["row","last"]' == _output(await executed(run))
    gc.collect()
    assert [] == ignored


async def test_other_errors_that_python_ignores_are_still_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ignored: list[str] = []
    gc.collect()  # what other tests left is not told to the hook of this one
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: ignored.append(repr(seen.exc_value)))

    class Loud:
        def __del__(self) -> None:
            raise ValueError("mine")

    def function(step: SyncStep) -> None:
        Loud()
        gc.collect()

    await executed(prepared(function))
    assert ["ValueError('mine')"] == ignored


async def test_threads_of_a_function_leave_it_in_silence_when_it_is_parked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda seen: told.append(repr(seen.exc_value)))

    def waits(step: SyncStep) -> None:
        step.sleep("pause", 60)
        raise ValueError("mine")

    started: list[threading.Thread] = []

    def function(step: SyncStep) -> None:
        thread = threading.Thread(target=waits, args=(step,))
        started.append(thread)
        thread.start()
        thread.join()
        step.run("after", identity, 1)

    run = prepared(function)
    assert isinstance(await executed(run), Parked)
    await asyncio.to_thread(started[0].join)
    assert [] == told
    run.wake()
    assert isinstance(await executed(run), Completed)
    assert ["ValueError('mine')"] == told


async def test_a_worker_that_is_torn_down_leaves_no_thread_waiting_and_begins_nothing() -> None:
    """Threads waited forever, which kept the process; or met an AttributeError of ours."""
    seen: list[str] = []
    called: list[str] = []
    over = threading.Event()

    async def long() -> None:
        called.append("long")
        await asyncio.sleep(600)

    def waits(step: SyncStep) -> None:
        for name in ("long", "another"):
            try:
                step.run(name, long)  # type: ignore[unused-coroutine]
            except BaseException as error:
                seen.append(type(error).__name__)
        over.set()

    def function(step: SyncStep) -> None:
        thread = threading.Thread(target=waits, args=(step,))
        thread.start()
        thread.join()

    run = prepared(function)
    task = run.start(run.execution())
    await until(lambda: called)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert await asyncio.to_thread(over.wait, 10)
    assert (["Suspended"] * 2, ["long"]) == (seen, called)
    run.threads.close()


def _output(outcome: Outcome) -> str | None:
    assert isinstance(outcome, Completed), outcome
    return outcome.output
