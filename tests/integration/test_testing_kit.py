"""The testing kit: time that passes at once, on the real engine. openworkflow.testing, ow_env."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from openworkflow import (
    BackendPostgres,
    ConfigurationError,
    Cron,
    DeadlineExceeded,
    Limit,
    OpenWorkflow,
    Rate,
    RetryPolicy,
    SignalTimeout,
    Step,
    SyncStep,
    Undo,
    WorkflowFailed,
    step,
    workflow,
)
from openworkflow.testing import Environment, NeverEnds, NoSuchStep


async def charge(number: int) -> str:
    return f"payment-{number}"


def ship(number: int) -> str:
    return f"parcel-{number}"


@workflow
async def order(number: int, step: Step) -> str:
    payment = await step.run("charge", charge, number)
    await step.sleep("a-month", "30d")
    return payment + await step.run("ship", ship, number)


async def test_thirty_days_of_sleep_end_at_once(ow_env: Environment) -> None:
    began, start = await ow_env.now(), time.monotonic()
    run = await ow_env.run(order, 7)
    assert run.output == "payment-7parcel-7"
    assert timedelta(days=30) <= await ow_env.now() - began < timedelta(days=31)
    assert time.monotonic() - start < 20
    assert [(each.name, each.kind, each.attempts) for each in run.steps] == [
        ("charge", "run", 1),
        ("a-month", "sleep", 1),
        ("ship", "run", 1),
    ]


async def test_time_stands_still_until_the_test_waits_or_skips(ow_env: Environment) -> None:
    run = await ow_env.start(order, 1)
    await ow_env.settle()
    assert [each.name for each in run.steps] == ["charge", "a-month"]
    await ow_env.skip("29d")
    assert not ow_env.calls("ship")
    await ow_env.skip("25h")
    assert run.status == "succeeded"


async def test_all_that_a_row_says_of_time_is_by_the_tests_clock(ow_env: Environment) -> None:
    await ow_env.skip("365d")
    run = await ow_env.run(order, 1)
    row = await run.handle.run()
    year, now = await ow_env.now() - timedelta(days=32), await ow_env.now()
    steps = (await (await ow_env.client()).get_run(run.id)).steps
    moments = [row.created_at, row.started_at, row.completed_at]
    for moment in [*moments, *(each.created_at for each in steps)]:
        assert moment is not None
        assert year < moment <= now


async def test_each_attempt_of_a_step_comes_after_its_backoff(ow_env: Environment) -> None:
    ow_env.fail("charge", ConnectionError("no route"), times=9)
    began = await ow_env.now()
    run = await ow_env.run(order, 1)
    assert run.step("charge").attempts == 10
    assert [call.attempt for call in ow_env.calls("charge")] == list(range(1, 11))
    assert await ow_env.now() - began > timedelta(days=30, seconds=100)


@workflow
async def approval(what: str, step: Step) -> str:
    try:
        said = await step.wait_for_signal("approve", timeout="3d", type=bool)
    except SignalTimeout:
        return f"{what}: nobody answered"
    return f"{what}: {said}"


async def test_a_wait_for_a_signal_ends_by_it_or_by_its_timeout(ow_env: Environment) -> None:
    assert (await ow_env.run(approval, "a")).output == "a: nobody answered"
    told, late = await ow_env.start(approval, "b"), await ow_env.start(approval, "c")
    await ow_env.skip("71h")
    await told.signal("approve", True)
    assert await told.result() == "b: True"
    assert late.status == "pending"
    assert await late.result() == "c: nobody answered"


async def test_who_waits_for_what_nobody_sends_is_told(ow_env: Environment) -> None:
    @workflow
    async def patient(step: Step) -> None:
        await step.wait_for_signal("go")

    with pytest.raises(NeverEnds, match="waits for signal 'go'"):
        await ow_env.run(patient)
    with pytest.raises(NeverEnds, match=r"nobody serves ordr: await env.serve"):
        await ow_env.run("ordr", 1)


@pytest.mark.parametrize("to_all", [False, True], ids=["to the run", "to a topic"])
async def test_a_signal_that_is_nearly_called_so_is_told(ow_env: Environment, to_all: bool) -> None:
    @workflow
    async def asks(step: Step) -> None:
        await step.wait_for_signal("begin")
        await step.wait_for_signal("approval")

    run = await ow_env.start(asks)
    for name in ("begin", "aproval", "other"):
        await (ow_env.signal(name) if to_all else run.signal(name))

    with pytest.raises(NeverEnds, match="not wait for: 'aproval', did you mean 'approval'"):
        await run.end()


async def test_a_task_of_the_test_may_send_what_is_waited_for(ow_env: Environment) -> None:
    @workflow
    async def patient(step: Step) -> str:
        return await step.wait_for_signal("go", type=str)

    async def send() -> None:
        await ow_env.settle()
        await run.signal("go", "now")

    run = await ow_env.start(patient)
    result, _ = await asyncio.gather(run.result(), send())
    assert result == "now"


async def test_a_worker_of_the_application_takes_what_the_test_does_not_serve(
    ow_env: Environment,
) -> None:
    backend = await BackendPostgres.connect(ow_env.url)
    worker = OpenWorkflow(backend).new_worker(workflows=[order], concurrency=2)
    await worker.start()
    try:
        assert (await ow_env.run("order", 3)).output == "payment-3parcel-3"
    finally:
        await worker.stop()
        await backend.stop()


async def test_a_deadline_comes_at_once(ow_env: Environment) -> None:
    @workflow(deadline="1d")
    async def slow(step: Step) -> None:
        await step.sleep("too-long", "7d")

    with pytest.raises(WorkflowFailed) as failed:
        await ow_env.run(slow)
    assert isinstance(failed.value.__cause__, DeadlineExceeded)


async def test_schedules_fire_at_their_instants(ow_env: Environment) -> None:
    instants: list[datetime | None] = []

    async def note(at: datetime | None) -> None:
        instants.append(at)

    @workflow(schedule=Cron("0 3 * * *"))
    async def nightly(step: Step) -> None:
        await step.run("note", note, step.scheduled_for)

    await ow_env.serve(nightly)
    begin = (await ow_env.now()).replace(hour=12, minute=0) + timedelta(days=1)
    await ow_env.skip_to(begin)
    instants.clear()
    await ow_env.skip("7d")
    days = [begin.date() + timedelta(days=day) for day in range(1, 8)]
    assert instants == [datetime(d.year, d.month, d.day, 3, tzinfo=UTC) for d in days]


async def test_a_run_that_sleeps_lets_schedules_fire_and_does_not_wait_for_them(
    ow_env: Environment,
) -> None:
    @workflow(schedule=Cron("0 3 * * *"))
    async def daily() -> None:
        pass

    await ow_env.serve(daily)
    await ow_env.run(order, 1)
    ended = [run for run in await ow_env.runs(daily) if run.status == "succeeded"]
    assert len(ended) in (30, 31)


async def test_children_are_served_and_their_time_passes_too(ow_env: Environment) -> None:
    @workflow
    async def batch(numbers: list[int], step: Step) -> list[str]:
        first = await step.run_workflow("first", order, numbers[0])
        child = await step.start_workflow("second", approval, "late")
        return [first, await child.result(), *await step.map("rest", order, numbers[1:])]

    run = await ow_env.run(batch, [1, 2, 3])
    assert run.output == [
        "payment-1parcel-1",
        "late: nobody answered",
        "payment-2parcel-2",
        "payment-3parcel-3",
    ]


async def test_a_workflow_that_the_test_serves_stands_for_a_child_of_that_name(
    ow_env: Environment,
) -> None:
    @workflow
    async def parent(step: Step) -> str:
        return await step.run_workflow("child", order, 1)

    @workflow(name="order")
    async def fake(number: int) -> str:
        return f"fake-{number}"

    await ow_env.serve(fake)
    assert (await ow_env.run(parent)).output == "fake-1"
    with pytest.raises(ConfigurationError, match="another workflow called 'order'"):
        await ow_env.run(order, 1)


async def test_orphans_are_canceled_before_time_passes(ow_env: Environment) -> None:
    @workflow
    async def parent(step: Step) -> None:
        await step.start_workflow("child", order, 1)
        await step.sleep("until-it-sleeps", "1d")

    await ow_env.run(parent)
    await ow_env.settle()
    (child,) = await ow_env.runs(order)
    assert child.status == "canceled"


async def test_rates_and_limits_take_no_time(ow_env: Environment) -> None:
    @workflow(limits=[Limit(1)], rate=Rate(1, per="1h"))
    async def scarce(number: int, step: Step) -> int:
        await step.sleep("a-while", "1m")
        return number

    began = await ow_env.now()
    runs = [await ow_env.start(scarce, number) for number in range(4)]
    assert [await run.result() for run in runs] == [0, 1, 2, 3]
    assert timedelta(hours=3) <= await ow_env.now() - began < timedelta(hours=4)


async def test_a_saga_undoes_in_no_time(ow_env: Environment) -> None:
    refunded: list[str] = []

    @workflow
    async def trip(step: Step) -> None:
        await step.run("charge", charge, 1, undo=Undo(refunded.append))
        await step.sleep("cooling-off", "14d")
        await step.run("ship", ship, 1, retry=RetryPolicy(max_attempts=3))

    ow_env.fail("ship", RuntimeError("sold out"), times=3)
    ow_env.fail("undo:charge", ConnectionError(), times=2)
    run = await (await ow_env.start(trip)).end()
    assert run.status == "failed"
    assert refunded == ["payment-1"]
    assert run.step("undo:charge").attempts == 3


async def test_waits_at_the_same_time_pass_in_their_order(ow_env: Environment) -> None:
    runs = await asyncio.gather(*(ow_env.run(order, number) for number in range(5)))
    assert [run.output for run in runs] == [f"payment-{n}parcel-{n}" for n in range(5)]


async def test_branches_of_a_run_have_timers_of_its_own(ow_env: Environment) -> None:
    @workflow
    async def race(step: Step) -> list[str]:
        ended = []

        async def branch(name: str, length: str) -> None:
            await step.sleep(name, length)
            ended.append(name)

        async with asyncio.timeout(3600 * 24 * 3):
            await asyncio.gather(branch("week", "2d"), branch("day", "1d"), branch("now", "0s"))
        return ended

    assert (await ow_env.run(race)).output == ["now", "day", "week"]


def test_a_plain_test_has_the_same_by_env_sync(ow_env: Environment) -> None:
    @workflow
    def plain(number: int, step: SyncStep) -> str:
        step.sleep("a-year", "365d")
        return step.run("ship", ship, number)

    env = ow_env.sync
    ow_env.fail("ship", OSError("no van"), times=2)
    run = env.run(plain, 3)
    assert run.output == "parcel-3"
    assert run.step("ship").attempts == 3
    waiting = env.start(approval, "d")
    env.skip("1d")
    waiting.signal("approve", False)
    assert waiting.result() == "d: False"
    assert [each.status for each in env.runs(approval)] == ["succeeded"]


async def test_a_step_is_given_by_its_function_and_named_when_missed(ow_env: Environment) -> None:
    @step(name="notify-customer")
    async def notify(text: str) -> str:
        raise AssertionError("stubbed")

    @workflow
    async def telling() -> str:
        return await notify("hello")

    ow_env.stub(notify, lambda text: text.upper())
    run = await ow_env.run(telling)
    assert run.output == "HELLO"
    assert ow_env.calls(notify)[0].args == ("hello",)
    with pytest.raises(NoSuchStep, match="did you mean 'notify-customer'"):
        run.step("notify-custmer")


async def test_a_step_that_waits_in_real_time_is_named(ow_env: Environment) -> None:
    forever = asyncio.Event()

    @workflow
    async def hangs(step: Step) -> None:
        await step.run("hang", forever.wait)

    run = await ow_env.start(hangs)
    ow_env.timeout = 0.2
    with pytest.raises(NeverEnds, match="real time 1 runs are executed"):
        await run.end()
    with pytest.raises(NeverEnds, match="does a step wait for something in real time"):
        await ow_env.skip("1d")
