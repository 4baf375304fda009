"""Workflows of the campaign that are made of others, or take back what they did.

The children of a run are called after it: `JOB/STEP`. What a run had of them it returns under
`=STEP`: the last token of one that succeeded, or `failed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from openworkflow import ChildFailed, MapFailed, Step, workflow
from openworkflow.core.workflow import Workflow
from tests.chaos.shapes import failing, in_order
from tests.chaos.steps import RETRY, Input, Tokens, broken, hold, undo_of, unsteady, work

ITEMS = 9
BAD_ITEM = 4
"""The one that fails."""
AT_ONCE = 3
"""Items of a map that are under way."""
FAILED = "failed"


@workflow
async def child(input: Input, step: Step) -> Tokens:
    """What the others are made of: it waits, so that its parent is parked meanwhile."""
    seen = await in_order(input, step, "a")
    await step.sleep("pause", 0.3)
    return seen | {"b": await step.run("b", work, input, "b", dict(seen))}


@workflow
async def endless(input: Input, step: Step) -> Tokens:
    """A child that only its parent's end can end."""
    seen = await in_order(input, step, [f"s{number}" for number in range(50)], 0.1)
    await step.wait_for_signal("never")
    return seen


@workflow
async def family(input: Input, step: Step) -> Tokens:
    """Children of every kind: awaited, failing, started and awaited later, abandoned, left."""
    seen = {"a": await step.run("a", work, input, "a", {})}
    awaited = await step.run_workflow("awaited", child, _of(input, "awaited"))
    seen["=awaited"] = awaited["b"]
    seen["b"] = await step.run("b", work, input, "b", dict(seen))
    handle = await step.start_workflow("started", child, _of(input, "started"))
    await step.start_workflow("abandoned", child, _of(input, "abandoned"), parent_close="abandon")
    await step.start_workflow("left", endless, _of(input, "left"))
    try:
        await step.run_workflow("failing", failing, _of(input, "failing"))
    except ChildFailed:
        seen["=failing"] = FAILED
    seen["=started"] = (await handle.result())["b"]
    seen["c"] = await step.run("c", work, input, "c", dict(seen))
    return seen


@workflow
async def clan(input: Input, step: Step) -> Tokens:
    """A run that waits for children which go on for longer than anybody lets it."""
    await step.start_workflow("abandoned", child, _of(input, "abandoned"), parent_close="abandon")
    await step.start_workflow("left", endless, _of(input, "left"))
    return await step.run_workflow("awaited", endless, _of(input, "awaited"))


@workflow
async def mapped(input: Input, step: Step) -> Tokens:
    """Maps over functions: one in which one call may fail, one in which none may."""

    async def one(number: int) -> str:
        if number == BAD_ITEM:
            await broken(input, f"i{number}", {})
        if number % 2:
            return await unsteady(input, f"i{number}", {})
        return await hold(input, f"i{number}", {}, 0.05)

    numbers = range(ITEMS)
    answers = await step.map(
        "some", one, numbers, concurrency=AT_ONCE, tolerate_failures=1, retry=RETRY
    )
    seen = _answers("i", answers)
    seen["after"] = await step.run("after", work, input, "after", dict(seen))
    try:
        await step.map("all", broken_item, [input], retry=RETRY)
    except MapFailed:
        seen["=all"] = FAILED
    return seen


async def broken_item(input: Input) -> str:
    """An item that fails."""
    return await broken(input, "none", {})


@workflow
async def spread(input: Input, step: Step) -> Tokens:
    """A map over a workflow, of which one run may fail, a few at a time."""
    items = [_of(input, f"m{number}") | {"fails": number == BAD_ITEM} for number in range(ITEMS)]
    answers = await step.map("all", item, items, concurrency=AT_ONCE, tolerate_failures=1)
    seen = _answers("=m", answers)
    seen["after"] = await step.run("after", work, input, "after", dict(seen))
    return seen


@workflow
async def item(input: Input, step: Step) -> str:
    """One of them."""
    token = await step.run("a", work, input, "a", {})
    if input["fails"]:
        await step.run("b", broken, input, "b", {"a": token})
    await step.sleep("pause", 0.1)
    return await step.run("b", work, input, "b", {"a": token})


@workflow
async def saga(input: Input, step: Step) -> Tokens:
    """Steps that can be undone, in branches too; `way` says how it ends."""
    seen: Tokens = {}

    async def done(key: str, function: Any, *more: Any, fails: bool = False) -> None:
        undo = undo_of(input, key, fails=fails)
        before = dict(seen) if not more else {}
        seen[key] = await step.run(key, function, input, key, before, *more, retry=RETRY, undo=undo)

    await done("a", work)
    await asyncio.gather(done("x", work, 0.08), done("y", work, 0.02, fails=True))
    # One that fails right before the deadline of its run is not tried again, and so ends it.
    await done("b", work if input["way"] == "wait" else unsteady)
    await step.sleep("pause", 0.3)
    await done("c", work)
    if input["way"] == "fail":
        await step.run("z", broken, input, "z", {})
    if input["way"] == "wait":
        await in_order(input, step, [f"s{number}" for number in range(200)], 0.2)
    return seen


COMPOSED: tuple[Workflow[Any, Any], ...] = (
    child,
    endless,
    family,
    clan,
    mapped,
    spread,
    item,
    saga,
)


def _of(input: Input, name: str) -> Input:
    return {"job": f"{input['job']}/{name}", "generation": 0}


def _answers(prefix: str, answers: Sequence[Any]) -> Tokens:
    return {
        f"{prefix}{number}": FAILED if isinstance(answer, Exception) else answer
        for number, answer in enumerate(answers)
        if not isinstance(answer, Exception) or prefix.startswith("=")
    }
