"""One execution by itself, in memory and in virtual time, and the steps that tests give it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from openworkflow import Step, Workflow, workflow
from openworkflow.engine.outcome import Failed, Outcome
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


async def one_step(step: Step) -> None:
    await step.run("slow", slow)


async def two_branches(step: Step) -> None:
    await asyncio.gather(step.run("a", slow), step.run("b", slow))
