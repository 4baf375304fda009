"""Claims, leases and the fence: who may write what for a run, and when."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from openworkflow.backend import heartbeat as heartbeats
from openworkflow.backend.backend import (
    BackendPostgres,
    ClaimRequest,
    NewRun,
    WorkerSession,
)
from openworkflow.backend.heartbeat import HeartbeatSession
from openworkflow.backend.records import claim_key
from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow.core.step_attempt import StepStatus
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import (
    LEASE,
    claim,
    claim_one,
    completion_of,
    end_of,
    expire_leases,
    flush,
    session_of,
    step_of,
    success_of,
    wanted,
)
from tests.helpers import eventually


@pytest.fixture
async def session(backend: BackendPostgres) -> Any:
    session = await session_of(backend)
    yield session
    await session.close()


async def test_a_claim_takes_the_run_for_the_length_of_the_lease(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a", input='{"x": [1, "ü"]}')])

    claimed = await claim_one(session, "a")

    run = await backend.get_workflow_run(created.id)
    assert run is not None
    assert (RunStatus.RUNNING, "host/1", 1) == (run.status, run.worker_id, run.claim_no)
    assert timedelta(0) <= run.available_at - (claimed.claimed_at + LEASE) < timedelta(seconds=5)
    assert claimed.claimed_at == run.started_at
    assert run.created_at == claimed.due_at
    assert '{"x": [1, "ü"]}' == claimed.input
    assert (False, False, 0) == (claimed.recovered, claimed.has_history, claimed.crashes)
    # It is made without the frame of its class, which would fill in what was left out.
    assert len(claimed._fields) == len(claimed)


async def test_a_claim_takes_what_is_due_longest_and_no_more_than_asked(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    past = datetime.now(UTC) - timedelta(minutes=10)
    created = await backend.create_workflow_runs(
        [NewRun("a", available_at=past + timedelta(minutes=n)) for n in (2, 0, 3, 1)]
    )

    first, rest = await claim(session, "a", limit=3), await claim(session, "a")

    assert [created[1].id, created[3].id, created[0].id] == [run.id for run in first]
    assert [created[2].id] == [run.id for run in rest]


async def test_nothing_is_claimed_before_it_is_due(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a", delay=timedelta(hours=1))])

    assert [] == await claim(session, "a")
    assert 3590 < (await backend.next_due() or 0) <= 3600


async def test_a_workflow_or_version_the_worker_does_not_serve_is_never_claimed(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs(
        [NewRun("other"), NewRun("a", version="2"), NewRun("a"), NewRun("b", version="1")]
    )
    request = ClaimRequest(10, [claim_key("a", ""), claim_key("b", ""), claim_key("b", "1")])

    claimed = (await flush(session, claim=request)).claimed

    assert {("a", None), ("b", "1")} == {(run.workflow_name, run.version) for run in claimed}


async def test_a_served_name_with_the_separator_is_refused(session: WorkerSession) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("U+001F")):
        await claim(session, "a\x1fb")


async def test_another_namespace_is_not_touched(database_url: str, session: WorkerSession) -> None:
    other = await BackendPostgres.connect(database_url, namespace_id="other")
    (created,) = await other.create_workflow_runs([NewRun("a")])

    assert [] == await claim(session, "a")
    assert await other.get_workflow_run(created.id) is not None
    await other.stop()


async def test_concurrent_claims_share_the_runs_without_waiting(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 100)
    others = [await session_of(backend) for _ in range(3)]

    batches = await asyncio.gather(
        *(claim(one, "a", limit=20, worker=f"w/{n}") for n, one in enumerate([session, *others]))
    )

    ids = [run.id for batch in batches for run in batch]
    assert len(ids) == len(set(ids)) == 80
    for one in others:
        await one.close()


async def test_a_row_locked_by_somebody_else_is_skipped(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    locked, free = await backend.create_workflow_runs([NewRun("a"), NewRun("a")])
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT FROM workflow_runs WHERE id = $1 FOR UPDATE", locked.id)

    claimed = await claim(session, "a")

    assert [free.id] == [run.id for run in claimed]
    await transaction.rollback()
    await connection.close()


async def test_an_expired_lease_is_claimed_again_and_counts_as_a_crash(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    await claim_one(session, "a")
    for crashes in (1, 2, 3):
        await expire_leases(database_url)

        again = await claim_one(session, "a", worker=f"other/{crashes}")

        assert (crashes, crashes + 1) == (again.crashes, again.claim_no)
        assert again.recovered
        assert again.has_history


async def test_a_crash_after_progress_starts_the_count_afresh(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a", worker="w/0")
    for crashes in (1, 2):
        await expire_leases(database_url)
        run = await claim_one(session, "a", worker=f"w/{crashes}")
        assert run.crashes == crashes
    await flush(session, steps=[step_of(run, "s")], worker="w/2")
    await expire_leases(database_url)

    assert (await claim_one(session, "a", worker="w/3")).crashes == 1


async def test_closing_what_a_dead_worker_began_is_no_progress(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    """Else a run that kills its worker in its first step would never be given up."""
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a", worker="w/0")
    for crashes in (1, 2, 3):
        running = step_of(run, "deadly", status=StepStatus.RUNNING, output=None)
        await flush(session, steps=[running], worker=f"w/{crashes - 1}")
        await expire_leases(database_url)
        run = await claim_one(session, "a", worker=f"w/{crashes}")
        assert run.crashes == crashes
        closed = await flush(
            session,
            worker=f"w/{crashes}",
            steps=[
                step_of(
                    run,
                    "",
                    id=running.id,
                    status=StepStatus.FAILED,
                    context='{"interrupted": true}',
                    update=True,
                )
            ],
        )
        assert not closed.lost


async def test_an_expired_lease_goes_before_a_backlog(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    (crashed,) = await backend.create_workflow_runs([NewRun("a")])
    await claim_one(session, "a")
    past = datetime.now(UTC) - timedelta(days=1)
    await backend.create_workflow_runs([NewRun("a", available_at=past)] * 10)
    await expire_leases(database_url)

    assert (await claim_one(session, "a", worker="w/2")).id == crashed.id


async def test_nothing_a_lost_claim_writes_is_recorded(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    stale = await claim_one(session, "a", worker="host/1")
    await expire_leases(database_url)
    current = await claim_one(session, "a", worker="host/2")
    lost, kept = step_of(stale, "s"), step_of(current, "s")

    refused = await flush(session, steps=[lost], ends=[end_of(stale, RunStatus.FAILED)])
    ends = [end_of(current, output='"x"')]
    accepted = await flush(session, steps=[kept, lost], ends=ends, worker="host/2")

    run = await backend.get_workflow_run(stale.id)
    assert {lost.id, stale.id} == refused.lost
    assert {lost.id} == accepted.lost
    assert run is not None
    assert (RunStatus.SUCCEEDED, "x", None) == (run.status, run.output, run.worker_id)
    assert [kept.id] == [step.id for step in await backend.list_step_attempts(run.id)]


async def test_nothing_is_written_after_a_run_has_ended_or_was_canceled(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a"), NewRun("a")])
    done, canceled = await claim(session, "a")
    await flush(session, ends=[end_of(done)])
    await backend.cancel_workflow_run(canceled.id)

    steps = [step_of(done, "s"), step_of(canceled, "s")]
    late = await flush(
        session,
        steps=steps,
        ends=[end_of(done, RunStatus.FAILED), end_of(canceled, RunStatus.FAILED)],
    )

    assert {*(step.id for step in steps), done.id, canceled.id} == late.lost
    assert (await backend.count_runs())[RunStatus.CANCELED] == 1


async def test_a_flush_that_is_sent_again_is_accepted_and_changes_nothing(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    step = step_of(run, "s")

    first, second = await flush(session, steps=[step]), await flush(session, steps=[step])

    assert not first.lost
    assert not second.lost
    assert len(await backend.list_step_attempts(run.id)) == 1


async def test_a_running_step_is_seen_and_then_ended(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    running = step_of(run, "slow", status=StepStatus.RUNNING, output=None, duration=0.5)
    await flush(session, steps=[running])
    (seen,) = await backend.list_step_attempts(run.id)

    await flush(session, steps=[step_of(run, "slow", id=running.id, output="[7]", update=True)])

    (ended,) = await backend.list_step_attempts(run.id)
    assert (StepStatus.RUNNING, None) == (seen.status, seen.completed_at)
    assert (StepStatus.SUCCEEDED, [7]) == (ended.status, ended.output)
    assert ended.completed_at is not None
    assert ended.completed_at - ended.created_at >= timedelta(seconds=0.5)


async def test_one_flush_carries_steps_ends_and_a_claim(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 30)
    runs = await claim(session, "a", limit=10)
    steps = [step_of(run, f"s{n}") for run in runs for n in range(3)]

    flushed = await flush(
        session,
        steps=steps,
        ends=[end_of(run) for run in runs],
        claim=wanted(20, "a"),
    )

    assert not flushed.lost
    assert len({run.id for run in flushed.claimed} - {run.id for run in runs}) == 20


async def test_the_narrow_rows_of_usual_writes_record_what_the_wide_ones_do(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 4)
    narrow, wide, stale, failed = await claim(session, "a")
    old = stale._replace(claim_no=0)
    successes = [success_of(run, "s", output="[7]") for run in (narrow, old)]

    flushed = await flush(
        session,
        successes=successes,
        steps=[step_of(wide, "s", output="[7]")],
        completions=[completion_of(narrow, '"x"'), completion_of(old)],
        ends=[end_of(wide, output='"x"'), end_of(failed, RunStatus.FAILED)],
    )

    assert {successes[1].id, stale.id} == flushed.lost
    shown = [await backend.get_workflow_run(run.id) for run in (narrow, wide)]
    assert [(RunStatus.SUCCEEDED, "x", None)] * 2 == [
        (run.status, run.output, run.worker_id) for run in shown if run is not None
    ]
    steps = [(await backend.list_step_attempts(run.id))[0] for run in (narrow, wide)]
    assert steps[0] == replace(steps[1], id=steps[0].id, workflow_run_id=narrow.id)
    assert (await backend.count_runs())[RunStatus.RUNNING] == 1


async def test_a_run_ended_in_a_flush_is_not_claimed_by_it(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    """Not even where its lease has just expired."""
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    await expire_leases(database_url)

    flushed = await flush(session, ends=[end_of(run)], claim=wanted(5, "a"), worker="w/2")

    assert len({run.id} - flushed.lost) + len(flushed.claimed) == 1


async def test_a_parked_run_waits_until_then_or_its_deadline(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    now = await backend.now()
    deadline = now + timedelta(hours=1)
    await backend.create_workflow_runs([NewRun("a"), NewRun("b", deadline_at=deadline)])
    ends = [
        end_of(run, RunStatus.PENDING, available_at=now + timedelta(hours=2))
        for run in await claim(session, "a", "b")
    ]

    await flush(session, ends=ends)

    page = await backend.list_workflow_runs()
    waits = {run.workflow_name: run.available_at for run in page.runs}
    assert {"a": now + timedelta(hours=2), "b": deadline} == waits


async def test_a_run_to_repeat_keeps_its_error_and_counts_its_attempts(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")

    await flush(
        session,
        ends=[end_of(run, RunStatus.PENDING, error='{"type": "E"}', delay=60.0, attempts=1)],
    )

    row = await backend.get_workflow_run(run.id)
    assert row is not None
    assert (RunStatus.PENDING, 1, {"type": "E"}) == (row.status, row.attempts, row.error)
    assert 59 < (await backend.next_due() or 0) <= 60


async def test_one_bad_value_refuses_the_flush_and_nothing_of_it_is_stored(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")

    with pytest.raises(BackendError):
        await flush(session, steps=[step_of(run, "good"), step_of(run, "bad", output="{")])

    assert [] == await backend.list_step_attempts(run.id)
    assert not (await flush(session, steps=[step_of(run, "good")])).lost


async def test_a_heartbeat_extends_what_stands_and_tells_what_is_lost(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 3)
    ended, canceled, standing = await claim(session, "a")
    await flush(session, ends=[end_of(ended)])
    await backend.cancel_workflow_run(canceled.id)
    await expire_leases(database_url)
    heartbeat = await backend.open_heartbeat()
    claims = [(run.id, run.claim_no) for run in (ended, canceled, standing)]

    held = await heartbeat.beat("host/1", LEASE, claims)

    run = await backend.get_workflow_run(standing.id)
    assert {(standing.id, 1)} == held
    assert run is not None
    assert run.available_at > await backend.now() + LEASE / 2
    assert set() == await heartbeat.beat("host/1", LEASE, [])
    await heartbeat.close()


async def test_a_heartbeat_does_not_wait_for_a_locked_row(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    heartbeat = await backend.open_heartbeat()
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT FROM workflow_runs WHERE id = $1 FOR UPDATE", run.id)
        async with asyncio.timeout(25):
            held = await heartbeat.beat("host/1", LEASE, [(run.id, run.claim_no)])

    assert {(run.id, run.claim_no)} == held
    await heartbeat.close()
    await connection.close()


async def test_runs_claimed_by_an_answer_that_never_came_are_handed_back(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 3)
    known, lost, _ = await claim(session, "a", limit=2) + await claim(session, "a", worker="w/2")

    released = await session.release_unknown("host/1", [known.id])

    assert [lost.id] == released
    again = await claim_one(session, "a")
    assert (lost.id, 0, False) == (again.id, again.crashes, again.recovered)


async def test_of_those_only_the_expired_are_handed_back_where_a_claim_may_be_under_way(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 2)
    known, stray = await claim(session, "a")

    fresh = await session.release_unknown("host/1", [known.id], expired=True)
    await expire_leases(database_url)
    expired = await session.release_unknown("host/1", [known.id], expired=True)

    assert ([], [stray.id]) == (fresh, expired)


async def test_a_cold_database_is_walked_by_its_indexes(database_url: str) -> None:
    """Plans are made while the tables are empty and never analysed; they must stay right."""
    backend = await BackendPostgres.connect(database_url)
    session = await backend.open_session(1)
    await claim(session, "a")
    await backend.create_workflow_runs([NewRun("a")] * 2000)

    async with asyncio.timeout(20):
        runs = await claim(session, "a", limit=500)
        while runs:
            steps = [step_of(run, "s") for run in runs]
            flushed = await flush(
                session,
                steps=steps,
                ends=[end_of(run) for run in runs],
                claim=wanted(500, "a"),
            )
            assert not flushed.lost
            runs = flushed.claimed

    connection = await asyncpg.connect(database_url)
    scans = await connection.fetchval(
        "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'workflow_runs'"
    )
    assert scans == 0
    await connection.close()
    await session.close()
    await backend.stop()


async def test_a_claim_that_is_being_taken_over_is_not_taken_for_ones_own(
    backend: BackendPostgres,
    session: WorkerSession,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an outage: the lease is over, and another worker's claim is not committed yet."""
    monkeypatch.setattr(heartbeats, "UNKNOWN_SECONDS", 1.0)
    await backend.create_workflow_runs([NewRun("a")] * 2)
    taken, kept = await claim(session, "a")
    heartbeat = await backend.open_heartbeat()
    looks: list[None] = []
    extend = HeartbeatSession._extend

    async def counted(*arguments: Any) -> Any:
        answer = await extend(*arguments)
        looks.append(None)
        return answer

    monkeypatch.setattr(HeartbeatSession, "_extend", counted)
    await expire_leases(database_url)
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute(
            "UPDATE workflow_runs SET claim_no = claim_no + 1, worker_id = 'host/2',"
            " available_at = now() + interval '1 minute' WHERE id = $1",
            taken.id,
        )
        claims = [(run.id, run.claim_no) for run in (taken, kept)]
        beating = asyncio.create_task(heartbeat.beat("host/1", LEASE, claims))
        await eventually(lambda: looks)
    assert {(kept.id, 1)} == await beating
    await heartbeat.close()
    await connection.close()
