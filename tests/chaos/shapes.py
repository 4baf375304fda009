"""The plain workflows of the campaign.

A result is the tokens that the function was given, by key, so that the tables can be compared with
the ledger.
"""

from __future__ import annotations

import asyncio
from typing import Any

from openworkflow import Step, SyncStep, workflow
from openworkflow.core.workflow import Workflow
from tests.chaos.steps import (
    RETRY,
    Input,
    Tokens,
    block,
    broken,
    eat,
    idle,
    unsteady,
    work,
    work_and_tell,
    work_at_once,
    work_in_thread,
)

GENERATIONS = 3
SIGNALS = 3
"""That a run of `signaled` is sent."""


@workflow
async def sequential(input: Input, step: Step) -> Tokens:
    """Steps one after the other."""
    return await in_order(input, step, "abc")


@workflow
async def quick(input: Input, step: Step) -> Tokens:
    """Steps that wait for nothing: such runs share a task of their worker."""
    seen: Tokens = {}
    for key in "abc":
        seen[key] = await step.run(key, work_at_once, input, key, dict(seen))
    return seen


@workflow
async def slow(input: Input, step: Step) -> Tokens:
    """Steps that take a while each."""
    return await in_order(input, step, "abcd", float(input.get("seconds", 0.4)))


@workflow
async def parallel(input: Input, step: Step) -> Tokens:
    """Branches with steps and waits, of which the faster one is remembered."""
    seen: Tokens = {}
    order: list[str] = []

    async def branch(name: str, seconds: float) -> None:
        mine: Tokens = {}
        for part in "12":
            key = name + part
            mine[key] = await step.run(key, work, input, key, dict(mine), seconds)
        order.append(name)
        seen.update(mine)

    # The first in the alphabet is the last to end.
    await asyncio.gather(*(branch(name, s) for name, s in (("x", 0.12), ("y", 0.06), ("z", 0.01))))
    seen["=order"] = "".join(order)
    seen["before"] = await step.run("before", work, input, "before", dict(seen))
    await step.sleep("pause", 0.2)
    seen["after"] = await step.run("after", work, input, "after", dict(seen))
    return seen


@workflow
def sync(input: Input, step: SyncStep) -> Tokens:
    """A plain function, its steps in threads."""
    seen: Tokens = {}
    for key in "abc":
        seen[key] = step.run(key, work_in_thread, input, key, dict(seen))
    return seen


@workflow
async def sleeping(input: Input, step: Step) -> Tokens:
    """Sleeps between steps."""
    seen: Tokens = {}
    for key in "abc":
        seen[key] = await step.run(key, work, input, key, dict(seen))
        await step.sleep(f"pause-{key}", float(input.get("seconds", 0.3)))
    return seen


@workflow
async def retrying(input: Input, step: Step) -> Tokens:
    """A step whose first attempt fails, between two others."""
    seen: Tokens = {}
    for key, function in (("a", work), ("b", unsteady), ("c", work)):
        seen[key] = await step.run(key, function, input, key, dict(seen), retry=RETRY)
    return seen


@workflow
async def failing(input: Input, step: Step) -> Tokens:
    """A run that is meant to fail."""
    seen = {"a": await step.run("a", work, input, "a", {})}
    seen["b"] = await step.run("b", broken, input, "b", dict(seen))
    return seen


@workflow
async def late(input: Input, step: Step) -> Tokens:
    """More steps than the deadline of a run leaves time for."""
    return await in_order(input, step, [f"s{number}" for number in range(200)], 0.2)


@workflow
async def doomed(input: Input, step: Step) -> Tokens:
    """A run long enough to be canceled."""
    return await in_order(input, step, [f"s{number}" for number in range(200)], 0.2)


@workflow
async def renewed(input: Input, step: Step) -> Tokens:
    """Continues as new, twice."""
    seen = await in_order(input, step, "ab")
    if input["generation"] + 1 < GENERATIONS:
        await step.continue_as_new({**input, "generation": input["generation"] + 1})
    return seen


@workflow(name="versioned", version="1")
async def versioned_1(input: Input, step: Step) -> Tokens:
    """The old version."""
    return await in_order(input, step, ["one", "two"])


@workflow(name="versioned", version="2")
async def versioned_2(input: Input, step: Step) -> Tokens:
    """The new one."""
    return await in_order(input, step, ["uno", "due"])


@workflow
async def blocking(input: Input, step: Step) -> Tokens:
    """Blocks the event loop of its worker once."""
    seen: Tokens = {}
    for key, function in (("a", work), ("b", block), ("c", work)):
        seen[key] = await step.run(key, function, input, key, dict(seen))
    return seen


@workflow
async def telling(input: Input, step: Step) -> Tokens:
    """Tells what it was given after each step, and waits, so that what comes next is a replay."""
    seen: Tokens = {}
    for key in "abc":
        seen[key] = await step.run(key, work_and_tell, input, key, dict(seen))
        step.emit("seen", [key, seen[key]])
        step.set_status(seen[key])
        await step.sleep(f"pause-{key}", 0.3)
    return seen


@workflow
async def signaled(input: Input, step: Step) -> Tokens:
    """Waits for the numbers that it is sent, between two steps."""
    seen = {"a": await step.run("a", work, input, "a", {})}
    got = [await step.wait_for_signal("number", type=int) for _ in range(SIGNALS)]
    seen["=got"] = " ".join(map(str, got))
    seen["b"] = await step.run("b", work, input, "b", dict(seen))
    return seen


@workflow(build_policy="pinned")
async def built(input: Input, step: Step) -> Tokens:
    """Belongs to the build that began it; its steps take longer than builds are switched."""
    seen: Tokens = {}
    for key in "abc":
        seen[key] = await step.run(key, work, input, key, dict(seen), 0.3)
        await step.sleep(f"pause-{key}", 0.5)
    return seen


@workflow
async def hungry(input: Input, step: Step) -> Tokens:
    """A step that needs much memory, between two others; it is tried until it gets it."""
    seen: Tokens = {}
    for key, function in (("a", work), ("b", eat), ("c", work)):
        seen[key] = await step.run(key, function, input, key, dict(seen), retry=RETRY)
    return seen


@workflow
async def lingering(input: Input, step: Step) -> Tokens:
    """Blocks the event loop of its worker itself, after its last step."""
    seen = {"a": await step.run("a", work, input, "a", {})}
    idle(float(input.get("seconds", 0.5)))
    return seen


WORKFLOWS: tuple[Workflow[Any, Any], ...] = (
    sequential,
    quick,
    slow,
    parallel,
    sync,
    sleeping,
    retrying,
    failing,
    late,
    doomed,
    renewed,
    versioned_1,
    versioned_2,
    blocking,
    telling,
    signaled,
    built,
    hungry,
    lingering,
)


async def in_order(
    input: Input, step: Step, keys: str | list[str], seconds: float = 0.01
) -> Tokens:
    seen: Tokens = {}
    for key in keys:
        # Two results are enough to prove what is recorded; all of them would make long lines.
        last = dict(list(seen.items())[-2:])
        seen[key] = await step.run(key, work, input, key, last, seconds)
    return seen
