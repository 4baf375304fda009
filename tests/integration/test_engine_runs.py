"""The life of a run: replay, versions, deadlines, cancellation, drain, crashes, lost claims."""

import asyncio
import contextlib
import gc
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    OpenWorkflow,
    RetryPolicy,
    RunStatus,
    Step,
    WorkflowCanceled,
    WorkflowFailed,
    workflow,
)
from tests.helpers import StartWorker, eventually


async def value(n: Any = None) -> Any:
    return n


async def _sql(database_url: str, statement: str, *args: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        return list(await connection.fetch(statement, *args))
    finally:
        await connection.close()


async def _replay_now(database_url: str, run_id: Any) -> None:
    """Make a parked run due."""
    await _sql(
        database_url,
        "UPDATE workflow_runs SET available_at = now() WHERE id = $1 AND status = 'pending'",
        run_id,
    )
    await _sql(
        database_url,
        "UPDATE step_attempts SET resume_at = now() WHERE workflow_run_id = $1 AND kind = 'sleep'",
        run_id,
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["a", "x"], "has step 'b' next, but the code asks for step 'x'"),
        (["a"], "has step 'b' next, but the code returned"),
    ],
)
async def test_a_replay_that_does_not_match_fails_and_names_both_steps(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    database_url: str,
    changed: list[str],
    expected: str,
) -> None:
    @workflow(name="changing")
    async def before(step: Step) -> None:
        for name in ("a", "b"):
            await step.run(name, value)
        await step.sleep("long", "1d")

    worker = await start_worker(before)
    run = await ow.run_workflow(before)
    await eventually(lambda: _parked(ow, run.id))
    await worker.stop()

    @workflow(name="changing")
    async def after(step: Step) -> None:
        for name in changed:
            await step.run(name, value)

    await start_worker(after)
    await _replay_now(database_url, run.id)

    with pytest.raises(WorkflowFailed, match=expected):
        await run.result(timeout=20)


async def _parked(ow: OpenWorkflow, run_id: Any) -> bool:
    details = await ow.get_run(run_id)
    return details.run.status is RunStatus.PENDING and bool(details.steps)


