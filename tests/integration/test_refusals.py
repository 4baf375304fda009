"""What the database refuses for now costs time and nothing else; one row costs only its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.backend import flush as flushes
from openworkflow.backend.backend import NewRun
from openworkflow.backend.flush import Shape
from openworkflow.engine import waiting
from openworkflow.worker import ends
from openworkflow.worker.worker import Worker
from tests.flushes import claim
from tests.helpers import StartWorker, eventually
from tests.refusing import refusing

FOR_NOW = ["42501", "23514", "40001", "57014", "53100"]
"""One of each kind that may pass; tests/unit/test_sqlstates.py has the others."""
PLACES = {
    "steps": ("step_attempts", "true"),
    "claims": ("workflow_runs", "new.status = 'running'"),
    "ends": ("workflow_runs", "new.status = 'succeeded'"),
}

calls: Counter[str] = Counter()


@workflow
async def two_steps(name: str, step: Step) -> str:
    for number in range(2):
        await step.run(f"s{number}", calls.update, [f"{name} {number}"])
    return name


@pytest.fixture(autouse=True)
def _nothing_was_called() -> None:
    calls.clear()


def value_of(worker: Worker, name: str, **labels: str) -> float:
    labels["namespace_id"] = "default"
    return worker.metrics.registry.get_sample_value(name, labels) or 0.0


def errors_of(worker: Worker) -> float:
    return sum(
        value_of(worker, "openworkflow_database_errors_total", kind=kind)
        for kind in ("connection", "collision", "size", "tables")
    )


@pytest.mark.parametrize("state", FOR_NOW)
@pytest.mark.parametrize("place", PLACES)
async def test_a_refusal_for_now_costs_time_and_no_run(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    place: str,
    state: str,
) -> None:
    """Every run in flight failed for good, although its steps had succeeded."""
    names = [f"run {number}" for number in range(8)]
    handles = await ow.run_workflows(two_steps, names)
    table, when = PLACES[place]
    async with refusing(sql, table, state, when):
        worker = await start_worker(two_steps)
        await eventually(lambda: errors_of(worker))
    results = [await handle.result(timeout=20) for handle in handles]

    assert names == results
    assert {1} == set(calls.values())
    await eventually(lambda: worker.ready()[0])


async def test_an_end_that_a_constraint_refuses_costs_only_its_run(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its worker died of it, and nine others in a row; five innocent runs ended as poison pills."""
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(ends, "AGAIN_SECONDS", 0.1)
    await sql.execute(
        "ALTER TABLE workflow_runs ADD CONSTRAINT odd "
        "CHECK (status NOT IN ('succeeded', 'failed') OR input::text <> '\"culprit\"')"
    )
    worker = await start_worker(two_steps, concurrency=4)
    culprit = await ow.run_workflow(two_steps, "culprit")

    for number in range(20):
        run = await ow.run_workflow(two_steps, f"innocent {number}")
        assert f"innocent {number}" == await run.result(timeout=20)
    assert worker.live()[0]
    # It is handed back, and takes no slot meanwhile.
    released = {"workflow": two_steps.name, "outcome": "released"}
    finished = "openworkflow_workflow_run_finished_total"
    while not value_of(worker, finished, **released):
        await (await ow.run_workflow(two_steps, "innocent again")).result(timeout=20)
    await sql.execute("ALTER TABLE workflow_runs DROP CONSTRAINT odd")

    assert "culprit" == await culprit.result(timeout=20)
    assert (1, 1) == (calls["culprit 0"], calls["culprit 1"])
    assert 0 == (await ow.get_run(culprit.id)).run.crashes


