"""`undo=`: what a run did is undone when it does not end well."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from openworkflow import (
    OpenWorkflow,
    RetryPolicy,
    Step,
    SyncStep,
    Undo,
    WorkflowFailed,
    current_step,
    step,
    workflow,
)
from tests.helpers import StartWorker, eventually

DONE: list[str] = []
"""The effects, in their order."""
HOLD = asyncio.Event()


@pytest.fixture(autouse=True)
def _nothing_done() -> Iterator[None]:
    global HOLD  # noqa: PLW0603
    HOLD = asyncio.Event()
    DONE.clear()
    yield


async def book(what: str) -> str:
    DONE.append(f"book {what}")
    return f"{what}-1"


async def free(booking: str) -> None:
    DONE.append(f"free {booking}")


async def refuse(_: Any = None) -> None:
    raise ValueError("no seats")


ONCE = RetryPolicy(max_attempts=1)


@workflow
async def trip(where: str, step: Step) -> None:
    await step.run("hotel", book, "hotel", undo=free)
    await step.run("flight", book, "flight", undo=free)
    await step.run("car", refuse, retry=ONCE)


async def test_a_failure_undoes_what_was_done_in_reverse(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(trip)
    run = await ow.run_workflow(trip, "x")
    with pytest.raises(WorkflowFailed, match="no seats"):
        await run.result(timeout=10)

    assert ["book hotel", "book flight", "free flight-1", "free hotel-1"] == DONE
    found = await ow.get_run(run.id)
    print(found.run.error)
    for each in found.steps:
        print(each.step_name, each.kind, each.status, each.output, each.context)
