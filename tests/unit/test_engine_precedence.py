"""What others did and what time did, in the order of the record, interrupted at every write."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openworkflow import Step
from openworkflow.engine.outcome import Completed, Lost, Outcome, Parked, Released
from tests import virtual_time
from tests.executions import prepared, quick
from tests.trials import Interruption, _Journal, interrupting
from tests.unit.test_engine_signals import Letters, begun
from tests.virtual_time import Clock

HOUR = 3600
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""When virtual time begins."""


async def one_after_the_other(step: Step) -> list[Any]:
    found: list[Any] = []
    try:
        async with asyncio.timeout(HOUR):
            for name in "abc":
                found.append(await step.wait_for_signal(name))
    except TimeoutError:
        found.append(await step.run("late", quick, "late"))
    return [*found, await step.wait_for_signal("c")]


async def beside_two_sleeps(step: Step) -> list[Any]:
    found: list[Any] = []

    async def seen(name: str, coming: Any) -> None:
        await coming
        found.append(await step.run(f"see {name}", quick, name))

    async with asyncio.TaskGroup() as group:
        group.create_task(seen("hour", step.sleep("hour", HOUR)))
        group.create_task(seen("half", step.sleep("half", HOUR / 2)))
        for name in "cba":
            group.create_task(seen(name, step.wait_for_signal(name)))
    return found


async def with_times_of_their_own(step: Step) -> list[Any]:
    found: list[Any] = []

    async def seen(name: str, hours: float) -> None:
        found.append(await step.wait_for_signal(name, timeout=hours * HOUR, default=f"no {name}"))

    await asyncio.gather(seen("never", 0.5), seen("a", 1), seen("b", 1), seen("c", 1))
    return [*found, await step.wait_for_signal("c")]


async def among_themselves(step: Step) -> list[Any]:
    found: list[Any] = []

    async def seen(name: str) -> None:
        await step.wait_for_signal(name)
        found.append(await step.run(f"see {name}", quick, name))

    await asyncio.gather(*(seen(name) for name in "cba"))
    return found


async def asked_for_after_another(step: Step) -> list[Any]:
    found: list[Any] = []

    async def seen(*names: str) -> None:
        for name in names:
            found.append(await step.wait_for_signal(name))

    await asyncio.gather(seen("c"), seen("a", "b"))
    return found


async def asked_for_after_a_time(step: Step) -> list[Any]:
    found: list[Any] = []

    async def half() -> None:
        await step.sleep("half", HOUR / 2)
        found.append("half")
        found.append(await step.wait_for_signal("b"))

    async def hour() -> None:
        await step.sleep("hour", HOUR)
        found.append("hour")

    async def late() -> None:
        found.append(await step.wait_for_signal("c"))

    await asyncio.gather(hour(), half(), late())
    return found


async def given_up_before_another_came(step: Step) -> list[Any]:
    found: list[Any] = []

    async def seen(name: str, hours: float | None = None) -> None:
        timeout = None if hours is None else hours * HOUR
        found.append(await step.wait_for_signal(name, timeout=timeout, default=f"no {name}"))

    await asyncio.gather(seen("c"), seen("b"), seen("never", 0.5))
    return found


async def until_times_that_are_over(step: Step) -> list[Any]:
    found: list[Any] = []

    async def until(minutes: int) -> None:
        await step.sleep_until(f"until {minutes}", BEGINNING + timedelta(minutes=minutes))
        found.append(minutes)

    async def after_a() -> None:
        found.append(await step.wait_for_signal("a"))
        await asyncio.gather(until(40), until(20))

    async def late() -> None:
        found.append(await step.wait_for_signal("c"))

    await asyncio.gather(until(50), after_a(), late())
    return found


PROGRAMS: dict[Any, list[Any]] = {
    given_up_before_another_came: ["no never", "b", "c"],
    until_times_that_are_over: ["a", 20, 40, 50, "c"],
    among_themselves: ["a", "b", "c"],
    asked_for_after_another: ["a", "b", "c"],
    asked_for_after_a_time: ["half", "b", "hour", "c"],
    one_after_the_other: ["a", "b", "late", "c"],
    beside_two_sleeps: ["a", "half", "b", "hour", "c"],
    with_times_of_their_own: ["a", "no never", "b", "no c", "c"],
}
"""Signals a, b and c come after a quarter, three quarters and two hours, and nobody looks."""


async def comes_to(function: Any, interruption: Interruption | None = None) -> tuple[Any, int]:
    """The result of a program that is executed again when all is over; how many writes it took."""
    run, letters = prepared(function), Letters()
    run.journal = journal = _Journal()
    journal.clock = clock = Clock()  # type: ignore[assignment]

    async def execute() -> Outcome | None:
        execution, _ = begun(run, letters)
        task = run.start(execution)
        journal.interrupt = interrupting(execution, task)
        await asyncio.wait({task})
        if journal.dead:
            journal.dead = False
            return None
        journal.flush()
        return task.result()

    assert isinstance(await execute(), Parked)
    begins, before = clock.now(), journal.flushed
    for name, hours in (("a", 0.25), ("b", 0.75), ("c", 2)):
        letters.send(run, name, name, sent_at=begins + timedelta(hours=hours))
    clock.pass_until(begins + timedelta(hours=3))
    if interruption is not None:
        journal.interruption = Interruption(interruption.at + before, interruption.how)
    for _ in range(5):
        outcome = await execute()
        if isinstance(outcome, Completed):
            return outcome.output, journal.flushed - before
        journal.interruption = None
        assert outcome is None or isinstance(outcome, Released | Lost), outcome
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda each: each.__name__)
def test_what_was_first_is_first_however_late_and_whatever_interrupts_it(function: Any) -> None:
    result, writes = virtual_time.run(comes_to(function))
    assert PROGRAMS[function] == json.loads(result)
    for at in range(1, writes + 1):
        for how in ("stored", "lost", "drain", "canceled"):
            found, _ = virtual_time.run(comes_to(function, Interruption(at, how)))
            assert result == found, (at, how)


@pytest.mark.parametrize("at", [-1, 1, 5, None])
def test_a_signal_of_whatever_moment_is_taken_before_the_time_is_over(at: float | None) -> None:
    """Whoever inserts a row may give it a moment that has not come."""

    async def waits(step: Step) -> Any:
        return await step.wait_for_signal("s", timeout=2 * HOUR, default="late")

    async def comes() -> Any:
        run, letters = prepared(waits), Letters()
        now = run.journal.clock.now()
        letters.send(run, "s", "s", None if at is None else now + timedelta(hours=at))
        execution, _ = begun(run, letters)
        return await run.start(execution)

    assert Completed('"s"') == virtual_time.run(comes())
