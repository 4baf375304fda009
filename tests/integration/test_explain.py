"""Why runs are not done, asked of a real database; test_explanation has each sentence."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    Cron,
    OpenWorkflow,
    Rate,
    RetryPolicy,
    Step,
    Undo,
    workflow,
)
from openworkflow.backend.backend import NewRun
from openworkflow.cli.doctor import judge
from openworkflow.core.errors import RunNotFound
from openworkflow.core.explanation import Explanation, Reason
from openworkflow.core.ids import uuid7
from openworkflow.core.standing import word
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import claim_one, end_of, expire_leases, flush, step_of
from tests.helpers import StartWorker, eventually

HOUR = timedelta(hours=1)


async def decline() -> None:
    raise ValueError("no money")


@workflow
async def sleeper(step: Step) -> None:
    await step.sleep("a-day", "24h")


@workflow
async def asker(step: Step) -> None:
    await step.wait_for_signal("approval", timeout="1d")


@workflow
async def retrier(step: Step) -> None:
    await step.run("charge", decline, retry=RetryPolicy(initial="1h", max_delay="1h"))


async def parked(ow: OpenWorkflow, run_id: UUID) -> Explanation:
    """The explanation once the run waits."""

    async def is_parked() -> bool:
        told = await ow.explain(run_id)
        return told.status == RunStatus.PENDING and bool(told.waits)

    await eventually(is_parked)
    return await ow.explain(run_id)


async def test_a_run_that_sleeps_and_one_that_is_to_be_tried_again(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(sleeper, retrier)
    sleeps, retries = await ow.run_workflow(sleeper), await ow.run_workflow(retrier)

    asleep, again = await parked(ow, sleeps.id), await parked(ow, retries.id)

    assert (Reason.SLEEPING, Reason.RETRYING) == (asleep.reason, again.reason)
    assert asleep.waits[0].until == asleep.until
    assert "attempt 1 of step 'charge' failed with ValueError: no money" in again.sentence
    with pytest.raises(RunNotFound):
        await ow.explain(uuid7())


async def test_a_list_tells_in_a_word_where_each_run_stands_as_the_explanation_does(
    backend: BackendPostgres, ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """All of them were "pending"."""
    await start_worker(sleeper, retrier, asker)
    waiting = [await ow.run_workflow(each) for each in (sleeper, retrier, asker)]
    for each in waiting:
        await parked(ow, each.id)
    later = await ow.run_workflow(sleeper, available_at="1h")
    nobodys = await ow.run_workflow("shipper")
    paused = await ow.run_workflow("retrier", available_at="1h")
    await ow.pause(paused.id)
    done = (await ow.run_workflow(sleeper, available_at="1h")).id
    await ow.cancel(done)
    runs = (await ow.list_runs()).runs

    known = await backend.control.standings([run.id for run in runs])
    words = {run.id: word(run, known.get(run.id), await backend.control.served()) for run in runs}

    assert done not in known
    assert "canceled" == words.pop(done)
    assert "unserved" == words[nobodys.id]
    assert ("scheduled", "paused") == (words[later.id], words[paused.id])
    assert ["sleeping", "retrying", "waiting"] == [words[each.id] for each in waiting]
    assert words == {run_id: (await ow.explain(run_id)).reason for run_id in words}


async def words(backend: BackendPostgres, ow: OpenWorkflow) -> dict[UUID, str]:
    """Where a list says that each run stands, as each explanation says."""
    runs = (await ow.list_runs()).runs
    known = await backend.control.standings([run.id for run in runs])
    served = await backend.control.served()
    told = {run.id: word(run, known.get(run.id), served) for run in runs if not run.status.finished}
    assert told == {run_id: (await ow.explain(run_id)).reason for run_id in told}
    return told


async def take_back(receipt: str) -> None:
    raise ValueError("the bank is closed")


LATER = RetryPolicy(max_attempts=2, initial="1h", max_delay="1h")


@workflow
async def undoes(step: Step) -> None:
    await step.run("charge", str, undo=Undo(take_back, retry=LATER))
    await step.wait_for_signal("approval")


async def test_what_is_undone_waits_for_nothing_else(
    backend: BackendPostgres, ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """The list said that it waits, for the signal of before."""
    await start_worker(undoes)
    run = await ow.run_workflow(undoes)
    await parked(ow, run.id)
    await ow.cancel(run.id)

    async def is_retrying() -> bool:
        return (await ow.explain(run.id)).reason is Reason.RETRYING

    await eventually(is_retrying)
    assert {run.id: "retrying"} == await words(backend, ow)


@workflow
async def calls_at_a_rate(step: Step) -> None:
    await step.run("call", str, rate=Rate(1, per="1h", name="vendor"))


async def test_who_waits_for_a_turn_is_limited(
    backend: BackendPostgres, ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """The list said that it waits."""
    await start_worker(calls_at_a_rate)
    await (await ow.run_workflow(calls_at_a_rate)).result(timeout=20)
    run = await ow.run_workflow(calls_at_a_rate)

    async def is_limited() -> bool:
        return (await ow.explain(run.id)).reason is Reason.LIMITED

    await eventually(is_limited)
    assert {run.id: "limited"} == await words(backend, ow)


async def test_the_next_occurrences_are_scheduled_paused_or_wait_for_earlier_ones(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    """One that had been set aside "waits", and of a paused schedule it "is to begin"."""
    for name in ("nightly", "weekly", "daily"):
        await ow.schedules.create(name, sleeper, Cron("0 0 1 1 *", overlap="queue_all"))
    ids = {each.name: each.next_run_id for each in await ow.schedules.list()}
    await sql.execute("update workflow_runs set claim_no = 3")  # set aside twice
    await ow.schedules.pause("weekly", "the\nwarehouse moves")
    earlier = uuid7()
    await sql.execute(
        "update workflow_schedules set queued_run_ids = array[$1::uuid],"
        " open_run_ids = array[$2::uuid] where name = 'daily'",
        *(ids["daily"], earlier),
    )
    await sql.execute(
        "update workflow_runs set available_at = 'infinity' where id = $1", ids["daily"]
    )

    assert {
        ids["nightly"]: "scheduled",
        ids["weekly"]: "paused",
        ids["daily"]: "waiting",
    } == await words(backend, ow)
    assert ids["nightly"] is not None
    assert ids["weekly"] is not None
    assert ids["daily"] is not None
    assert "it is to begin at 2" in (await ow.explain(ids["nightly"])).sentence
    paused = (await ow.explain(ids["weekly"])).sentence
    assert paused.startswith("its schedule 'weekly' was paused at 2")
    assert paused.endswith("('the warehouse moves').")
    assert (
        f"it waits for the end of earlier occurrences of schedule 'daily', such as run {earlier}."
    ) == (await ow.explain(ids["daily"])).sentence


@workflow
async def maps(step: Step) -> None:
    await step.map("all", "nobodys", [1, 2])


async def test_of_a_map_the_first_child_that_is_open_is_told(
    backend: BackendPostgres, ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    """That nobody serves what it maps over was seen nowhere."""
    await start_worker(maps)
    run = await ow.run_workflow(maps)

    told = await parked(ow, run.id)

    assert told.child is not None
    assert Reason.UNSERVED is told.child.reason
    assert f"; of one of them, {told.child.run_id}: it is due since" in told.sentence
    assert "no worker serves workflow 'nobodys'" in told.sentence


@pytest.mark.parametrize("build", ["is there", "says nothing", "was never", "is gone"])
async def test_a_list_says_that_a_run_waits_for_its_build_or_that_there_is_none(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any], build: str
) -> None:
    """It said that it is queued, and then of a build whose workers were gone that it takes it."""
    if build != "was never":
        await backend.builds.register("b1")
    if build in ("is there", "is gone"):
        await backend.builds.serve([("a", "")], "b1")
    run = await ow.run_workflow("a")
    await sql.execute("update workflow_runs set pinned = true, build_id = 'b1'")
    if build == "is gone":
        await sql.execute("update workflow_served set seen_at = now() - interval '2 h'")
    await backend.builds.serve([("a", "")], "b2")

    told = await ow.explain(run.id)

    is_there = build in ("is there", "says nothing")
    assert (Reason.BUILD if is_there else Reason.UNSERVED) is told.reason
    assert {run.id: str(told.reason)} == await words(backend, ow)
    assert (build == "is gone") is ("of which no worker is left: the last said" in told.sentence)
    assert (("a", ""),) == (await backend.control.served()).versions


async def test_of_a_run_that_is_executed_its_worker_and_its_steps_are_told(
    backend: BackendPostgres, ow: OpenWorkflow, database_url: str
) -> None:
    session = await backend.open_session(1)
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a", worker="pod-1/x")
    running = step_of(run, "charge", status=StepStatus.RUNNING, output=None)
    done = step_of(run, "done")
    await flush(session, steps=[running, done], worker="pod-1/x")

    held = await ow.explain(created.id)
    await expire_leases(database_url)
    lost = await ow.explain(created.id)
    await session.close()

    assert (Reason.HELD, "pod-1/x", ["charge"]) == (
        held.reason,
        held.worker_id,
        [wait.name for wait in held.waits],
    )
    assert held.since is not None
    assert (Reason.LOST, "pod-1/x") == (lost.reason, lost.worker_id)


async def test_a_step_that_succeeded_after_failures_is_waited_for_no_more(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    session = await backend.open_session(1)
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    now = await backend.now()
    failed = step_of(
        run,
        "charge",
        status=StepStatus.FAILED,
        output=None,
        error="{}",
        resume_at=now,
        duration=5.0,
    )
    cut = step_of(run, "other", status=StepStatus.RUNNING, output=None)
    await flush(session, steps=[failed, step_of(run, "charge", attempt=2), cut])
    await flush(session, ends=[end_of(run, RunStatus.PENDING, delay=3600.0)])

    told = await ow.explain(created.id)
    await session.close()

    # Nor is what a worker was doing that does it no more.
    assert ((), 0, Reason.SLEEPING) == (told.waits, told.waits_in_all, told.reason)


async def test_a_due_run_counts_those_before_it_and_names_the_build_it_waits_for(
    backend: BackendPostgres, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    created = await backend.create_workflow_runs([NewRun("a")] * 3 + [NewRun("b")])
    ids = [run.id for run in created]
    move = "update workflow_runs set available_at = now() - $2::int * interval '1 s' where id = $1"
    for place, run_id in enumerate(ids):
        await sql.execute(move, run_id, 9 - place)
    await backend.builds.serve([("a", "")])

    due, unserved = await ow.explain(ids[2]), await ow.explain(ids[3])
    await backend.builds.register("b1")
    await backend.builds.promote("b1")
    routed = await ow.explain(ids[0])
    await sql.execute(
        "update workflow_runs set pinned = true, build_id = 'b0' where id = $1", ids[1]
    )
    gone = await ow.explain(ids[1])
    await backend.builds.register("b0")
    pinned = await ow.explain(ids[1])

    assert (Reason.DUE, 2) == (due.reason, due.ahead)
    assert Reason.UNSERVED == unserved.reason
    assert (Reason.BUILD, "b1", 0) == (routed.reason, routed.build_id, routed.ahead)
    assert (Reason.UNSERVED, "b0") == (gone.reason, gone.build_id)
    assert "pinned to build 'b0', of which no worker has ever started" in gone.sentence
    assert (Reason.BUILD, "b0", 0) == (pinned.reason, pinned.build_id, pinned.ahead)


async def test_what_was_served_long_before_the_rest_is_served_no_more(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    await backend.builds.serve([("old", ""), ("new", "")])
    await sql.execute(
        "update workflow_served set seen_at = seen_at - interval '2 h' where workflow_name = 'old'"
    )

    served = await backend.control.served()

    assert (("new", ""),) == served.versions


async def test_a_misspelt_name_is_a_warning_at_once_and_once(
    ow: OpenWorkflow, backend: BackendPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    await ow.run_workflow("anything")
    await backend.builds.serve([("ship-order", "")])

    for name in ("ship-order", "ship_order", "ship_order"):
        await ow.run_workflow(name)

    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "no worker serves workflow 'ship_order'; those that are served include 'ship-order'; "
        "the run waits for a worker that does"
    ) == warning.getMessage()
    assert 4 == (await backend.count_runs())[RunStatus.PENDING]


async def test_a_run_is_started_where_what_is_served_cannot_be_looked_up(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    await sql.execute("drop table workflow_served")

    assert (await ow.run_workflow("anything")).created


async def test_the_doctor_finds_due_runs_that_nobody_serves(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    await backend.create_workflow_runs(
        [NewRun("ship_order"), NewRun("ship-order"), NewRun("later", delay=HOUR)]
    )
    nothing_said = await backend.diagnostics()
    await backend.builds.serve([("ship-order", "")])

    fresh = await backend.diagnostics()
    await sql.execute("update workflow_runs set available_at = available_at - interval '5 min'")
    late = await backend.diagnostics()

    assert [] == nothing_said.unserved
    assert [("ship_order", "", 1)] == [
        (each.workflow_name, each.version, each.runs) for each in fresh.unserved
    ]
    levels = [
        [finding.level for finding in judge(facts) if finding.check == "unserved"]
        for facts in (nothing_said, fresh, late)
    ]
    assert [["ok"], ["warning"], ["problem"]] == levels


async def test_the_command_says_it_in_a_sentence_and_as_data(
    database_url: str, ow: OpenWorkflow
) -> None:
    handle = await ow.run_workflow("a", available_at="1h")

    answers = []
    for more in ([], ["--json"]):
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "openworkflow",
                "runs",
                "explain",
                str(handle.id),
                "--url",
                database_url,
                *more,
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        answers.append((await process.communicate())[0].decode())
        assert 0 == process.returncode

    assert answers[0].startswith(f"{handle.id} is pending: it is to begin at ")
    told = json.loads(answers[1])
    assert ("scheduled", [], None) == (told["reason"], told["waits"], told["worker_id"])
    assert (await handle.explain()).sentence == told["sentence"]
