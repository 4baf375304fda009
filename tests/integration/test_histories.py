"""What a replay is given: each step's result, in the order results reached the workflow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow.backend import migrations
from openworkflow.backend.backend import BackendPostgres, NewRun, RecordedStep, WorkerSession
from openworkflow.backend.connection import WORKER_LIMITS
from openworkflow.backend.records import ClaimedRun, StepWrite
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.recorded import UNREADABLE
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.histories import Histories
from tests.flushes import (
    claim,
    claim_one,
    end_of,
    expire_leases,
    flush,
    session_of,
    step_of,
    success_of,
)
from tests.helpers import eventually

FINAL, REOPENED = '{"final": true}', '{"reopened": true}'
INTERRUPTED, CANCELED = '{"interrupted": true}', '{"canceled": true}'


@pytest.fixture
async def session(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await session_of(backend)
    yield session
    await session.close()


@pytest.fixture
async def run(backend: BackendPostgres, session: WorkerSession) -> ClaimedRun:
    await backend.create_workflow_runs([NewRun("a")])
    return await claim_one(session, "a")


def failure(run: ClaimedRun, name: str, context: str | None = None, **columns: Any) -> StepWrite:
    failed = {"status": StepStatus.FAILED, "output": None, "error": '{"message": "no"}'}
    return step_of(run, name, context=context, **(failed | columns))


async def history_of(session: WorkerSession, run: ClaimedRun) -> list[RecordedStep]:
    return (await session.load_histories([run.id]))[run.id]


async def test_results_come_in_the_order_in_which_they_reached_the_workflow(
    session: WorkerSession, run: ClaimedRun
) -> None:
    """Rows of one flush share their time of completion, so the order has a number of its own."""
    await flush(
        session,
        successes=[success_of(run, "second", completion_no=2)],
        steps=[
            step_of(run, "third", completion_no=3, duration=9.0),
            failure(run, "first", FINAL, completion_no=1),
        ],
    )

    history = await history_of(session, run)

    assert ["first", "second", "third"] == [step.step_name for step in history]
    assert [1, 2, 3] == [step.completion_no for step in history]
    assert [True, False, False] == [step.final for step in history]


async def test_results_of_older_versions_come_first_and_what_is_not_over_comes_last(
    session: WorkerSession, run: ClaimedRun
) -> None:
    sleeping = {"kind": StepKind.SLEEP, "status": StepStatus.RUNNING, "output": None}
    await flush(session, steps=[step_of(run, "sleeps", **sleeping), failure(run, "again")])
    await flush(session, steps=[step_of(run, "new", completion_no=1)])
    await flush(session, steps=[step_of(run, "old-1"), step_of(run, "old-0", duration=5.0)])
    await flush(session, steps=[step_of(run, "old-2", duration=9.0)])

    names = [step.step_name for step in await history_of(session, run)]

    assert ["old-0", "old-1", "old-2", "new", "again", "sleeps"] == names


async def test_the_context_comes_as_text_and_as_what_it_means(
    session: WorkerSession, run: ClaimedRun
) -> None:
    branch = '{"nth": 0, "branch": "1.2"}'
    contexts = [FINAL, INTERRUPTED, REOPENED, CANCELED]
    await flush(
        session,
        successes=[success_of(run, "plain")._replace(context=branch)],
        steps=[failure(run, context, context) for context in contexts],
    )

    steps = {step.step_name: step for step in await history_of(session, run)}

    assert branch == steps["plain"].context
    for name in contexts:
        step = steps[name]
        marks = (step.final, step.interrupted, step.reopened, step.canceled)
        assert marks == tuple(name == context for context in contexts)
        assert name == step.context


async def test_histories_of_many_runs_are_told_apart(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    empty = await claim_one(session, "a")
    await flush(session, successes=[success_of(run, "s")])

    histories = await session.load_histories([run.id, empty.id, UUID(int=1)])

    assert [1, 0, 0] == [len(histories[one]) for one in (run.id, empty.id, UUID(int=1))]


async def test_of_two_results_of_a_step_the_later_claim_s_is_the_history(
    backend: BackendPostgres,
    session: WorkerSession,
    database_url: str,
    sql: asyncpg.Connection[Any],
) -> None:
    """A claim may be lost between the check of the fence and the commit."""
    await backend.create_workflow_runs([NewRun("a")])
    await claim_one(session, "a")
    await expire_leases(database_url)
    run = await claim_one(session, "a", worker="w/2")
    await flush(
        session,
        steps=[
            step_of(run, "s", output='"kept"', completion_no=2),
            step_of(run, "before", output='"before"', completion_no=1),
        ],
        worker="w/2",
    )
    await sql.execute(
        "insert into step_attempts "
        "(workflow_run_id, step_name, kind, status, output, claim_no, completion_no) "
        "values ($1, 's', 'run', 'succeeded', '\"stale\"', 1, 1)",
        run.id,
    )

    history = await history_of(session, run)

    assert ['"before"', '"kept"'] == [step.output for step in history]


async def test_of_the_attempts_that_were_repeated_only_the_last_is_read_without_its_error(
    session: WorkerSession, run: ClaimedRun
) -> None:
    resume_at = run.claimed_at
    for attempt in (1, 2, 3):
        await flush(
            session,
            steps=[
                failure(run, "s", attempt=attempt, resume_at=resume_at),
                failure(run, "s", INTERRUPTED, attempt=attempt + 1),
            ],
        )
    await flush(session, steps=[failure(run, "other", attempt=1)])

    steps = await history_of(session, run)

    counted = [(s.step_name, s.attempt) for s in steps if not s.interrupted]
    assert [("other", 1), ("s", 3)] == sorted(counted)
    assert [("s", 4)] == [(s.step_name, s.attempt) for s in steps if s.interrupted]
    assert {None} == {step.error for step in steps}
    assert {resume_at, None} == {step.resume_at for step in steps}


async def test_twenty_thousand_failed_attempts_are_read_as_one(
    session: WorkerSession, run: ClaimedRun, sql: asyncpg.Connection[Any]
) -> None:
    """They were read as 146 MB, at each claim."""
    await flush(session, successes=[success_of(run, "before")])
    await sql.execute(
        "insert into step_attempts (workflow_run_id, step_name, kind, status, claim_no, attempt, "
        "error, created_at, completed_at) "
        "select $1, 's', 'run', 'failed', 1, n, jsonb_build_object('trace', repeat(md5(n::text), "
        "100)), now() + n * interval '1 ms', now() from generate_series(1, 20000) n",
        run.id,
    )

    started = time.monotonic()
    steps = await history_of(session, run)

    assert [("before", 1), ("s", 20_000)] == [(step.step_name, step.attempt) for step in steps]
    assert time.monotonic() - started < 20


async def test_attempts_from_before_a_retry_by_hand_count_no_more(
    backend: BackendPostgres, session: WorkerSession, run: ClaimedRun
) -> None:
    await flush(session, steps=[failure(run, "s", attempt=1)])
    await flush(session, steps=[failure(run, "s", FINAL, attempt=2, completion_no=5)])
    error = '{"type": "E", "steps": ["s"]}'
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error=error)])
    await backend.retry_workflow_run(run.id)
    again = await claim_one(session, "a")
    afresh = await history_of(session, again)
    await flush(session, steps=[failure(again, "s", attempt=1)])

    history = await history_of(session, again)

    assert [(2, True, 5)] == [(s.attempt, s.reopened, s.completion_no) for s in afresh]
    assert {(2, True, 5), (1, False, None)} == {
        (s.attempt, s.reopened, s.completion_no) for s in history
    }


async def test_what_a_newer_version_recorded_is_passed_on_as_it_is(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """The engine refuses that run; its neighbours in the same statement are loaded."""
    await backend.create_workflow_runs([NewRun("a"), NewRun("a")])
    odd, good = await claim(session, "a")
    await flush(session, successes=[success_of(one, "s") for one in (odd, good)])
    await sql.execute(
        "update step_attempts set kind = 'signal', status = 'waiting', "
        "context = '{\"final\": \"perhaps\"}', resume_at = '20000-01-01', "
        "created_at = '-infinity' where workflow_run_id = $1",
        odd.id,
    )

    histories = await session.load_histories([odd.id, good.id])

    (step,) = histories[odd.id]
    assert ("signal", "waiting", False) == (step.kind, step.status, step.final)
    assert step.resume_at is not None
    assert 9999 == step.resume_at.year
    assert 1 == len(histories[good.id])


@pytest.mark.parametrize("context", ["null", "1", '"final"', '["final"]', "[]", '{"final": null}'])
async def test_no_context_breaks_the_reading_of_a_history(
    session: WorkerSession, run: ClaimedRun, context: str
) -> None:
    await flush(session, steps=[failure(run, "s", context)])

    assert [False] == [step.final for step in await history_of(session, run)]


async def test_a_history_that_cannot_be_decoded_costs_its_own_run_only(
    postgres: Any, backend: BackendPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database without an encoding takes bytes that are no text; only there can it be seen."""
    monkeypatch.setattr(migrations, "ENCODING", "SQL_ASCII")
    name = "openworkflow_test_sql_ascii"
    admin = await asyncpg.connect(postgres.url("postgres"))
    await admin.execute(f"drop database if exists {name}")
    await admin.execute(
        f"create database {name} encoding 'SQL_ASCII' locale 'C' template template0"
    )
    odd_database = await BackendPostgres.connect(postgres.url(name))
    session = await session_of(odd_database)
    await odd_database.create_workflow_runs([NewRun("a", input='"x"')] * 3)
    runs = await claim(session, "a")
    await flush(session, successes=[success_of(one, "s") for one in runs])
    await flush(session, ends=[end_of(one, RunStatus.PENDING, delay=0.0) for one in runs])
    connection = await asyncpg.connect(postgres.url(name))
    await connection.execute(
        "update workflow_runs set input = ('\"' || chr(233) || '\"')::jsonb where id = $1",
        runs[0].id,
    )
    await connection.execute(
        "update step_attempts set output = ('\"' || chr(233) || '\"')::jsonb "
        "where workflow_run_id = $1",
        runs[1].id,
    )

    again = {one.id: one for one in await claim(session, "a")}
    histories = await session.load_histories([one.id for one in runs])

    assert ['"\\xe9"', '"x"', '"x"'] == [again[one.id].input for one in runs]
    assert ["run", UNREADABLE, "run"] == [histories[one.id][0].kind for one in runs]
    assert "invalid byte sequence" in (histories[runs[1].id][0].error or "")
    await session.close()
    await odd_database.stop()
    await connection.close()
    await admin.execute(f"drop database {name}")
    await admin.close()


async def test_a_table_that_is_locked_for_a_while_makes_no_history_unreadable(
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of the runs was due 30 s later, with a traceback that spoke of a newer worker."""
    await backend.create_workflow_runs([NewRun("a")] * 3)
    runs = await claim(session, "a")
    await flush(session, successes=[success_of(one, "s") for one in runs])
    monkeypatch.setitem(WORKER_LIMITS, "lock_timeout", "50")
    impatient = await session_of(backend)
    histories = Histories(impatient, Metrics("default"), Payloads((), "default", 1000))
    async with sql.transaction():
        await sql.execute("lock table step_attempts in access exclusive mode")
        loading = asyncio.create_task(histories.load([one.id for one in runs]))
        await eventually(lambda: caplog.text.count("histories of 3 runs") > 1 or loading.done())
    loaded = await loading
    await impatient.close()

    assert {one.id for one in runs} == loaded.keys()
    for steps in loaded.values():
        assert not isinstance(steps, Exception)
        assert ["s"] == [step.step_name for step in steps]
