"""`step.patched`: which path a run takes, and that it never changes its mind."""

from typing import Any

import pytest

from openworkflow import OpenWorkflow, RunHandle, Step, SyncStep, WorkflowFailed, workflow
from tests.helpers import StartWorker, eventually

#: The path taken, by what was called.
CALLS: dict[str, list[str]] = {}


def note(run: str, what: str) -> str:
    CALLS.setdefault(run, []).append(what)
    return what


def before(after: str = "1h") -> Any:
    """The code from before the patch."""

    @workflow(name="tax")
    async def old(input: str, step: Step) -> list[str]:
        first = await step.run("first", note, input, "first")
        tax = await step.run("tax", note, input, "old tax")
        await step.sleep("pause", after)
        return [first, tax, await step.run("last", note, input, "last")]

    return old


def patched(pause: str = "1ms") -> Any:
    """The code with both paths."""

    @workflow(name="tax")
    async def both(input: str, step: Step) -> list[str]:
        first = await step.run("first", note, input, "first")
        if await step.patched("new-tax"):
            tax = await step.run("new tax", note, input, "new tax")
        else:
            tax = await step.run("tax", note, input, "old tax")
        await step.sleep("pause", pause)
        again = "new" if await step.patched("new-tax") else "old"
        return [first, tax, await step.run("last", note, input, again)]

    return both


def afterwards() -> Any:
    """The code from which the patch was taken out again."""

    @workflow(name="tax")
    async def new(input: str, step: Step) -> list[str]:
        first = await step.run("first", note, input, "first")
        tax = await step.run("new tax", note, input, "new tax")
        await step.sleep("pause", "1ms")
        return [first, tax, await step.run("last", note, input, "last")]

    return new


async def asleep(run: RunHandle[Any]) -> bool:
    return (await run.run()).status == "pending"


async def parked(ow: OpenWorkflow, start_worker: StartWorker, code: Any) -> RunHandle[Any]:
    """A run that the code has brought to its pause."""
    run = await ow.run_workflow(code, f"run-{id(code)}")
    worker = await start_worker(code)
    await eventually(lambda: _sleeps(ow, run))
    await worker.stop()
    return run


async def _sleeps(ow: OpenWorkflow, run: RunHandle[Any]) -> bool:
    details = await ow.get_run(run.id)
    return details.run.status == "pending" and "pause" in {s.step_name for s in details.steps}


async def test_a_new_run_takes_the_new_path_and_says_so(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    code = patched()
    await start_worker(code)

    run = await ow.run_workflow(code, "new")

    assert ["first", "new tax", "new"] == await run.result(timeout=20)
    steps = [s.step_name for s in (await ow.get_run(run.id)).steps]
    assert ["first", "patched:new-tax", "new tax", "pause", "last"] == steps


async def test_a_run_that_was_past_the_point_keeps_the_old_path(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    run = await parked(ow, start_worker, before("200ms"))

    await start_worker(patched())

    assert ["first", "old tax", "old"] == await run.result(timeout=20)
    assert "patched:new-tax" not in {s.step_name for s in (await ow.get_run(run.id)).steps}


async def test_the_answer_stays_after_a_replay_and_after_the_patch_is_taken_out(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    run = await parked(ow, start_worker, patched("200ms"))

    await start_worker(afterwards())

    assert ["first", "new tax", "last"] == await run.result(timeout=20)


async def test_taking_the_patch_out_too_early_is_told(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    run = await parked(ow, start_worker, before("200ms"))

    await start_worker(afterwards())

    with pytest.raises(
        WorkflowFailed, match="has step 'tax' next, but the code asks for step 'new"
    ):
        await run.result(timeout=20)


async def test_a_plain_function_may_ask_too(ow: OpenWorkflow, start_worker: StartWorker) -> None:
    @workflow
    def plain(step: SyncStep) -> bool:
        return step.patched("new")

    await start_worker(plain)

    assert await (await ow.run_workflow(plain)).result(timeout=20)


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb"])
async def test_a_name_that_cannot_be_shown_is_refused(
    ow: OpenWorkflow, start_worker: StartWorker, name: str
) -> None:
    @workflow
    async def asks(step: Step) -> bool:
        return await step.patched(name)

    await start_worker(asks)

    with pytest.raises(WorkflowFailed, match="a patch's name must be text of 1 to 100"):
        await (await ow.run_workflow(asks)).result(timeout=20)


async def test_a_step_is_not_taken_for_a_patch(ow: OpenWorkflow, start_worker: StartWorker) -> None:
    @workflow
    async def odd(step: Step) -> None:
        await step.run("patched:new", lambda: 1)

    await start_worker(odd)

    with pytest.raises(WorkflowFailed, match="may not begin with 'patched:'"):
        await (await ow.run_workflow(odd)).result(timeout=20)
