"""Writes of a claim that overtake each other while another claim takes its run over."""

from __future__ import annotations

import asyncio
from typing import Any

from openworkflow import Step
from openworkflow.engine.outcome import Completed, Lost, Outcome, Parked
from tests.executions import in_virtual_time, moments, prepared, statuses
from tests.memory import Run


async def first_of_two(step: Step) -> list[str]:
    """What comes first decides which step is asked for next."""
    seen: list[str] = []
    for each in asyncio.as_completed([step.run("a", takes, "a"), step.run("b", takes, "b")]):
        seen.append(await each)
        await step.run(f"after-{seen[-1]}", takes, f"after-{seen[-1]}")
    return seen


SECONDS = {"a": 1.0, "b": 2.0}


async def takes(name: str) -> str:
    await asyncio.sleep(SECONDS.get(name, 0))
    return name


async def lose(run: Run, seconds: float) -> list[Any]:
    """Execute for so long, under a claim that is then lost; returns the writes under way."""
    execution = run.execution()
    task = run.start(execution)
    await asyncio.sleep(seconds)
    execution.interrupt(Lost())
    await moments()
    under_way, run.journal.waiting = run.journal.waiting, []
    for _, written in under_way:
        written.settle(False)
    assert Lost() == await task
    return [row for row, _ in under_way]


@in_virtual_time
async def test_a_write_that_comes_after_the_next_claim_has_gone_on_without_it_changes_nothing() -> (
    None
):
    """A flush that waits for a lock is overtaken by the next one, and commits after a takeover."""
    run = prepared(first_of_two)
    run.journal.at_once = False
    SECONDS.update(a=1.0, b=2.0)
    a, b = await lose(run, 5)
    assert ("a", 1, "b", 2) == (a.step_name, a.completion_no, b.step_name, b.completion_no)
    run.journal._store(b)  # the second flush is back, and the first is not

    run.journal.at_once = True
    SECONDS.update(a=60.0)
    await lose(run, 5)
    assert ["b", "after-b"] == [row.step_name for row in run.steps if row.completion_no]
    run.journal._store(a)

    outcome: Outcome = await run.execute()

    assert Completed('["b","a"]') == outcome


async def cancels_a_sleep(step: Step) -> str:
    nap = asyncio.create_task(step.sleep("nap", 600))
    decided = await step.run("decide", takes, "decided")
    nap.cancel()
    await asyncio.wait({nap})
    return decided


@in_virtual_time
async def test_a_cancellation_is_not_recorded_before_what_led_to_it() -> None:
    """A worker that died in between left a wait that was cancelled for nothing, and begun again."""
    run = prepared(cancels_a_sleep)
    run.journal.at_once = False
    SECONDS.update(decided=1.0)
    task = run.start(run.execution())
    await moments()
    run.journal.flush()  # the sleep has begun
    await asyncio.sleep(5)

    assert ["decide"] == [row.step_name for row, _ in run.journal.waiting]
    run.journal.flush()
    await moments()
    assert [("nap", True)] == [(row.step_name, row.update) for row, _ in run.journal.waiting]
    while not task.done():
        run.journal.flush()
        await moments()
    run.journal.flush()

    assert Completed('"decided"') == await task
    assert [("decide", "succeeded"), ("nap", "failed")] == sorted(
        (row.step_name, row.status) for row in run.steps
    )


async def gives_up(step: Step) -> None:
    given_up = [
        asyncio.create_task(step.sleep("nap", 600)),
        asyncio.create_task(step.run("call", takes, "call")),
    ]
    await step.run("decide", takes, "decided")
    for each in given_up:
        each.cancel()
    await asyncio.wait(given_up)
    await step.sleep("then", 600)


@in_virtual_time
async def test_what_was_to_be_cancelled_when_its_worker_died_is_cancelled_by_the_next() -> None:
    """The replay came to the cancellation before it had taken up what it cancels, and left it."""
    run = prepared(gives_up)
    run.journal.at_once = False
    SECONDS.update(decided=1.0, call=600.0)
    execution = run.execution()
    task = run.start(execution)
    await moments()
    execution.recorder.announce(0)
    run.journal.flush()  # the sleep and the call have begun
    await asyncio.sleep(5)
    run.journal.flush()  # the decision is there, what it leads to is not
    execution.interrupt(Lost())
    await moments()
    for _, written in run.journal.waiting:
        written.settle(False)
    run.journal.waiting.clear()
    assert Lost() == await task
    assert {"nap": "running", "call": "running", "decide": "succeeded"} == statuses(run)

    run.journal.at_once = True
    assert isinstance(await run.execute(), Parked)

    assert {
        "nap": "failed",
        "call": "failed",
        "decide": "succeeded",
        "then": "running",
    } == statuses(run)
