"""An execution that stays while its run is parked: what its waits do when the run is claimed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from openworkflow import Step
from openworkflow.core.workflow import current_run
from openworkflow.engine.execution import Execution
from openworkflow.engine.outcome import Completed, Parked
from openworkflow.worker.slots import Slots
from tests.executions import in_virtual_time, prepared
from tests.memory import Run
from tests.virtual_time import Clock

HOUR = timedelta(hours=1)


class _Stays:
    """Stands for the worker's residents: a park is heard of, and the execution stays."""

    def __init__(self, function: Any, rests: float = 0.0) -> None:
        self.run: Run = prepared(function)
        self.run.slots, self.run.rest_seconds = Slots(1, freed=lambda: None), rests
        self.clock = self.run.journal.clock = Clock()  # type: ignore[assignment]
        self.parked: list[datetime | None] = []
        self.execution = self.run.execution()
        self.execution.services = replace(self.execution.services, park=self.park)

    def park(self, execution: Execution, until: datetime | None) -> bool:
        """See Services.park."""
        execution.agenda.go_away()
        self.parked.append(until)
        return True

    async def until_parked(self, times: int) -> None:
        """Wait without any time that passes."""
        for _ in range(1_000):
            if len(self.parked) == times:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"parked {len(self.parked)} times, not {times}")

    def claim(self) -> None:
        """The run is claimed at the time of the database."""
        self.execution.agenda.come_back(self.clock.now())


def _two_sleeps(begun: datetime) -> Any:
    """A function with a sleep of an hour, and another that is over 3.6 s later."""

    async def function(step: Step) -> str:
        await asyncio.gather(step.sleep("a", "1h"), step.sleep_until("b", begun + 1.001 * HOUR))
        return "done"

    return function


@in_virtual_time
async def test_what_is_due_by_the_database_is_over_though_the_workers_clock_stood_still() -> None:
    """As the clock of a machine does that was suspended meanwhile."""
    stays = _Stays(_two_sleeps(Clock().now()))
    task = stays.run.start(stays.execution)
    await stays.until_parked(1)
    stays.clock.ahead = HOUR.total_seconds()
    stays.claim()
    await stays.until_parked(2)
    before = asyncio.get_running_loop().time()
    stays.clock.ahead += 3.6
    stays.claim()

    assert Completed('"done"') == await task
    assert before == asyncio.get_running_loop().time()


@in_virtual_time
async def test_a_rest_after_a_park_is_as_long_as_the_database_says() -> None:
    stays = _Stays(_two_sleeps(Clock().now()), rests=5.0)
    task = stays.run.start(stays.execution)
    await stays.until_parked(1)
    stays.clock.ahead = HOUR.total_seconds()
    stays.claim()

    assert Completed('"done"') == await task
    assert 3.6 == round(asyncio.get_running_loop().time(), 3)


@in_virtual_time
async def test_a_workers_clock_that_is_fast_ends_no_wait_of_a_parked_run() -> None:
    seen: list[str] = []

    async def function(step: Step) -> None:
        async def branch(name: str, duration: timedelta) -> None:
            await step.sleep(name, duration)
            seen.append(name)

        await asyncio.gather(branch("a", HOUR), branch("b", 2 * HOUR))

    stays = _Stays(function)
    task = stays.run.start(stays.execution)
    await stays.until_parked(1)
    await asyncio.sleep(3 * HOUR.total_seconds())
    assert [] == seen
    stays.clock.ahead = -2 * HOUR.total_seconds()
    stays.claim()
    await stays.until_parked(2)
    assert ["a"] == seen
    stays.clock.ahead += HOUR.total_seconds()
    stays.claim()

    assert isinstance(await task, Completed)
    assert ["a", "b"] == seen


@in_virtual_time
async def test_what_is_due_ends_in_the_order_in_which_it_fell_due() -> None:
    seen: list[str] = []

    async def function(step: Step) -> None:
        async def branch(name: str, duration: str) -> None:
            await step.sleep(name, duration)
            seen.append(name)

        await asyncio.gather(branch("c", "3h"), branch("a", "1h"), branch("b", "2h"))

    stays = _Stays(function)
    task = stays.run.start(stays.execution)
    await stays.until_parked(1)
    stays.clock.ahead = 4 * HOUR.total_seconds()
    stays.claim()

    assert isinstance(await task, Completed)
    assert ["a", "b", "c"] == seen


@in_virtual_time
async def test_a_timer_that_was_cancelled_keeps_nothing_of_its_run() -> None:
    """The loop forgets it when it would have been due, which may be days later."""

    async def function(step: Step) -> None:
        await asyncio.gather(step.sleep("a", "1h"), step.sleep("b", "2h"))

    loop: Any = asyncio.get_running_loop()
    first = loop.call_later(60, str)  # behind a timer that stands, cancelled ones are kept
    assert isinstance(await prepared(function).execute(), Parked)

    left = [each for each in loop._scheduled if each is not first]
    assert [True] * 2 == [each.cancelled() and current_run not in each._context for each in left]