async def test_a_step_that_became_a_sleep_is_named_as_such(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    @workflow(name="kinds")
    async def before(step: Step) -> None:
        await step.run("pause", value)
        await step.sleep("long", "1d")

    worker = await start_worker(before)
    run = await ow.run_workflow(before)
    await eventually(lambda: _parked_with(ow, run.id, 2))
    await worker.stop()

    @workflow(name="kinds")
    async def after(step: Step) -> None:
        await step.sleep("pause", "1d")

    await start_worker(after)
    await _replay_now(database_url, run.id)

    with pytest.raises(WorkflowFailed, match="'pause' was recorded as a step"):
        await run.result(timeout=20)


async def _parked_with(ow: OpenWorkflow, run_id: Any, steps: int) -> bool:
    details = await ow.get_run(run_id)
    return details.run.status is RunStatus.PENDING and len(details.steps) == steps


async def test_an_interrupted_branch_is_not_mistaken_for_a_mismatch(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    """One branch was in the middle of a step while another had recorded two: a valid history."""
    hold = asyncio.Event()
    calls: list[str] = []

    async def slow() -> str:
        calls.append("slow")
        await hold.wait()
        return "slow"

    async def fast(name: str) -> str:
        calls.append(name)
        return name

    @workflow
    async def two_branches(step: Step) -> list[Any]:
        async def second() -> str:
            await step.run("f1", fast, "f1")
            return await step.run("f2", fast, "f2")

        return list(await asyncio.gather(step.run("slow", slow), second()))

    worker = await start_worker(two_branches, drain=timedelta(0))
    run = await ow.run_workflow(two_branches)
    await eventually(lambda: calls.count("f2") == 1)
    await eventually(lambda: _recorded(ow, run.id, 2))
    await worker.stop()
    hold.set()
    await start_worker(two_branches)

    assert ["slow", "f2"] == await run.result(timeout=20)
    assert ["slow", "f1", "f2", "slow"] == calls


async def _recorded(ow: OpenWorkflow, run_id: Any, count: int) -> bool:
    steps = (await ow.get_run(run_id)).steps
    return sum(s.status == "succeeded" for s in steps) == count


async def test_versions_live_side_by_side_and_a_run_keeps_its_own(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow(name="versioned", version="1")
    async def first(step: Step) -> str:
        await step.sleep("nap", 0.05)
        return "one"

    @workflow(name="versioned", version="2")
    async def second(step: Step) -> str:
        return "two"

    await start_worker(first, second)
    runs = [await ow.run_workflow(first), await ow.run_workflow(second)]

    assert ["one", "two"] == [await r.result(timeout=20) for r in runs]


async def test_a_worker_never_claims_what_it_does_not_serve(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def served(step: Step) -> str:
        return "served"

    await start_worker(served)
    foreign = await ow.run_workflow("foreign", {"a": 1})
    other_version = await ow.run_workflow("served", version="9")

    assert "served" == await (await ow.run_workflow(served)).result(timeout=20)
    for run in (foreign, other_version):
        assert RunStatus.PENDING is await run.status()
        assert 0 == (await ow.get_run(run.id)).run.claim_no


async def test_a_run_past_its_deadline_fails_while_it_runs_and_while_it_sleeps(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def running(step: Step) -> None:
        await step.run("hang", asyncio.sleep, 60)

    @workflow
    async def sleeping(step: Step) -> None:
        await step.sleep("long", "1d")

    await start_worker(running, sleeping)
    runs = [await ow.run_workflow(w, deadline="300ms") for w in (running, sleeping)]

    for run in runs:
        with pytest.raises(WorkflowFailed, match="deadline"):
            await run.result(timeout=20)


async def test_a_retry_that_would_pass_the_deadline_fails_the_run_early(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    async def broken() -> None:
        raise ValueError("still broken")

    @workflow
    async def impatient(step: Step) -> None:
        await step.run("broken", broken, retry=RetryPolicy(initial="1h", max_delay="1h"))

    await start_worker(impatient)
    run = await ow.run_workflow(impatient, deadline="10m")

    with pytest.raises(WorkflowFailed, match="still broken"):
        await run.result(timeout=20)


async def test_cancelling_reaches_running_code_and_pending_runs(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    heard, started = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.set()
            raise

    @workflow
    async def endless(step: Step) -> None:
        await step.run("hang", hang)

    await start_worker(endless, lease=timedelta(seconds=3))
    run = await ow.run_workflow(endless)
    await asyncio.wait_for(started.wait(), 20)
    await eventually(lambda: _visibly_running(ow, run.id))
    await run.cancel()
    await run.cancel()  # idempotent

    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=20)
    await asyncio.wait_for(heard.wait(), 20)
    assert [] == [s for s in (await ow.get_run(run.id)).steps if s.status == "running"]

    delayed = await ow.run_workflow(endless, available_at="1d")
    await delayed.cancel()
    assert RunStatus.CANCELED is await delayed.status()


async def _visibly_running(ow: OpenWorkflow, run_id: Any) -> bool:
    return ["running"] == [s.status for s in (await ow.get_run(run_id)).steps]


async def test_a_drain_lets_a_step_end_hands_back_and_spends_no_attempt(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    async def first() -> str:
        calls.append("first")
        started.set()
        await release.wait()
        return "first"

    async def second() -> str:
        calls.append("second")
        return "second"

    @workflow
    async def drained(step: Step) -> str:
        return await step.run("first", first) + await step.run("second", second)

    worker = await start_worker(drained)
    run = await ow.run_workflow(drained)
    await asyncio.wait_for(started.wait(), 20)
    stopping = asyncio.ensure_future(worker.stop())
    await eventually(lambda: worker.ready() == (False, "draining"))
    release.set()
    await stopping

    details = await ow.get_run(run.id)
    assert RunStatus.PENDING is details.run.status
    assert (0, 0) == (details.run.attempts, details.run.crashes)
    assert ["first"] == calls

    await start_worker(drained)
    assert "firstsecond" == await run.result(timeout=20)
    assert ["first", "second"] == calls


async def test_a_drain_without_grace_hands_back_in_mid_step(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.sleep(60)

    @workflow
    async def endless(step: Step) -> None:
        await step.run("hang", hang)

    worker = await start_worker(endless, drain=timedelta(0))
    run = await ow.run_workflow(endless)
    await asyncio.wait_for(started.wait(), 20)
    await worker.stop()

    details = await ow.get_run(run.id)
    assert RunStatus.PENDING is details.run.status
    assert details.run.worker_id is None


async def test_a_run_that_kills_its_workers_is_failed_with_that_reason(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    @workflow
    async def pill(step: Step) -> None:
        raise AssertionError("must not be executed")

    run = await ow.run_workflow(pill)
    await _sql(
        database_url,
        "UPDATE workflow_runs SET status = 'running', worker_id = 'dead/1', claim_no = 5, "
        "crashes = 4, available_at = now() - interval '1 s' WHERE id = $1",
        run.id,
    )
    await start_worker(pill, max_crashes=5)

    with pytest.raises(WorkflowFailed, match="5 workers died"):
        await run.result(timeout=20)


async def test_nothing_is_recorded_after_the_claim_was_lost(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    async def first() -> str:
        started.set()
        await release.wait()
        return "stale"

    async def second() -> None:
        calls.append("second")

    @workflow
    async def robbed(step: Step) -> None:
        await step.run("first", first)
        await step.run("second", second)

    worker = await start_worker(robbed)
    run = await ow.run_workflow(robbed)
    await asyncio.wait_for(started.wait(), 20)
    await _sql(
        database_url,
        "UPDATE workflow_runs SET claim_no = claim_no + 1, worker_id = 'thief/1' WHERE id = $1",
        run.id,
    )
    release.set()
    await eventually(lambda: worker.slots_used == 0)

    details = await ow.get_run(run.id)
    assert [] == [s for s in details.steps if s.status == "succeeded"]
    assert [] == calls
    assert "thief/1" == details.run.worker_id


async def test_work_goes_on_after_every_connection_was_cut(
    ow: OpenWorkflow, start_worker: StartWorker, database_url: str
) -> None:
    @workflow
    async def steady(step: Step) -> int:
        return sum([await step.run(f"s{n}", value, n) for n in range(20)])

    await start_worker(steady, lease=timedelta(seconds=3))
    runs = await ow.run_workflows(steady, [None] * 50)
    await _sql(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )

    assert [190] * 50 == [await r.result(timeout=60) for r in runs]
    for run in runs:
        assert 20 == len((await ow.get_run(run.id)).steps)


async def test_a_retried_run_goes_on_from_the_step_that_failed_it(
    ow: OpenWorkflow, start_worker: StartWorker, backend: BackendPostgres
) -> None:
    calls: list[str] = []
    broken = [True]

    async def first() -> None:
        calls.append("first")

    async def second() -> None:
        calls.append("second")
        if broken[0]:
            raise ValueError("broken")

    @workflow
    async def fixable(step: Step) -> str:
        await step.run("first", first)
        await step.run("second", second, retry=RetryPolicy(max_attempts=1))
        return "fixed"

    await start_worker(fixable)
    run = await ow.run_workflow(fixable)
    with pytest.raises(WorkflowFailed):
        await run.result(timeout=20)
    broken[0] = False
    await ow.retry(run.id)

    assert "fixed" == await run.result(timeout=20)
    assert ["first", "second", "second"] == calls


async def test_finished_runs_are_freed_without_the_garbage_collector(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """A worker's memory is flat, and the collector has nothing to walk for."""

    @workflow
    async def short(step: Step) -> int:
        return await step.run("value", value, 1)

    await start_worker(short)
    await (await ow.run_workflow(short)).result(timeout=20)
    gc.collect()
    gc.disable()
    try:
        for run in await ow.run_workflows(short, [None] * 100):
            await run.result(timeout=20)
        garbage = gc.collect()
    finally:
        gc.enable()

    assert garbage < 100


async def test_a_cancellation_that_nobody_asked_for_fails_the_run_at_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    async def careless() -> None:
        raise asyncio.CancelledError("a connection was closed")

    await start_worker(careless)
    run = await ow.run_workflow(careless)

    with pytest.raises(WorkflowFailed, match="CancelledError: a connection was closed"):
        await run.result(timeout=20)


async def test_a_sync_workflow_that_raises_stop_iteration_fails_at_once(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    @workflow
    def exhausted() -> str:
        return next(iter(()))

    await start_worker(exhausted)
    run = await ow.run_workflow(exhausted)

    with pytest.raises(WorkflowFailed, match="the function raised StopIteration"):
        await run.result(timeout=20)


# What is left of it ignores its end to the last, and Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_canceled_workflow_that_catches_everything_does_not_block_the_others(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    waits, enough = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        waits.set()
        await asyncio.sleep(60)

    @workflow
    async def stubborn(step: Step) -> None:
        while not enough.is_set():
            with contextlib.suppress(BaseException):
                await step.run("wait", wait)

    @workflow
    async def neighbour(step: Step) -> Any:
        return await step.run("value", value, 1)

    await start_worker(stubborn, neighbour)
    run = await ow.run_workflow(stubborn)
    await asyncio.wait_for(waits.wait(), 20)
    await run.cancel()
    with pytest.raises(WorkflowCanceled):
        await run.result(timeout=20)

    assert 1 == await (await ow.run_workflow(neighbour)).result(timeout=20)
    enough.set()
