"""Steps are recorded, replayed, retried and timed out as documented."""

import asyncio
import dataclasses
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    ConfigurationError,
    MapFailed,
    NonRetryableError,
    OpenWorkflow,
    RetryPolicy,
    Step,
    StepTimeout,
    SyncStep,
    WorkflowFailed,
    step,
    workflow,
)
from openworkflow.core.errors import BackendError
from openworkflow.core.serialization import Codec
from tests.helpers import StartWorker, eventually

FAST = RetryPolicy(max_attempts=3, initial="1ms", max_delay="2ms")


class CardDeclined(Exception):
    """A user's own error, with state."""

    def __init__(self, code: str) -> None:
        super().__init__(f"declined: {code}")
        self.code = code


@dataclasses.dataclass
class Order:
    id: int
    total: Decimal
    placed: datetime


async def test_a_result_travels_typed_from_input_to_result(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    seen: list[Any] = []

    async def double(order: Order) -> Order:
        return dataclasses.replace(order, total=order.total * 2)

    @workflow
    async def typed(input: Order, step: Step) -> Order:
        doubled = await step.run("double", double, input)
        seen.append(doubled)
        return doubled

    await start_worker(typed)
    order = Order(1, Decimal("9.90"), datetime(2026, 1, 2, tzinfo=UTC))

    result = await (await ow.run_workflow(typed, order)).result(timeout=20)

    assert dataclasses.replace(order, total=Decimal("19.80")) == result
    assert [result] == seen


async def test_a_failing_step_is_retried_and_each_attempt_is_recorded(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    attempts = []

    async def flaky() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return "done"

    @workflow
    async def retrying(step: Step) -> str:
        return await step.run("flaky", flaky, retry=FAST)

    await start_worker(retrying)
    run = await ow.run_workflow(retrying)

    assert "done" == await run.result(timeout=20)
    details = await ow.get_run(run.id)
    assert ["failed", "failed", "succeeded"] == [s.status for s in details.steps]
    assert [1, 2, 3] == [s.attempt for s in details.steps]


async def test_the_last_error_comes_back_in_its_own_type_live_and_on_replay(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    caught = []

    async def charge() -> None:
        raise CardDeclined("51")

    @workflow
    async def paying(step: Step) -> str:
        try:
            await step.run("charge", charge, retry=RetryPolicy(max_attempts=1))
        except CardDeclined as error:
            caught.append(error.code)
        await step.sleep("pause", 0.05)  # parks the run, so that what is above is replayed
        return "handled"

    await start_worker(paying)

    assert "handled" == await (await ow.run_workflow(paying)).result(timeout=20)
    assert ["51", "51"] == caught


async def test_an_exhausted_step_fails_the_run_at_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    async def charge() -> None:
        raise CardDeclined("05")

    @workflow(retry=RetryPolicy(max_attempts=5))
    async def doomed(step: Step) -> None:
        await step.run("charge", charge, retry=RetryPolicy(max_attempts=2, initial="1ms"))

    await start_worker(doomed)
    run = await ow.run_workflow(doomed)

    with pytest.raises(WorkflowFailed) as failed:
        await run.result(timeout=20)
    assert isinstance(failed.value.__cause__, CardDeclined)
    assert 2 == len((await ow.get_run(run.id)).steps)


async def test_an_error_outside_steps_follows_the_runs_own_policy(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    calls: list[str] = []

    async def once() -> str:
        calls.append("step")
        return "kept"

    @workflow(retry=FAST)
    async def unlucky(step: Step) -> str:
        kept = await step.run("once", once)
        calls.append("body")
        if calls.count("body") < 3:
            raise RuntimeError("again")
        return kept

    await start_worker(unlucky)

    assert "kept" == await (await ow.run_workflow(unlucky)).result(timeout=20)
    assert 1 == calls.count("step")


async def test_errors_of_this_library_raised_by_a_step_are_retried_too(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """A step may enqueue another run, and meet a hiccup of the database."""
    calls = []

    async def hiccup() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise BackendError("the database is starting up")
        return "through"

    @workflow
    async def patient(step: Step) -> str:
        return await step.run("hiccup", hiccup, retry=FAST)

    await start_worker(patient)

    assert "through" == await (await ow.run_workflow(patient)).result(timeout=20)


async def test_non_retryable_errors_spend_one_attempt(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    async def refuse() -> None:
        raise NonRetryableError("no such account")

    @workflow
    async def hopeless(step: Step) -> None:
        await step.run("refuse", refuse)

    await start_worker(hopeless)
    run = await ow.run_workflow(hopeless)

    with pytest.raises(WorkflowFailed, match="no such account"):
        await run.result(timeout=20)
    assert 1 == len((await ow.get_run(run.id)).steps)


def no_such_element() -> str:
    return next(name for name in ("tea", "milk") if name == "gin")


async def awaits_a_cancelled_task() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


async def exits() -> None:
    raise SystemExit(3)


def exits_in_a_thread() -> None:
    raise SystemExit(3)


def interrupts() -> None:
    raise KeyboardInterrupt


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def is_hostile() -> None:
    raise Hostile


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (no_such_element, "RuntimeError: the function raised StopIteration"),
        (awaits_a_cancelled_task, "StepAborted: the step awaited something that was cancelled"),
        (interrupts, "StepAborted: the function raised KeyboardInterrupt"),
        (exits, r"StepAborted: the step called sys.exit\(3\)"),
        (exits_in_a_thread, r"StepAborted: the step called sys.exit\(3\)"),
        (is_hostile, r"Hostile: \(the error cannot be described\)"),
    ],
)
async def test_whatever_a_step_raises_costs_an_attempt_and_not_the_worker(
    ow: OpenWorkflow, start_worker: StartWorker, fn: Any, told: str
) -> None:
    @workflow
    async def raising(step: Step) -> None:
        await step.run("raise", fn, retry=RetryPolicy(max_attempts=2, initial="1ms"))

    await start_worker(raising)
    run = await ow.run_workflow(raising)

    with pytest.raises(WorkflowFailed, match=told):
        await run.result(timeout=20)
    details = await ow.get_run(run.id)
    assert ["failed", "failed"] == [s.status for s in details.steps]
    assert 0 == details.run.crashes


async def _sleeping() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("misuse", "told"),
    [
        (lambda step: step.run("x", _sleeping()), "not a call of it"),
        (lambda step: step.run("x", None), "takes a function to call, not None"),
        (lambda step: step.run("x", _sleeping, retry=3), "retry must be a RetryPolicy"),
        (lambda step: step.run(7, _sleeping), "name must be text of 1 to 200 characters"),
        (
            lambda step: step.run("x", lambda: step.run("y", _sleeping)),
            "step 'y' is asked for inside a step",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine '_sleeping' was never awaited")
async def test_a_step_that_is_asked_for_wrongly_fails_at_once_and_clearly(
    ow: OpenWorkflow, start_worker: StartWorker, misuse: Any, told: str
) -> None:
    @workflow
    async def wrong(step: Step) -> None:
        await misuse(step)

    await start_worker(wrong)

    with pytest.raises(WorkflowFailed, match=told):
        await (await ow.run_workflow(wrong)).result(timeout=20)


async def test_a_step_that_takes_too_long_fails_with_step_timeout(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def slow(step: Step) -> str:
        try:
            await step.run(
                "hang", asyncio.sleep, 60, timeout="50ms", retry=RetryPolicy(max_attempts=1)
            )
        except StepTimeout:
            return "timed out"
        return "ended"

    await start_worker(slow)

    assert "timed out" == await (await ow.run_workflow(slow)).result(timeout=20)


async def test_parallel_steps_overlap_and_are_each_recorded(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    barrier = asyncio.Barrier(3)

    async def meet(name: str) -> str:
        await barrier.wait()
        return name

    @workflow
    async def parallel(step: Step) -> list[str]:
        return list(
            await asyncio.gather(*(step.run(f"meet-{n}", meet, n) for n in ("a", "b", "c")))
        )

    await start_worker(parallel)

    assert ["a", "b", "c"] == await (await ow.run_workflow(parallel)).result(timeout=20)


async def test_a_branch_goes_on_while_another_sleeps(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    order: list[str] = []

    async def note(what: str) -> None:
        order.append(what)

    @workflow
    async def branches(step: Step) -> None:
        async def sleeper() -> None:
            await step.sleep("nap", 0.3)
            await step.run("after-nap", note, "after nap")

        async def busy() -> None:
            await step.run("one", note, "one")
            await step.run("two", note, "two")

        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper())
            group.create_task(busy())

    await start_worker(branches)
    await (await ow.run_workflow(branches)).result(timeout=20)

    assert ["one", "two", "after nap"] == order


async def test_gathered_exceptions_do_not_swallow_a_suspension(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def swallowing(step: Step) -> str:
        results = await asyncio.gather(step.sleep("nap", 0.05), return_exceptions=True)
        try:
            await step.sleep("second", 0.05)
        except Exception:
            return "swallowed"
        return repr(results)

    await start_worker(swallowing)

    assert "[None]" == await (await ow.run_workflow(swallowing)).result(timeout=20)


async def test_a_sleep_parks_the_run_and_costs_no_slot(
    ow: OpenWorkflow, start_worker: StartWorker, sql: "asyncpg.Connection[Any]"
) -> None:
    @workflow
    async def sleeper(step: Step) -> str:
        await step.sleep("nap", "1h")
        return "awake"

    @workflow
    async def quick(step: Step) -> str:
        return "quick"

    await start_worker(sleeper, quick, concurrency=1)
    sleeping = await ow.run_workflow(sleeper)

    assert "quick" == await (await ow.run_workflow(quick)).result(timeout=20)
    assert "pending" == (await sleeping.run()).status
    for change in ("step_attempts set resume_at", "workflow_runs set available_at"):
        await sql.execute(f"update {change} = now() where {change.split()[-1]} > now()")
    assert "awake" == await sleeping.result(timeout=20)


async def test_sleep_until_a_time_in_the_past_is_no_wait(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def late(step: Step) -> str:
        await step.sleep_until("yesterday", datetime.now(UTC) - timedelta(days=1))
        return "on"

    await start_worker(late)

    assert "on" == await (await ow.run_workflow(late)).result(timeout=20)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_decorated_function_brings_its_options_to_run_and_map(
    ow: OpenWorkflow, start_worker: StartWorker, is_async: bool
) -> None:
    calls: list[Any] = []

    def refund(charged: str) -> None:
        calls.append(("refund", charged))

    @step(retry=RetryPolicy(max_attempts=2, initial="1ms"), undo=refund)
    def charge(name: str) -> str:
        calls.append(name)
        if calls.count(name) < 2:
            raise OSError("busy")
        return name

    @step(retry=RetryPolicy(max_attempts=1))
    def once(n: int) -> int:
        calls.append(n)
        raise OSError("never")

    @workflow
    async def given(step: Step) -> None:
        await step.run("a", charge, "a")
        await step.run("b", partial(charge, "b"))
        with pytest.raises(MapFailed):
            await step.map("c", once, [1, 2], concurrency=1)
        with pytest.raises(ConfigurationError, match="not undone"):
            await step.map("d", charge, ["d"])
        await step.run("e", once, 5, retry=FAST)

    @workflow
    def given_in_a_thread(step: SyncStep) -> None:
        step.run("a", charge, "a")
        step.run("b", partial(charge, "b"))
        with pytest.raises(MapFailed):
            step.map("c", once, [1, 2], concurrency=1)
        with pytest.raises(ConfigurationError, match="not undone"):
            step.map("d", charge, ["d"])
        step.run("e", once, 5, retry=FAST)

    given_to = given if is_async else given_in_a_thread
    await start_worker(given_to)
    with pytest.raises(WorkflowFailed, match="never"):
        await (await ow.run_workflow(given_to)).result(timeout=20)

    assert ["a", "a", "b", "b", 1] == calls[:5]
    assert [5, 5, 5, ("refund", "b"), ("refund", "a")] == calls[-5:]


async def test_decorated_functions_are_durable_inside_and_plain_outside(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    calls = []

    @step(retry=FAST)
    async def fetch(n: int) -> int:
        calls.append(n)
        return n * 10

    @step
    def render(n: int) -> str:
        return f"<{n}>"

    @workflow
    async def decorated(input: int) -> str:
        value = await fetch(input)
        return await render(value)  # type: ignore[no-any-return]

    await start_worker(decorated)
    run = await ow.run_workflow(decorated, 4)

    assert "<40>" == await run.result(timeout=20)
    assert ["fetch", "render"] == [s.step_name for s in (await ow.get_run(run.id)).steps]
    assert 20 == await fetch(2)
    assert "<7>" == render(7)


async def test_sync_workflows_and_steps_run_in_threads(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    def block(seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    @workflow
    def plain(input: str, step: SyncStep) -> str:
        first = step.run("block", block, 0.01)
        step.sleep("nap", 0.05)
        return f"{input}: {first}"

    await start_worker(plain)

    assert "hi: slept" == await (await ow.run_workflow(plain, "hi")).result(timeout=20)


async def test_the_same_name_twice_gets_an_ordinal(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    async def value(n: int) -> int:
        return n

    @workflow
    async def repeated(step: Step) -> int:
        return sum([await step.run("value", value, n) for n in (1, 2, 3)])

    await start_worker(repeated)
    run = await ow.run_workflow(repeated)

    assert 6 == await run.result(timeout=20)
    assert ["value", "value:1", "value:2"] == [
        s.step_name for s in (await ow.get_run(run.id)).steps
    ]


@pytest.mark.parametrize("value", [float("nan"), "nul\0", "\ud800", object(), "x" * 2_000_000])
async def test_a_value_that_cannot_be_stored_fails_its_step_once_and_clearly(
    ow: OpenWorkflow, start_worker: StartWorker, value: Any
) -> None:
    calls = []

    async def bad() -> Any:
        calls.append(1)
        return value

    @workflow
    async def unstorable(step: Step) -> None:
        await step.run("bad", bad)

    await start_worker(unstorable)
    run = await ow.run_workflow(unstorable)

    with pytest.raises(WorkflowFailed, match="result of step 'bad'"):
        await run.result(timeout=20)
    assert [1] == calls


async def test_a_long_step_is_visible_while_it_runs(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    release = asyncio.Event()

    @workflow
    async def long(step: Step) -> str:
        await step.run("wait", release.wait)
        return "done"

    await start_worker(long)
    run = await ow.run_workflow(long)

    async def running() -> bool:
        return ["running"] == [s.status for s in (await ow.get_run(run.id)).steps]

    await eventually(running)
    release.set()
    assert "done" == await run.result(timeout=20)
    assert ["succeeded"] == [s.status for s in (await ow.get_run(run.id)).steps]


@pytest.mark.parametrize("steps_after", [0, 1])
async def test_a_run_whose_result_of_a_step_the_database_refuses_fails_with_that(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    steps_after: int,
) -> None:
    """It does not succeed without its last step; its neighbours in the flush do."""
    encode = Codec.encode

    def broken(self: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return '"\\u0000"' if value == -1 else encode(self, value, *args, **kwargs)

    monkeypatch.setattr(Codec, "encode", broken)

    @workflow
    async def record(input: int, step: Step) -> str:
        await step.run("decrement", lambda: input - 1)
        for number in range(steps_after):
            await step.run(f"after-{number}", lambda: 1)
        return "done"

    runs = await ow.run_workflows(record, [1, 0, 2])
    await start_worker(record)

    assert ["done", "done"] == [await run.result(timeout=20) for run in (runs[0], runs[2])]
    with pytest.raises(WorkflowFailed, match="result of step 'decrement'"):
        await runs[1].result(timeout=20)
    assert [] == (await ow.get_run(runs[1].id)).steps
