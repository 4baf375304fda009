"""Runs as clients see them: created, listed, canceled, retried, pruned."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow.backend import queries
from openworkflow.backend.backend import BackendPostgres, NewRun, RunFilter, WorkerSession
from openworkflow.core.errors import BackendError, ConfigurationError, InvalidRunState, RunNotFound
from openworkflow.core.ids import uuid7
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import claim, claim_one, end_of, expire_leases, flush, step_of

DAY = timedelta(days=1)


@pytest.fixture
async def session(backend: BackendPostgres) -> Any:
    session = await backend.open_session(1)
    yield session
    await session.close()


async def test_a_created_run_is_pending_and_due_now(backend: BackendPostgres) -> None:
    run_id = uuid7()
    new = NewRun("a", version="1", input='{"x": 1}', config='{"k": "v"}', id=run_id)

    (created,) = await backend.create_workflow_runs([new])

    run = await backend.get_workflow_run(run_id)
    assert run is not None
    assert (run_id, True, RunStatus.PENDING) == (created.id, created.created, created.status)
    assert ("a", "1", {"x": 1}, {"k": "v"}) == (
        run.workflow_name,
        run.version,
        run.input,
        run.config,
    )
    assert run.created_at == run.available_at
    assert (None, None, 0, 0, 0) == (
        run.deadline_at,
        run.worker_id,
        run.claim_no,
        run.attempts,
        run.crashes,
    )


async def test_delays_and_deadlines_count_from_the_database_s_now(
    backend: BackendPostgres,
) -> None:
    at = datetime(2040, 1, 1, tzinfo=UTC)
    created = await backend.create_workflow_runs(
        [NewRun("a", delay=DAY, deadline=2 * DAY), NewRun("a", available_at=at, deadline_at=at)]
    )

    relative, absolute = [await backend.get_workflow_run(run.id) for run in created]

    assert relative is not None
    assert absolute is not None
    assert relative.created_at + DAY == relative.available_at
    assert relative.created_at + 2 * DAY == relative.deadline_at
    assert (at, at) == (absolute.available_at, absolute.deadline_at)


async def test_thousands_of_runs_are_created_in_one_call_in_order(
    backend: BackendPostgres,
) -> None:
    runs = [NewRun("a", input=str(number)) for number in range(12_000)]

    created = await backend.create_workflow_runs(runs)

    last = await backend.get_workflow_run(created[-1].id)
    assert last is not None
    assert last.input == 11_999
    assert (await backend.count_runs())[RunStatus.PENDING] == 12_000
    assert [] == await backend.create_workflow_runs([])


async def test_a_batch_is_created_whole_or_not_at_all(backend: BackendPostgres) -> None:
    runs = [NewRun("a")] * 6000 + [NewRun("a", input="not JSON")]

    with pytest.raises(BackendError):
        await backend.create_workflow_runs(runs)

    assert (await backend.count_runs())[RunStatus.PENDING] == 0


async def test_an_idempotency_key_makes_one_run_per_workflow(backend: BackendPostgres) -> None:
    first = await backend.create_workflow_runs(
        [
            NewRun("a", idempotency_key="k"),
            NewRun("a", idempotency_key="k"),
            NewRun("b", idempotency_key="k"),
            NewRun("a"),
        ]
    )
    (again,) = await backend.create_workflow_runs([NewRun("a", idempotency_key="k")])

    assert [True, False, True, True] == [run.created for run in first]
    assert first[0].id == first[1].id == again.id
    assert not again.created
    assert (await backend.count_runs())[RunStatus.PENDING] == 3


async def test_simultaneous_requests_with_one_key_make_one_run(backend: BackendPostgres) -> None:
    batches = await asyncio.gather(
        *(
            backend.create_workflow_runs([NewRun("a", idempotency_key="k"), NewRun("a")])
            for _ in range(20)
        )
    )

    assert len({created[0].id for created in batches}) == 1
    assert sum(created[0].created for created in batches) == 1


async def test_batches_with_keys_in_opposite_order_both_succeed(backend: BackendPostgres) -> None:
    keys = [f"k{number}" for number in range(200)]
    orders = (keys, keys[::-1]) * 5

    batches = await asyncio.gather(
        *(
            backend.create_workflow_runs([NewRun("a", idempotency_key=key) for key in order])
            for order in orders
        )
    )

    assert len({run.id for created in batches for run in created}) == 200


async def test_a_key_is_honoured_for_its_period_and_then_free(
    backend: BackendPostgres, database_url: str
) -> None:
    (first,) = await backend.create_workflow_runs([NewRun("a", idempotency_key="k")])
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE workflow_runs SET created_at = now() - interval '25 hours'")
    await connection.close()

    (within,) = await backend.create_workflow_runs(
        [NewRun("a", idempotency_key="k")], idempotency_period=timedelta(hours=26)
    )
    (after,) = await backend.create_workflow_runs([NewRun("a", idempotency_key="k")])

    assert (first.id, False) == (within.id, within.created)
    assert after.created
    assert after.id != first.id


async def test_runs_of_the_caller_s_transaction_exist_if_it_commits(
    backend: BackendPostgres, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    rollback = connection.transaction()
    await rollback.start()
    (undone,) = await backend.create_workflow_runs([NewRun("a")], connection=connection)
    unseen = await backend.get_workflow_run(undone.id)
    await rollback.rollback()
    async with connection.transaction():
        (kept,) = await backend.create_workflow_runs(
            [NewRun("a", idempotency_key="k")], connection=connection
        )

    assert unseen is None
    assert await backend.get_workflow_run(undone.id) is None
    assert await backend.get_workflow_run(kept.id) is not None
    await connection.close()


async def test_pages_show_every_run_once_newest_first(backend: BackendPostgres) -> None:
    created = await backend.create_workflow_runs([NewRun("a")] * 25)
    seen: list[UUID] = []
    cursor = None
    while True:
        page = await backend.list_workflow_runs(limit=10, cursor=cursor)
        seen += [run.id for run in page.runs]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert sorted((run.id for run in created), reverse=True) == seen


async def test_runs_are_found_by_every_filter(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a"), NewRun("a", version="2"), NewRun("b")])
    run = await claim_one(session, "b", worker="host/9")
    later = run.claimed_at + timedelta(seconds=1)

    async def names(**wanted: Any) -> list[str]:
        page = await backend.list_workflow_runs(RunFilter(**wanted))
        return sorted(run.workflow_name for run in page.runs)

    assert ["b"] == await names(status=RunStatus.RUNNING)
    assert ["a", "a"] == await names(workflow_name="a")
    assert ["a"] == await names(workflow_name="a", version="2")
    assert ["b"] == await names(worker_id="host/9")
    assert [] == await names(created_after=later)
    assert ["a", "a", "b"] == await names(created_before=later)


async def test_a_cursor_that_is_none_is_refused(backend: BackendPostgres) -> None:
    for cursor in ("x", "é", "aGVsbG8", "aGVsbG8gd29ybGQ"):
        with pytest.raises(ConfigurationError, match="cursor"):
            await backend.list_workflow_runs(cursor=cursor)
    with pytest.raises(ConfigurationError, match="limit"):
        await backend.list_workflow_runs(limit=0)


async def test_canceling_ends_a_pending_or_running_run_once(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a"), NewRun("a", delay=DAY)])
    running = await claim_one(session, "a")
    page = await backend.list_workflow_runs()

    for run in page.runs:
        canceled = await backend.cancel_workflow_run(run.id)
        again = await backend.cancel_workflow_run(run.id)

        assert canceled == again
        assert (RunStatus.CANCELED, None) == (canceled.status, canceled.worker_id)
        assert canceled.completed_at is not None
    assert [] == await claim(session, "a")
    assert running.id in {run.id for run in page.runs}


async def test_what_cannot_be_canceled_or_retried_says_why(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")

    with pytest.raises(InvalidRunState, match="running"):
        await backend.retry_workflow_run(run.id)
    await flush(session, ends=[end_of(run)])

    with pytest.raises(InvalidRunState, match="succeeded"):
        await backend.cancel_workflow_run(run.id)
    with pytest.raises(InvalidRunState, match="succeeded"):
        await backend.retry_workflow_run(run.id)
    for act in (backend.cancel_workflow_run, backend.retry_workflow_run):
        with pytest.raises(RunNotFound, match=str(UUID(int=7))):
            await act(UUID(int=7))


async def test_a_retried_run_starts_afresh_at_the_step_that_failed(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a", deadline=DAY)])
    run = await claim_one(session, "a")
    await flush(session, steps=[step_of(run, "good", duration=3)])
    await flush(
        session,
        steps=[
            step_of(
                run,
                "caught",
                status=StepStatus.FAILED,
                context='{"final": true}',
                error="{}",
                duration=2,
            )
        ],
    )
    final = step_of(
        run, "spent", status=StepStatus.FAILED, context='{"final": true}', error="{}", attempt=3
    )
    await flush(session, steps=[step_of(run, "after-caught", duration=0.0), final])
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error="{}", attempts=2)])

    retried = await backend.retry_workflow_run(run.id)

    history = (await session.load_histories([run.id]))[run.id]
    assert (RunStatus.PENDING, 0, 0) == (retried.status, retried.attempts, retried.crashes)
    assert (None, None, None) == (retried.error, retried.completed_at, retried.deadline_at)
    assert {"good": False, "caught": True, "after-caught": False, "spent": False} == {
        step.step_name: step.final for step in history
    }
    assert ["spent"] == [step.step_name for step in history if step.reopened]
    assert (await claim_one(session, "a")).claim_no == 2


async def test_a_retry_reopens_exactly_the_steps_whose_failure_ended_the_run(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    """Siblings of a gather begin later steps before the failure of one ends the run."""
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    final = {
        "status": StepStatus.FAILED,
        "context": '{"final": true, "branch": "1"}',
        "error": "{}",
        "output": None,
    }
    await flush(session, steps=[step_of(run, "charge", **final, completion_no=1)])
    await flush(session, steps=[step_of(run, "caught", **final, completion_no=2)])
    await flush(session, steps=[step_of(run, "sibling", completion_no=3)])
    error = '{"type": "E", "message": "no", "steps": ["charge"]}'
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error=error)])

    await backend.retry_workflow_run(run.id)

    history = (await session.load_histories([run.id]))[run.id]
    assert {
        ("charge", False, True, 1),
        ("caught", True, False, 2),
        ("sibling", False, False, 3),
    } == {(step.step_name, step.final, step.reopened, step.completion_no) for step in history}
    # What claims up to this one recorded came after the failure that is not there any more.
    assert {"branch": "1", "reopened": True, "reopened_at": run.claim_no} == json.loads(
        history[0].context or ""
    )


async def test_a_retry_of_a_run_that_its_own_code_failed_reopens_no_step(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    caught = {"status": StepStatus.FAILED, "context": '{"final": true}', "error": "{}"}
    await flush(session, steps=[step_of(run, "caught", **caught)])
    error = '{"type": "E", "message": "no", "steps": []}'
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error=error)])

    await backend.retry_workflow_run(run.id)

    assert [True] == [step.final for step in (await session.load_histories([run.id]))[run.id]]


async def test_pruning_deletes_old_ends_in_batches_and_nothing_else(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 30)
    runs = await claim(session, "a", limit=25)
    await flush(session, steps=[step_of(run, "s") for run in runs])
    await flush(session, ends=[end_of(run) for run in runs[:20]])
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error="{}") for run in runs[20:23]])
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE workflow_runs SET completed_at = completed_at - interval '2d'")
    wanted = [RunStatus.SUCCEEDED]

    (dry,) = [n async for n in backend.prune(wanted, DAY, dry_run=True)]
    too_young = [n async for n in backend.prune(wanted, 3 * DAY)]
    batches = [n async for n in backend.prune(wanted, DAY, batch=8)]

    assert (20, [], [8, 8, 4]) == (dry, too_young, batches)
    counts = await backend.count_runs()
    assert (0, 3) == (counts[RunStatus.SUCCEEDED], counts[RunStatus.FAILED])
    assert await connection.fetchval("SELECT count(*) FROM step_attempts") == 5
    await connection.close()


async def test_only_finished_runs_can_be_pruned(backend: BackendPostgres) -> None:
    with pytest.raises(ConfigurationError, match="pending"):
        [n async for n in backend.prune([RunStatus.PENDING], DAY)]


async def test_a_schema_of_one_s_own_works_beside_public(
    backend: BackendPostgres, database_url: str
) -> None:
    other = await BackendPostgres.connect(database_url, schema='My "own" schema')
    (created,) = await other.create_workflow_runs([NewRun("a")])
    session = await other.open_session(1)

    run = await claim_one(session, "a")
    await flush(session, steps=[step_of(run, "s")], ends=[end_of(run)])

    assert await backend.get_workflow_run(created.id) is None
    assert len(await other.list_step_attempts(run.id)) == 1
    assert (await other.diagnostics()).violations == []
    await session.close()
    await other.stop()


@pytest.mark.parametrize(
    ("namespace_id", "word"),
    [("", "not ''"), ("x" * 300, "300"), ("ü" * 128, "256"), ("a\0b", "NUL"), ("\ud800", "surrog")],
)
async def test_a_namespace_that_cannot_be_is_refused(
    database_url: str, namespace_id: str, word: str
) -> None:
    with pytest.raises(ConfigurationError, match=word):
        await BackendPostgres.connect(database_url, namespace_id=namespace_id)


async def test_diagnostics_see_leases_privileges_and_broken_rows(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    healthy = await backend.diagnostics()
    await expire_leases(database_url)
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE workflow_runs SET worker_id = NULL")
    await connection.execute("DROP INDEX idx_workflow_runs_lease")

    sick = await backend.diagnostics()

    assert ([], [], [], 0) == (
        healthy.violations,
        healthy.missing_indexes,
        healthy.missing_privileges,
        healthy.expired_leases,
    )
    assert 1 == sick.expired_leases
    assert [True] == ["idx_workflow_runs_lease" in made for made in sick.missing_indexes]
    assert [("a running run has a worker", 1, run.id)] == [
        (found.invariant, found.rows, found.run_id) for found in sick.violations
    ]
    assert abs(healthy.clock_skew) < 5
    await connection.close()


async def test_a_page_of_all_runs_reads_no_more_than_it_shows(
    backend: BackendPostgres, sql: asyncpg.Connection
) -> None:
    """No index has all of a namespace by age: a million finished runs were sorted for each page."""
    await sql.execute(
        "insert into workflow_runs (workflow_name, status, available_at, created_at, completed_at)"
        " select 'w' || i % 3, 'succeeded', now(), now() - i / 4 * interval '1 second', now()"
        " from generate_series(1, 20000) i"
    )
    await sql.execute(
        "insert into workflow_runs (workflow_name, status, namespace_id,"
        " available_at) values ('w1', 'pending', 'other', now())"
    )
    await sql.execute("vacuum analyze workflow_runs")
    expected = await sql.fetch(
        "select id from workflow_runs where namespace_id = 'default'"
        " order by created_at desc, id desc limit 30"
    )

    first = await backend.list_workflow_runs(limit=20)
    second = await backend.list_workflow_runs(limit=10, cursor=first.next_cursor)

    assert [row["id"] for row in expected] == [run.id for run in first.runs + second.runs]
    middle = await sql.fetchrow("select created_at, id from workflow_runs offset 10000 limit 1")
    statement = queries.load("public")["list_newest_runs"]
    for cursor in ((None, None), tuple(middle or ())):
        plan = json.loads(
            await sql.fetchval(
                f"explain (analyze, buffers, format json) {statement}",
                *("default", None, None, *cursor, 21),
            )
        )[0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 300


async def test_pages_of_all_runs_show_every_run_once_whatever_their_times_and_workflows(
    backend: BackendPostgres, sql: asyncpg.Connection
) -> None:
    times = ("-infinity", "2024-01-01", "2024-01-01", "2024-06-01", "infinity")
    for number in range(30):
        await sql.execute(
            "insert into workflow_runs (workflow_name, status, available_at, created_at)"
            " values ($1, 'pending', now(), $2::text::timestamptz)",
            *(f"w{number % 4}", times[number % 5]),
        )
    seen: list[UUID] = []
    cursor = None
    while cursor is not None or not seen:
        page = await backend.list_workflow_runs(limit=7, cursor=cursor)
        seen += [run.id for run in page.runs]
        cursor = page.next_cursor

    rows = await sql.fetch("select id from workflow_runs order by created_at desc, id desc")
    assert [row["id"] for row in rows] == seen
