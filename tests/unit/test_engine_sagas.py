"""Undoing, without a database: every order of writes and crashes, and what it costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openworkflow import NonRetryableError, RetryPolicy, Step, Undo, workflow
from openworkflow.core.step_attempt import StepStatus
from openworkflow.engine.outcome import Canceled, Completed, Failed, Outcome, Undoing
from tests.executions import failed, in_virtual_time, moments, prepared, slow
from tests.memory import Run

ONCE = RetryPolicy(max_attempts=1)


class World:
    """What the steps of a run do, in its order."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def make(self, what: str) -> str:
        self.done.append(f"make {what}")
        return what

    async def drop(self, what: str) -> None:
        self.done.append(f"drop {what}")

    async def lost(self, key: str) -> None:
        self.done.append(f"lost {key.rpartition('/')[2].partition(':')[0]}")


def saga(world: World) -> Run:
    async def flow(step: Step) -> None:
        undo = Undo(world.drop, uncertain=world.lost)
        await step.run("a", world.make, "a", undo=undo)
        await step.run("plain", world.make, "plain")
        await asyncio.gather(
            step.run("b", world.make, "b", undo=undo), step.run("c", world.make, "c", undo=undo)
        )
        raise NonRetryableError("no")

    return prepared(flow)


def cancel(run: Run) -> None:
    """What the statement of a cancellation does."""
    execution = run.execution()
    execution.recorder.decide('{"end": "canceled"}')
    run.journal.flush()


async def to_its_end(run: Run) -> Outcome:
    """Executed again and again, until it has ended."""
    outcomes = [await run.execute()]
    while not isinstance(outcomes[-1], Completed | Failed | Canceled):
        assert len(outcomes) < 20
        outcomes.append(await run.execute())
    return outcomes[-1]


@in_virtual_time
async def test_steps_are_undone_in_the_reverse_of_the_order_in_which_they_ended() -> None:
    world = World()
    run = saga(world)
    assert isinstance(await run.execute(), Undoing)
    outcome = await run.execute()
    failed(outcome, "NonRetryableError")
    assert isinstance(outcome, Failed)
    assert outcome.undo == {"undone": ["c", "b", "a"], "not_undone": {}}
    assert world.done[4:] == ["drop c", "drop b", "drop a"]
    assert all(row.status != StepStatus.RUNNING for row in run.steps)


@pytest.mark.parametrize("durable", range(24))
@pytest.mark.parametrize("canceled", [False, True], ids=["failed", "canceled"])
@in_virtual_time
async def test_a_crash_at_any_write_undoes_nothing_twice_that_was_recorded(
    durable: int, canceled: bool
) -> None:
    """The worker dies after so many writes were durable; the next ones live."""
    world = World()
    run = saga(world)
    run.journal.at_once = False
    left, executing = durable, None
    while left >= 0:
        executing = run.start(run.execution())
        while left >= 0 and not executing.done():
            await moments(20)
            if run.journal.waiting:
                left -= 1
                run.journal.held = left >= 0
                run.journal.flush(1)
        if executing.done() and isinstance(executing.result(), Completed | Failed):
            break
    while executing is not None and not executing.done():  # dead: nothing more is recorded
        run.journal.flush()
        await moments(20)
    run.journal.flush()
    run.journal.at_once = run.journal.held = True
    undone = {
        row.step_name.partition(":")[2]
        for row in run.steps
        if row.kind == "undo" and row.status == StepStatus.SUCCEEDED and ":" in row.step_name
    }
    made = {row.step_name for row in run.steps if row.status == StepStatus.SUCCEEDED} & set("abc")
    begun = {row.step_name for row in run.steps} & set("abc")
    decided = any(row.step_name == "undo" for row in run.steps)
    before = len(world.done)
    if canceled and not decided:
        cancel(run)
    outcome = await to_its_end(run)

    after = world.done[before:]
    for key in undone:
        assert f"drop {key}" not in after
        assert f"lost {key}" not in after
    if canceled and not decided:
        assert isinstance(outcome, Canceled)
        assert not [each for each in after if each.startswith("make")]
        assert {f"drop {key}" for key in made - undone} <= set(after)
        assert {f"lost {key}" for key in begun - made} <= set(after)
    else:
        failed(outcome, "NonRetryableError")
        for key in "abc":
            assert f"drop {key}" in world.done
    assert all(row.status != StepStatus.RUNNING for row in run.steps)


