"""How runs end, start afresh and are refused: limits, deadlines, continuing as new, retries."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    OpenWorkflow,
    RetryPolicy,
    RunStatus,
    Step,
    WorkflowFailed,
    workflow,
)
from openworkflow.backend import reading
from tests.helpers import StartWorker, eventually

ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = RetryPolicy(max_attempts=0, initial="1ms", factor=1)


class Panic(BaseException):
    """As extensions in Rust raise them."""


async def value(n: Any = None) -> Any:
    return n


# -- deadlines -----------------------------------------------------------------------------------


async def test_the_deadline_of_a_workflow_holds_where_the_run_is_started_by_name(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """Whoever starts it by name does not know it; the worker that claims it does."""

    @workflow(deadline="300ms")
    async def hurried(step: Step) -> None:
        await step.sleep("long", "1d")

    await start_worker(hurried)
    run = await ow.run_workflow("hurried")

    with pytest.raises(WorkflowFailed, match="deadline"):
        await run.result(timeout=20)


async def test_a_run_whose_deadline_passed_before_its_claim_calls_nothing(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection
) -> None:
    calls: list[str] = []

    @workflow
    async def late(step: Step) -> None:
        calls.append("workflow")
        await step.run("step", calls.append, "step")

    run = await ow.run_workflow(late, deadline="1h")
    await sql.execute("UPDATE workflow_runs SET deadline_at = now() - interval '1 second'")
    await start_worker(late)

    with pytest.raises(WorkflowFailed, match="deadline"):
        await run.result(timeout=20)
    assert [] == calls
    assert [] == (await ow.get_run(run.id)).steps


# -- limits and mistakes -------------------------------------------------------------------------


async def test_a_run_has_no_more_step_attempts_than_its_worker_allows(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """Ten steps, or ten failures of one: what a replay has to read is bounded either way."""
    calls: list[int] = []

    async def failing(n: int) -> None:
        calls.append(n)
        raise ValueError("no")

    @workflow
    async def many(step: Step) -> None:
        for n in range(10):
            await step.run(f"step-{n}", value)

    @workflow
    async def stubborn(step: Step) -> None:
        await step.run("fail", failing, 1, retry=AT_ONCE)

    await start_worker(many, stubborn, max_step_attempts=5)

    for each in (many, stubborn):
        run = await ow.run_workflow(each)
        with pytest.raises(WorkflowFailed, match=r"5 step attempts.*continue_as_new"):
            await run.result(timeout=20)
        assert 5 == len((await ow.get_run(run.id)).steps)
    assert 5 == len(calls)


async def test_a_call_that_cannot_work_is_made_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """Another attempt would be made with the same arguments; a TypeError from inside is another."""

    async def takes_two(a: int, b: int) -> int:
        return a + b

    @workflow
    async def wrong(step: Step) -> int:
        return await step.run("add", takes_two, 1)  # type: ignore[call-overload,no-any-return]

    @workflow
    async def inside(step: Step) -> int:
        retry = RetryPolicy(max_attempts=2, initial="1ms")
        return await step.run("add", takes_two, 1, None, retry=retry)

    await start_worker(wrong, inside)
    for each, attempts in ((wrong, 1), (inside, 2)):
        run = await ow.run_workflow(each)
        with pytest.raises(WorkflowFailed, match="TypeError"):
            await run.result(timeout=20)
        assert attempts == len((await ow.get_run(run.id)).steps)


@pytest.mark.parametrize("asked", ["sleep", "sleep_until", "run", "patched", "continue_as_new"])
async def test_nothing_durable_is_asked_for_inside_a_step(
    ow: OpenWorkflow, start_worker: StartWorker, asked: str
) -> None:
    """No replay would come to it; it is refused at once, and before the step succeeds."""
    calls: list[str] = []
    arguments: dict[str, tuple[Any, ...]] = {
        "sleep": ("inner", "1h"),
        "sleep_until": ("inner", None),
        "run": ("inner", calls.append, "inner"),
        "patched": ("inner",),
        "continue_as_new": (),
    }

    @workflow
    async def nested(step: Step) -> None:
        async def outer() -> None:
            calls.append("outer")
            when: Any = (await ow.get_run(run.id)).run.created_at
            given = ("inner", when) if asked == "sleep_until" else arguments[asked]
            await getattr(step, asked)(*given)

        await step.run("outer", outer)

    run = await ow.run_workflow(nested)
    await start_worker(nested)

    with pytest.raises(WorkflowFailed, match="inside a step"):
        await run.result(timeout=20)
    assert ["outer"] == calls
    assert ["failed"] == [each.status for each in (await ow.get_run(run.id)).steps]


async def test_what_no_code_should_catch_costs_its_run_and_neither_worker_nor_neighbours(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """From the function itself, from a branch of it, from a plain function and from its step."""

    async def panics() -> None:
        raise Panic("out of bounds")

    def panics_in_a_thread() -> None:
        raise Panic("out of bounds")

    @workflow
    async def itself() -> None:
        raise Panic("out of bounds")

    @workflow
    async def branch(step: Step) -> None:
        await asyncio.gather(step.run("good", value), panics())

    @workflow
    def plain() -> None:
        raise Panic("out of bounds")

    @workflow
    def cancelled() -> None:
        raise asyncio.CancelledError("out of bounds")

    @workflow
    async def stepped(step: Step) -> None:
        await step.run("panic", panics, retry=ONCE)

    @workflow
    async def threaded(step: Step) -> None:
        await step.run("panic", panics_in_a_thread, retry=ONCE)

    @workflow
    async def neighbour(step: Step) -> str:
        await step.sleep("nap", "50ms")
        return "well"

    hostile = (itself, branch, plain, cancelled, stepped, threaded)
    worker = await start_worker(*hostile, neighbour)
    neighbours = await ow.run_workflows(neighbour, [None] * 5)
    for each in hostile:
        run = await ow.run_workflow(each)
        with pytest.raises(WorkflowFailed, match=r"out of bounds|raised CancelledError"):
            await run.result(timeout=20)
        assert 0 == (await run.run()).crashes

    assert ["well"] * 5 == [await run.result(timeout=20) for run in neighbours]
    assert worker.live()[0]


# -- continuing as new ---------------------------------------------------------------------------


async def test_a_run_continues_as_new_under_its_id_and_whoever_waits_goes_on_waiting(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    seen: list[int] = []

    @workflow
    async def rounds(n: int, step: Step) -> str:
        seen.append(await step.run("round", value, n))
        if n < 3:
            await step.sleep("pause", "10ms")
            await step.continue_as_new(n + 1)
        return f"after {n}"

    run = await ow.run_workflow(rounds, 1)
    waiting = asyncio.ensure_future(run.result(timeout=20))
    await start_worker(rounds)

    assert "after 3" == await waiting
    assert {1, 2, 3} == set(seen)
    details = await ow.get_run(run.id)
    assert (RunStatus.SUCCEEDED, 3) == (details.run.status, details.run.input)
    assert [("round", 3)] == [(each.step_name, each.output) for each in details.steps]


async def test_a_plain_workflow_continues_as_new_too(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    def countdown(n: int, step: Any) -> str:
        step.run("tick", lambda: n)
        if n:
            step.continue_as_new(n - 1)
        return "lift-off"

    await start_worker(countdown)

    assert "lift-off" == await (await ow.run_workflow(countdown, 3)).result(timeout=20)


async def test_a_loop_that_continues_as_new_stays_as_small_as_one_round(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection
) -> None:
    most = 0

    async def rows() -> int:
        nonlocal most
        most = max(most, int(await sql.fetchval("SELECT count(*) FROM step_attempts")))
        return most

    @workflow
    async def loop(n: int, step: Step) -> int:
        await step.run("count", rows)
        await step.run("work", value)
        if n < 100:
            await step.continue_as_new(n + 1)
        return n

    await start_worker(loop)
    run = await ow.run_workflow(loop, 0)

    assert 100 == await run.result(timeout=40)
    assert most <= 2
    assert 2 == len((await ow.get_run(run.id)).steps)


async def test_a_run_that_continues_as_new_cuts_its_timers_short(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    """Whether their rows are there already, or are on their way."""

    @workflow
    async def hurried(n: int, step: Step) -> int:
        asyncio.get_running_loop().call_later(60, value)
        async with asyncio.timeout(60):
            if n % 2:
                await step.run("first", asyncio.sleep, 0.1 * n)
            if n < 4:
                await step.continue_as_new(n + 1)
            await step.sleep("nap", 0.1)
        return n

    await start_worker(hurried)
    run = await ow.run_workflow(hurried, 0)

    assert 4 == await run.result(timeout=20)
    left = await sql.fetch("select step_name, status from step_attempts order by created_at, id")
    assert "running" not in {row["status"] for row in left}
    assert 3 == len(left), left  # two timers and the nap of the last round


async def test_a_run_does_not_continue_as_new_while_it_does_something_else(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def torn(n: int, step: Step) -> None:
        other = asyncio.create_task(step.run("other", asyncio.sleep, 60))
        await step.run("first", value)
        await asyncio.gather(other, step.continue_as_new(n + 1))

    await start_worker(torn)
    run = await ow.run_workflow(torn, 0)

    with pytest.raises(WorkflowFailed, match="'other'; await them first"):
        await run.result(timeout=20)
    assert 0 == (await run.run()).input


# -- retries by hand -----------------------------------------------------------------------------


async def test_a_retry_begins_with_the_failed_branch_though_its_siblings_had_gone_on(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    calls: list[str] = []
    broken, gone_on = [True], asyncio.Event()

    async def charge() -> str:
        calls.append("charge")
        await gone_on.wait()
        if broken[0]:
            raise ValueError("declined")
        return "charged"

    async def called(name: str) -> str:
        calls.append(name)
        return name

    async def hang() -> str:
        calls.append("hang")
        gone_on.set()
        if broken[0]:
            await asyncio.sleep(60)
        return "hung"

    @workflow
    async def order(step: Step) -> tuple[str, list[str]]:
        async def sibling() -> list[str]:
            first = await step.run("pack", called, "pack")
            second = await step.run("label", called, "label")
            return [first, second, await step.run("hang", hang)]

        return await asyncio.gather(step.run("charge", charge, retry=ONCE), sibling())

    await start_worker(order)
    run = await ow.run_workflow(order)
    with pytest.raises(WorkflowFailed, match="declined"):
        await run.result(timeout=20)
    assert ["charge"] == (await run.run()).error["steps"]
    broken[0] = False
    await ow.retry(run.id)

    assert ("charged", ["pack", "label", "hung"]) == await run.result(timeout=20)
    expected = {"charge": 2, "pack": 1, "label": 1, "hang": 2}
    assert expected == {name: calls.count(name) for name in expected}


async def test_a_run_whose_deadline_passes_behind_another_that_blocks_calls_nothing(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection
) -> None:
    """Both come with one claim, and the first holds up the event loop."""
    calls: list[str] = []

    @workflow
    async def blocks(step: Step) -> None:
        threading.Event().wait(0.5)

    @workflow
    async def behind(step: Step) -> None:
        calls.append("workflow")
        await step.run("step", value)

    await ow.run_workflow(blocks)
    last = await ow.run_workflow(behind, deadline="10s")
    await sql.execute(
        "UPDATE workflow_runs SET available_at = now() - interval '1 s'"
        " WHERE workflow_name = 'blocks'"
    )
    await sql.execute(
        """
        CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.deadline_at := clock_timestamp() + interval '300 ms'; RETURN NEW; END $$;
        CREATE TRIGGER hurry BEFORE UPDATE ON workflow_runs FOR EACH ROW
           WHEN (NEW.status = 'running' AND NEW.workflow_name = 'behind') EXECUTE FUNCTION hurry();
        """
    )
    await start_worker(blocks, behind)

    with pytest.raises(WorkflowFailed, match="deadline"):
        await last.result(timeout=20)
    assert [] == calls


# -- two executions of one run -------------------------------------------------------------------


async def test_a_worker_that_gets_its_own_run_again_stops_its_older_execution(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection
) -> None:
    """After an outage: the older one holds no claim, and no heartbeat and no drain reached it."""
    calls: list[str] = []
    stopped = asyncio.Event()

    async def work() -> str:
        calls.append("called")
        if len(calls) > 1:
            return "of the second"
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return "of the first"

    @workflow
    async def twice(step: Step) -> str:
        return await step.run("work", work)

    worker = await start_worker(twice)
    run = await ow.run_workflow(twice)
    await eventually(lambda: calls)
    await sql.execute(
        "UPDATE workflow_runs SET status = 'pending', worker_id = NULL, available_at = now()"
    )

    assert "of the second" == await run.result(timeout=20)
    await asyncio.wait_for(stopped.wait(), 25)
    await eventually(lambda: worker.slots_used == 0)
    steps = (await ow.get_run(run.id)).steps
    assert ["of the second"] == [each.output for each in steps if each.status == "succeeded"]
    await asyncio.wait_for(worker.stop(), 25)


# -- rows that nobody is left to end -------------------------------------------------------------


@pytest.fixture
async def gate(sql: asyncpg.Connection) -> asyncpg.Connection:
    """Holds up rows that say `running`, after their statement has looked at the claim."""
    await sql.execute(
        """
        CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
        CREATE TRIGGER hold_up BEFORE INSERT ON step_attempts
           FOR EACH ROW WHEN (NEW.status = 'running') EXECUTE FUNCTION hold_up();
        SELECT pg_advisory_lock(1);
        """
    )
    return sql


async def test_a_cancellation_waits_for_a_row_that_is_on_its_way_and_ends_it(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    start_worker: StartWorker,
    gate: asyncpg.Connection,
) -> None:
    """28 of 598 canceled runs were left with one, forever: the cancellation could not see it."""

    @workflow
    async def sleeper(step: Step) -> None:
        await step.sleep("long", "1d")

    await start_worker(sleeper)
    run = await ow.run_workflow(sleeper)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = $1 AND NOT granted"
    await eventually(lambda: gate.fetchval(waiting, "advisory"))
    canceling = asyncio.create_task(run.cancel())
    await eventually(lambda: gate.fetchval(waiting, "transactionid"))
    await gate.execute("SELECT pg_advisory_unlock(1)")
    await asyncio.wait_for(canceling, 20)

    steps = (await ow.get_run(run.id)).steps
    assert [("long", "failed")] == [(each.step_name, each.status) for each in steps]
    assert [] == (await backend.diagnostics()).violations


async def test_a_step_whose_result_is_refused_does_not_stay_running_when_its_run_fails(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both where the refusal is met by the next step, and where the run was about to end."""

    async def unreadable(*_: Any) -> bool:
        return False

    # A trigger is no fault of the value's; so the question whether it can be read is answered here.
    monkeypatch.setattr(reading, "reads", unreadable)
    await sql.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF NEW.output = '13' THEN RAISE 'not thirteen' USING ERRCODE = '22023'; END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON step_attempts
          FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )

    @workflow
    async def unlucky(input: bool, step: Step) -> None:
        async def slow() -> int:
            await eventually(lambda: sql.fetchval("SELECT count(*) FROM step_attempts"))
            return 13

        await step.run("slow", slow)
        if input:
            await step.run("next", value)

    await start_worker(unlucky)
    for goes_on in (True, False):
        await sql.execute("DELETE FROM step_attempts")
        run = await ow.run_workflow(unlucky, goes_on)
        with pytest.raises(WorkflowFailed, match="result of step 'slow'"):
            await run.result(timeout=20)
        (step,) = (await ow.get_run(run.id)).steps
        assert ("slow", "failed") == (step.step_name, step.status)
