"""What runs tell, in the database: once, in order, by the fence, and gone with the run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from openworkflow import OpenWorkflow, Step, SyncStep, current_step, workflow
from openworkflow.backend.backend import BackendPostgres
from openworkflow.core.workflow_run import RunStatus
from tests.helpers import StartWorker, eventually


async def nothing() -> None:
    pass


async def work(step_events: int) -> None:
    for number in range(step_events):
        current_step().emit("work", number)
    current_step().set_status({"done": step_events})


@workflow
async def tells(step: Step) -> None:
    step.emit("stage", "begins")
    step.tag(stage="begun")
    await step.run("work", work, 3)
    step.emit("stage", {"name": "ends"})
    step.tag(stage="ended", more="yes")


@workflow
def tells_in_a_thread(step: SyncStep) -> None:
    for number in range(5):
        step.emit("stage", number)
    step.set_status("counted")
    step.tag(stage="ended")


@workflow
async def tells_and_waits(step: Step) -> None:
    step.emit("stage", 1)
    step.set_status("waits")
    await step.wait_for_signal("go")
    step.emit("stage", 2)
    step.set_status("goes on")


async def rows(sql: Any) -> list[tuple[Any, ...]]:
    found = await sql.fetch(
        "select topic, value::text, step_name, attempt from workflow_events order by event_no"
    )
    return [tuple(row) for row in found]


async def test_what_a_run_tells_is_stored_with_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    await start_worker(tells)
    run = await ow.run_workflow(tells, tags={"customer": "acme"})
    await run.result(timeout=20)

    assert await rows(sql) == [
        ("stage", '"begins"', None, None),
        ("work", "0", "work", 1),
        ("work", "1", "work", 1),
        ("work", "2", "work", 1),
        ("stage", '{"name": "ends"}', None, None),
    ]
    progress = await run.progress()
    assert {"done": 3} == progress.status
    assert 5 == progress.events
    assert {"customer": "acme", "stage": "ended", "more": "yes"} == (await run.run()).tags
    found = await ow.list_runs(where="tag.stage:ended tag.customer:acme")
    assert [run.id] == [each.id for each in found.runs]


async def test_a_plain_workflow_tells_too(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    await start_worker(tells_in_a_thread)
    run = await ow.run_workflow(tells_in_a_thread)
    await run.result(timeout=20)

    assert list(map(str, range(5))) == [row[1] for row in await rows(sql)]
    assert "counted" == (await run.progress()).status
    assert {"stage": "ended"} == (await run.run()).tags


async def test_a_run_that_waits_has_told_and_goes_on_in_another_worker(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    first = await start_worker(tells_and_waits)
    run = await ow.run_workflow(tells_and_waits)
    await eventually(lambda: _waits(sql))
    assert "waits" == (await run.progress()).status
    await first.stop()

    await start_worker(tells_and_waits)
    await run.signal("go")
    await run.result(timeout=20)

    assert ["1", "2"] == [row[1] for row in await rows(sql)]
    assert "goes on" == (await run.progress()).status


async def _waits(sql: Any) -> bool:
    found = "select status = 'pending' and claim_no > 0 from workflow_runs"
    return bool(await sql.fetchval(found))


async def test_a_run_that_told_nothing_has_no_row_and_no_statement(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    @workflow
    async def quiet(step: Step) -> None:
        await step.run("a", nothing)

    await start_worker(quiet)
    run = await ow.run_workflow(quiet)
    await run.result(timeout=20)

    progress = await run.progress()
    assert (None, None, 0) == (progress.status, progress.status_at, progress.events)
    assert 0 == await sql.fetchval("select count(*) from workflow_progress")


async def test_what_was_told_goes_with_the_run(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker, sql: Any
) -> None:
    await start_worker(tells)
    for _ in range(3):
        await (await ow.run_workflow(tells)).result(timeout=20)
    kept = await ow.run_workflow(tells)
    await kept.result(timeout=20)
    await sql.execute(
        "update workflow_runs set completed_at = now() - interval '2 days' where id <> $1", kept.id
    )

    async for _ in backend.prune([RunStatus.SUCCEEDED], timedelta(days=1)):
        pass

    for table in ("workflow_events", "workflow_progress"):
        owners = await sql.fetch(f"select distinct workflow_run_id from {table}")
        assert [kept.id] == [row[0] for row in owners]


async def test_a_retry_by_hand_tells_anew_what_comes_after_the_last_recorded_step(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    broken = asyncio.Event()

    async def fails_once() -> None:
        if not broken.is_set():
            raise KeyError("away")

    @workflow
    async def recovers(step: Step) -> None:
        from openworkflow import RetryPolicy

        step.emit("t", "first")
        await step.run("a", nothing)
        try:
            await step.run("b", fails_once, retry=RetryPolicy(max_attempts=1))
        except KeyError:
            step.emit("t", "failed")
            raise
        step.emit("t", "worked")
        await step.run("c", nothing)
        step.emit("t", "end")

    await start_worker(recovers)
    run = await ow.run_workflow(recovers)
    await eventually(lambda: _failed(sql))
    broken.set()
    await ow.retry(run.id)
    await run.result(timeout=20)

    assert ['"first"', '"failed"', '"worked"', '"end"'] == [row[1] for row in await rows(sql)]


async def _failed(sql: Any) -> bool:
    return bool("failed" == await sql.fetchval("select status from workflow_runs"))


async def test_a_run_that_goes_on_for_ever_keeps_the_events_of_its_last_two_beginnings(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    @workflow
    async def again(count: int, step: Step) -> None:
        step.emit("t", count)
        await step.run("a", nothing)
        if count < 5:
            await step.continue_as_new(count + 1)

    await start_worker(again)
    run = await ow.run_workflow(again, 0)
    await run.result(timeout=20)

    assert ["4", "5"] == [row[1] for row in await rows(sql)]
    assert 6 == (await run.progress()).events


async def test_a_claim_that_is_lost_tells_nothing_more(
    ow: OpenWorkflow, start_worker: StartWorker, sql: Any
) -> None:
    gone = asyncio.Event()

    async def until_gone() -> None:
        current_step().emit("t", "mine")
        await gone.wait()
        current_step().emit("t", "not mine any more")

    @workflow
    async def loses(step: Step) -> None:
        await step.run("work", until_gone)

    await start_worker(loses)
    run = await ow.run_workflow(loses)
    await eventually(lambda: sql.fetchval("select exists (select from workflow_events)"))
    await sql.execute("update workflow_runs set claim_no = claim_no + 1")
    gone.set()
    await asyncio.sleep(0.5)

    assert ['"mine"'] == [row[1] for row in await rows(sql)]
    await run.cancel()