@in_virtual_time
async def test_a_run_without_undo_writes_what_it_did_before() -> None:
    async def flow(step: Step) -> None:
        await step.run("a", slow, 0.0)
        raise NonRetryableError("no")

    run = prepared(flow)
    failed(await run.execute(), "NonRetryableError")
    assert run.journal.writes == 1
    assert run.steps[0].context is None


@in_virtual_time
async def test_a_step_is_recorded_as_begun_before_it_is_called() -> None:
    seen: list[str] = []

    async def flow(step: Step) -> None:
        await step.run("a", look, undo=print)

    run = prepared(flow)

    async def look() -> None:
        seen.extend(row.status for row in run.steps)

    assert isinstance(await run.execute(), Completed)
    assert seen == ["running"]


@in_virtual_time
async def test_a_claim_that_is_lost_before_a_step_begins_calls_nothing() -> None:
    """A cancellation comes before the step, or finds that it has begun."""
    world = World()
    run = saga(world)
    run.journal.held = False
    await run.execute()
    assert world.done == []


@pytest.mark.parametrize("wrong", [1, "refund", Undo(1), Undo(slow, uncertain=2)])  # type: ignore[arg-type]
@in_virtual_time
async def test_an_undo_that_is_no_function_is_refused(wrong: Any) -> None:
    async def flow(step: Step) -> None:
        await step.run("a", slow, undo=wrong)

    run = prepared(flow)
    failed(await run.execute(), ":ConfigurationError", "step 'a'", "undo takes a function")


@in_virtual_time
async def test_a_step_that_raised_has_nothing_to_undo_and_one_that_timed_out_may_have() -> None:
    world = World()

    async def flow(step: Step) -> None:
        undo: Any = Undo(world.drop, uncertain=world.lost)
        calls: list[Any] = [("raised", broken, None), ("timed-out", slow, "1s")]
        for name, fn, timeout in calls:
            try:
                await step.run(name, fn, retry=ONCE, timeout=timeout, undo=undo)
            except Exception as error:
                world.done.append(type(error).__name__)
        raise NonRetryableError("no")

    async def broken() -> None:
        raise ValueError

    outcome = await to_its_end(prepared(flow))
    assert isinstance(outcome, Failed)
    assert [*["ValueError", "StepTimeout"], "ValueError", "lost timed-out"] == world.done


@in_virtual_time
async def test_the_result_of_a_step_is_undone_as_it_was_recorded() -> None:
    """Not as the workflow has changed it since."""
    got: list[Any] = []

    async def make() -> list[int]:
        return [1]

    async def flow(step: Step) -> None:
        (await step.run("a", make, undo=got.append)).append(2)
        raise NonRetryableError("no")

    await to_its_end(prepared(flow))
    assert got == [[1]]


@in_virtual_time
async def test_calls_of_one_name_are_undone_each_for_itself() -> None:
    world = World()

    async def flow(step: Step) -> None:
        for what in "xyz":
            await step.run("make", world.make, what, undo=world.drop)
        raise NonRetryableError("no")

    await to_its_end(prepared(flow))
    assert world.done[3:] == ["drop z", "drop y", "drop x"]


@in_virtual_time
async def test_a_run_at_its_limit_of_attempts_is_undone() -> None:
    world = World()

    async def flow(step: Step) -> None:
        for number in range(9):
            await step.run(f"s{number}", world.make, str(number), undo=world.drop)

    run = Run(workflow(name="w")(flow), limit=3)
    outcome = await to_its_end(run)
    failed(outcome, "TooManySteps")
    assert world.done[3:] == ["drop 2", "drop 1", "drop 0"]


def test_an_option_that_the_function_takes_too_is_refused() -> None:
    async def takes(undo: bool = False) -> None: ...

    async def flow(step: Step) -> None:
        await step.run("a", takes, undo=print)

    async def test() -> None:
        failed(await prepared(flow).execute(), ":ConfigurationError", "'undo' itself")

    asyncio.run(test())
