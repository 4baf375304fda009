"""Workflows of the campaign that somebody holds back, counts, repeats or takes elsewhere."""

from __future__ import annotations

from typing import Any

from openworkflow import Limit, Rate, Step, workflow
from openworkflow.core.workflow import Workflow
from tests.chaos.shapes import in_order
from tests.chaos.steps import Input, Tokens, hold, until_mended, work, work_anew

OF_A_KEY, OF_ALL = 2, 3
"""Runs of `limited` that are executed at once."""
APART_SECONDS = 0.4
"""Between the beginnings of two runs of `rated` with one key."""


def _key(input: Input) -> str:
    return str(input["key"])


@workflow(limits=[Limit(OF_A_KEY, key=_key), Limit(OF_ALL)])
async def limited(input: Input, step: Step) -> Tokens:
    """Two steps under limits, and a wait between them, in which the slot is somebody else's."""
    seen = {"a": await step.run("a", hold, input, "a", {})}
    await step.sleep("pause", 0.4)
    return seen | {"b": await step.run("b", hold, input, "b", dict(seen))}


@workflow(rate=Rate(1, per=APART_SECONDS, key=_key))
async def rated(input: Input, step: Step) -> Tokens:
    """One of those that begin one after the other."""
    return await in_order(input, step, "a")


@workflow
async def paced(input: Input, step: Step) -> Tokens:
    """Steps at a rate."""
    seen: Tokens = {}
    for key in "ab":
        rate = Rate(10, per="1s", name="chaos-pace")
        seen[key] = await step.run(key, work, input, key, dict(seen), rate=rate)
    return seen


@workflow
async def single(input: Input, step: Step) -> Tokens:
    """One for its key: it waits between two steps, and has the key all the while."""
    seen = {"a": await step.run("a", hold, input, "a", {})}
    await step.sleep("pause", 0.4)
    return seen | {"b": await step.run("b", hold, input, "b", dict(seen))}


@workflow
async def newest(input: Input, step: Step) -> Tokens:
    """What many calls with a key come to."""
    return await in_order(input, step, "ab")


@workflow
async def occurring(input: Input, step: Step) -> Tokens:
    """What a schedule starts: called after it and its instant."""
    assert step.scheduled_for is not None
    named = {**input, "job": f"{input['job']}@{step.scheduled_for:%Y-%m-%dT%H:%M:%S.%f}"}
    seen = {"a": await step.run("a", hold, named, "a", {}, 0.05)}
    await step.sleep("pause", 0.3)
    return seen | {"b": await step.run("b", hold, named, "b", dict(seen), 0.05)}


@workflow
async def mended(input: Input, step: Step) -> Tokens:
    """Fails until somebody has mended it, and is retried then: its first step stands."""
    seen = {"a": await step.run("a", work, input, "a", {})}
    seen["b"] = await step.run("b", until_mended, input, "b", dict(seen))
    return seen | {"c": await step.run("c", work, input, "c", dict(seen))}


@workflow
async def reopened(input: Input, step: Step) -> Tokens:
    """Fails at its end, and goes on from its second step: what that came to first is no more."""
    first = {"a": await step.run("a", work, input, "a", {})}
    again = await step.run("b", work_anew, input, "b", dict(first))
    await step.run("c", until_mended, input, "c", dict(first))
    return first | {"=b": again}


CONTROLLED: tuple[Workflow[Any, Any], ...] = (
    limited,
    rated,
    paced,
    single,
    newest,
    occurring,
    mended,
    reopened,
)