async def test_a_step_that_a_trigger_refuses_waits_beside_the_others_and_is_not_called_again(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    worker = await start_worker(two_steps)
    mine = "exists (select from workflow_runs r where r.id = new.workflow_run_id"
    async with refusing(sql, "step_attempts", "P0001", f"{mine} and r.input::text = '\"odd\"')"):
        odd = await ow.run_workflow(two_steps, "odd")
        await eventually(lambda: value_of(worker, "openworkflow_writes_refused") == 1)
        for number in range(10):
            await (await ow.run_workflow(two_steps, f"even {number}")).result(timeout=20)
        assert worker.ready()[0]
        assert "running" == await odd.status()

    assert "odd" == await odd.result(timeout=20)
    assert (1, 1) == (calls["odd 0"], calls["odd 1"])
    assert 0 == value_of(worker, "openworkflow_writes_refused")


@pytest.mark.internal_errors
async def test_a_defect_of_this_program_hands_the_run_back(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = flushes.statement

    def wrong(queries: Mapping[str, str], shape: Shape) -> str:
        return honest(queries, shape).replace("kind, status, attempt,", "no_such_function(kind),")

    monkeypatch.setattr(flushes, "statement", wrong)
    worker = await start_worker(two_steps)
    run = await ow.run_workflow(two_steps, "any")
    await eventually(
        lambda: value_of(
            worker,
            "openworkflow_workflow_run_finished_total",
            workflow=two_steps.name,
            outcome="released",
        )
    )

    row = (await ow.get_run(run.id)).run
    assert ("pending", None, 0) == (row.status, row.error, row.crashes)


async def test_a_flush_that_takes_longer_than_statement_timeout_is_sent_in_parts(
    ow: OpenWorkflow, backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    """It was sent again as it was, forever; not one of a hundred runs ended in a minute."""
    await sql.execute(
        f"ALTER DATABASE \"{backend.url.database}\" SET statement_timeout = '200ms';"
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.03); RETURN new; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON step_attempts FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    handles = await ow.run_workflows(two_steps, [f"run {number}" for number in range(16)])
    worker = ow.new_worker(workflows=[two_steps], concurrency=64)
    await worker.start()

    for handle in handles:
        await handle.result(timeout=20)
    assert {1} == set(calls.values())
    await worker.stop()


async def test_a_claim_that_is_refused_is_reported_and_tried_again(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = await start_worker(two_steps)
    async with refusing(sql, "workflow_runs", "42501", "new.status = 'running'"):
        run = await ow.run_workflow(two_steps, "any")
        await eventually(lambda: not worker.ready()[0])

        assert "does not let runs be claimed" in worker.ready()[1]
        assert "refused by a test; let an administrator grant it" in caplog.text
    assert "any" == await run.result(timeout=timedelta(seconds=20))
    assert worker.ready()[0]


async def test_a_login_that_is_refused_while_flushes_are_in_flight_costs_time_only(
    backend: BackendPostgres, sql: asyncpg.Connection[Any], database_url: str
) -> None:
    """It was taken for the flush's own refusal, and ended the worker."""
    role = f"{backend.url.database}_role"
    await sql.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 's3cr3t'")
    try:
        await _survives_refused_logins(sql, database_url, role)
    finally:
        await sql.execute(f"DROP ROLE {role}")


async def _survives_refused_logins(
    sql: asyncpg.Connection[Any], database_url: str, role: str
) -> None:
    split = urlsplit(database_url)
    place = split.netloc.rpartition("@")[2]
    theirs = await BackendPostgres.connect(split._replace(netloc=f"{role}:s3cr3t@{place}").geturl())
    ow = OpenWorkflow(theirs)
    worker = ow.new_worker(workflows=[two_steps], concurrency=10, drain=timedelta(seconds=1))
    await worker.start()
    handles = await ow.run_workflows(two_steps, [f"run {number}" for number in range(50)])
    await eventually(lambda: len(calls) > 10)
    await sql.execute(f"ALTER ROLE {role} NOLOGIN")
    await sql.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role
    )
    await eventually(lambda: errors_of(worker) >= 2)
    assert worker.live()[0]
    await sql.execute(f"ALTER ROLE {role} LOGIN")

    assert [await handle.result(timeout=20) for handle in handles]
    assert {1} == set(calls.values())
    await worker.stop()
    await theirs.stop()


async def test_a_run_that_a_trigger_does_not_let_be_claimed_keeps_no_other_from_it(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    """It is due first, so every claim met it, and nothing was claimed any more."""
    odd = await ow.run_workflow(two_steps, "odd")
    handles = await ow.run_workflows(two_steps, [f"even {number}" for number in range(20)])
    when = f"new.id = '{odd.id}' and new.status = 'running'"
    async with refusing(sql, "workflow_runs", "P0001", when):
        worker = await start_worker(two_steps)
        for number, handle in enumerate(handles):
            assert f"even {number}" == await handle.result(timeout=20)
        await eventually(lambda: worker.ready()[0])
        assert "pending" == await odd.status()

    assert "odd" == await odd.result(timeout=20)


async def test_a_run_that_cannot_be_handed_back_keeps_no_other_from_it(
    backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    """The worker was in doubt about its claims as long as one row refused, and claimed nothing."""
    await backend.create_workflow_runs([NewRun("a")] * 3)
    session = await backend.open_session(1)
    odd, *even = await claim(session, "a", limit=3, worker="w/1")
    async with refusing(sql, "workflow_runs", "P0001", f"new.id = '{odd.id}'"):
        released = await session.release_unknown("w/1", [])

    assert {run.id for run in even} == set(released)
    await session.close()
