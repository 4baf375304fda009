"""Each parameter of each public call is given odd values: it takes them, or refuses them in words.

A refusal is an error of ours, is no longer than a person reads, and comes before anything reached
the driver, pydantic or asyncio.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openworkflow import (
    BackendPostgres,
    Cron,
    Debounce,
    Limit,
    OpenWorkflow,
    Rate,
    RetryPolicy,
    RunFilter,
    Step,
    Undo,
    Unique,
    step,
    workflow,
)
from openworkflow.testing import Environment
from openworkflow.worker.options import WorkerSettings
from tests.odd_values import ODD, answer, fault, faults, named


async def function(value: int = 1) -> int:
    return value


@workflow
async def counts(input: int, step: Step) -> int:
    return input


DAY = timedelta(days=1)
NIGHTLY = Cron("0 3 * * *", input=1)
RUN_OPTIONS = ("version", "available_at", "deadline", "tags", "priority", "connection")
CALLS: dict[str, Any] = {
    "run_workflow": (
        {"workflow": counts, "input": 1},
        (*RUN_OPTIONS, "idempotency_key", "unique", "debounce"),
    ),
    "run_workflows": ({"workflow": counts, "inputs": [1]}, (*RUN_OPTIONS, "idempotency_keys")),
    "handle": ({"run_id": None}, ("workflow",)),
    "get_run": ({"run_id": None}, ()),
    "get_workflow_run": ({"run_id": None}, ()),
    "explain": ({"run_id": None}, ()),
    "progress": ({"run_id": None}, ()),
    "list_runs": ({}, ("run_filter", "where", "limit", "cursor")),
    "count_runs": ({"where": "status:failed"}, ("action",)),
    "bulk": (
        {"action": "pause", "where": "status:failed"},
        ("per_second", "cursor", "reason", "by"),
    ),
    "fork": ({"run_id": None}, ("from_step", "input", "results", "version", "build")),
    "retry": ({"run_id": None}, ("from_step",)),
    "cancel": ({"run_id": None}, ("force",)),
    "pause": ({"workflow": "other"}, ("run_id", "everything", "reason", "by")),
    "resume": ({"workflow": "other"}, ("run_id", "everything")),
    "wait": ({"run_id": None}, ()),
    "events": ({"run_id": None}, ("topic", "from_offset")),
    "new_worker": ({"workflows": [counts]}, ("concurrency", *WorkerSettings.__annotations__)),
    "schedules.create": (
        {"name": "s", "workflow": counts, "cron": NIGHTLY},
        ("version",),
    ),
    "schedules.update": ({"name": "s", "workflow": counts, "cron": NIGHTLY}, ("version",)),
    "schedules.get": ({"name": "s"}, ()),
    "schedules.pause": ({"name": "s"}, ("reason",)),
    "schedules.resume": ({"name": "s"}, ()),
    "schedules.trigger": ({"name": "s"}, ()),
    "schedules.backfill": (
        {"name": "s", "start": datetime.now(UTC) - DAY, "end": datetime.now(UTC)},
        (),
    ),
    "schedules.delete": ({"name": "other"}, ()),
    "limits.set": ({"name": "l"}, ("slots", "rate")),
    "limits.pause": ({"name": "l", "until": "1s"}, ()),
    "limits.resume": ({"name": "l"}, ()),
    "limits.delete": ({"name": "other"}, ()),
}


@pytest.mark.parametrize("name", CALLS)
async def test_the_client_answers(ow: OpenWorkflow, name: str) -> None:
    ended = await ow.run_workflow(counts, 1)
    await ended.cancel()
    await ow.schedules.create("s", counts, NIGHTLY)
    await ow.limits.set("l", 5)
    sound, optional = CALLS[name]
    if "run_id" in sound:
        sound = sound | {"run_id": ended.id}
    call: Any = ow
    for part in name.split("."):
        call = getattr(call, part)

    assert await faults(call, sound, *optional) == []


async def test_signals_answer(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow(counts, 1)

    async def to_run(to: Any, name: Any, value: Any = 1, **options: Any) -> None:
        await ow.signal(to, name, value, **options)

    async def to_topic(to: Any, value: Any = 1, **options: Any) -> None:
        await ow.signal(to, value, **options)

    options = ("value", "idempotency_key", "connection")
    assert await faults(to_run, {"to": run.id, "name": "n"}, *options) == []
    assert await faults(to_topic, {"to": "topic"}, *options, "keep_for") == []


def used(key: str) -> Callable[..., Any]:
    """A workflow with this option, made known to a worker and started."""

    async def use(ow: OpenWorkflow, made: Any) -> None:
        some = workflow(**{key: made})(counts.fn)
        ow.new_worker(workflows=[some])
        await ow.run_workflow(some, 1)

    return use


async def as_unique(ow: OpenWorkflow, made: Any) -> None:
    await ow.run_workflow(counts, 1, unique=made)


async def as_debounce(ow: OpenWorkflow, made: Any) -> None:
    await ow.run_workflow(counts, 1, debounce=made)


MAKERS: dict[str, Any] = {
    "RetryPolicy": (RetryPolicy, {}, used("retry")),
    "Limit": (Limit, {"slots": 5}, lambda ow, made: used("limits")(ow, [made])),
    "Rate": (Rate, {"count": 5, "per": "1m"}, used("rate")),
    "Cron": (Cron, {"expression": "0 3 * * *"}, used("schedule")),
    "Unique": (Unique, {"key": "k"}, as_unique),
    "Debounce": (Debounce, {"key": "k", "delay": "5s"}, as_debounce),
    "Undo": (Undo, {"fn": function}, None),
    "RunFilter": (RunFilter, {}, None),
}


@pytest.mark.parametrize("name", MAKERS)
async def test_what_options_are_made_of_answers(ow: OpenWorkflow, name: str) -> None:
    make, sound, use = MAKERS[name]

    async def made_and_used(**given: Any) -> None:
        made = make(**given)
        if use is not None:
            await use(ow, made)

    others = [each for each in inspect.signature(make).parameters if each not in sound]
    found = await faults(made_and_used, sound, *others)
    # A key that is a function of the caller's, and fails, is the caller's to mend.
    assert [each for each in found if not each.startswith("key=<built-in function len>")] == []


async def test_decorators_answer() -> None:
    async def made(**options: Any) -> None:
        workflow(**options)(counts.fn)

    async def step_made(**options: Any) -> None:
        step(**options)(function)

    for call, decorator in ((made, workflow), (step_made, step)):
        parameters = inspect.signature(decorator).parameters.values()
        # What takes the options that there are none of is no option.
        named = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
        names = [each for each in named if each != "fn"]
        assert await faults(call, {}, *names) == []


async def test_a_backend_and_a_client_answer(database_url: str, ow: OpenWorkflow) -> None:
    async def connected(**options: Any) -> None:
        backend = await BackendPostgres.connect(**options)
        await backend.stop()

    assert await faults(connected, {"url": database_url}, "namespace_id", "listen_url") == []
    assert await faults(OpenWorkflow, {"backend": ow._backend}, "payload_limit") == []


STEPS: dict[str, Any] = {
    "run": (
        lambda step, name="n", fn=function, **given: step.run(name, fn, **given),
        ("name", "fn", "retry", "timeout", "undo", "rate"),
    ),
    "sleep": (
        lambda step, name="n", duration=0: step.sleep(name, duration),
        ("name", "duration"),
    ),
    "sleep_until": (
        lambda step, name="n", when=datetime(2020, 1, 1, tzinfo=UTC): step.sleep_until(name, when),
        ("name", "when"),
    ),
    "wait_for_signal": (
        lambda step, name="n", timeout=0, type=int, default=0: step.wait_for_signal(
            name, timeout=timeout, type=type, default=default
        ),
        ("name", "timeout", "type", "default"),
    ),
    "signal": (
        lambda step, to="topic", value=1, **given: step.signal(to, value, **given),
        ("to", "value", "idempotency_key", "keep_for"),
    ),
    "pause_limit": (
        lambda step, name="l", until="1s": step.pause_limit(name, until),
        ("name", "until"),
    ),
    "start_workflow": (
        lambda step, name="n", workflow=counts, input=1, **given: step.start_workflow(
            name, workflow, input, **given
        ),
        ("name", "workflow", "input", "parent_close", "tags", "priority", "deadline", "version"),
    ),
    "map": (
        lambda step, name="n", fn=function, items=(1,), **given: step.map(name, fn, items, **given),
        (
            *("name", "fn", "items", "concurrency", "key", "min_successful"),
            *("tolerate_failures", "retry", "timeout"),
        ),
    ),
    "map over a workflow": (
        lambda step, items=(1,), **given: step.map("n", counts, items, **given),
        ("items", "concurrency", "key", "min_successful", "tolerate_failures"),
    ),
    "patched": (lambda step, name="n": step.patched(name), ("name",)),
    "emit": (lambda step, topic="t", value=1: step.emit(topic, value), ("topic", "value")),
    "set_status": (lambda step, value=1: step.set_status(value), ("value",)),
    "tag": (lambda step, **tags: step.tag(**tags), ("a",)),
}
TIMES = ("duration", "when", "timeout", "until", "deadline", "keep_for")


@workflow
async def asks(input: tuple[str, str], step: Step) -> list[str]:
    """What is wrong with the answers to odd values of one parameter."""
    call, parameter = STEPS[input[0]][0], input[1]
    found = []
    for odd in ODD:
        # Some of these are times, and would be waited for; or functions, and would be called; or a
        # hundred thousand items.
        is_time = odd is None or isinstance(odd, (int, float, datetime, timedelta))
        if (parameter in TIMES and is_time) or (parameter in ("fn", "key") and callable(odd)):
            continue
        if parameter == "items" and isinstance(odd, str):
            continue
        try:
            await answer(call, step=step, **{parameter: odd})
        except Exception as error:
            if (told := fault(error)) is not None:
                found.append(f"{parameter}={named(odd)}: {told}")
    return found


@pytest.mark.parametrize("name", STEPS)
async def test_steps_answer(ow_env: Environment, name: str) -> None:
    await ow_env.serve(counts)
    for parameter in STEPS[name][1]:
        run = await ow_env.run(asks, (name, parameter))
        assert run.output == []
