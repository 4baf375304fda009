"""Whose expired leases a claim takes, how many suspects, and what it gives a run on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow.backend import flush as flushes
from openworkflow.backend import queries
from openworkflow.backend.backend import BackendPostgres, NewRun, WorkerSession
from openworkflow.backend.connection import WORKER_SETTINGS
from openworkflow.backend.flush import LONGEST_DEADLINE, Shape
from openworkflow.backend.records import ClaimedRun, ClaimRequest, Flush, claim_key
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import LEASE, claim, claim_one, end_of, expire_leases, flush, session_of, wanted

ARMS = [arm.name for arm in flushes.ARMS if not arm.urgent]


@pytest.fixture
async def session(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await session_of(backend)
    yield session
    await session.close()


async def take(session: WorkerSession, worker: str, **options: Any) -> list[ClaimedRun]:
    return (await flush(session, claim=wanted(100, "a", **options), worker=worker)).claimed


async def crash(sql: asyncpg.Connection[Any], run_id: UUID, crashes: int) -> None:
    await sql.execute("update workflow_runs set crashes = $2 where id = $1", run_id, crashes)


async def test_a_worker_leaves_its_own_expired_leases_to_others(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    """Its older execution of the run may still be alive, where no heartbeat can reach it."""
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a", worker="w/1")
    await expire_leases(database_url)

    assert [] == await take(session, "w/1")
    assert [run.id] == [taken.id for taken in await take(session, "w/2")]


async def test_what_a_worker_no_longer_holds_it_can_hand_back_and_claim(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a", worker="w/1")
    await expire_leases(database_url)

    await session.release_unknown("w/1", [])

    assert [(run.id, 0)] == [(one.id, one.crashes) for one in await take(session, "w/1")]


async def test_suspects_are_taken_no_more_than_asked_and_others_beside_them(
    backend: BackendPostgres,
    session: WorkerSession,
    database_url: str,
    sql: asyncpg.Connection[Any],
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 6)
    runs = await claim(session, "a", worker="w/1")
    suspects = {run.id for run in runs[:4]}
    for run_id in suspects:
        await crash(sql, run_id, 2)
    await crash(sql, runs[4].id, 1)
    await expire_leases(database_url)

    none = await take(session, "w/2", suspects=0)
    await flush(session, ends=[end_of(run, RunStatus.FAILED) for run in none], worker="w/2")
    one = await take(session, "w/2", suspects=1)
    rest = await take(session, "w/3", suspects=100, trusted_crashes=3)

    assert {run.id for run in runs[4:]} == {run.id for run in none}
    assert 1 == len(one)
    assert one[0].id in suspects
    assert suspects - {one[0].id} == {run.id for run in rest}


async def test_suspects_and_a_backlog_fill_a_claim_no_further_than_its_limit(
    backend: BackendPostgres,
    session: WorkerSession,
    database_url: str,
    sql: asyncpg.Connection[Any],
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 3)
    for run in await claim(session, "a", worker="w/1"):
        await crash(sql, run.id, 5)
    await expire_leases(database_url)
    await backend.create_workflow_runs([NewRun("a")] * 10)

    got = (await flush(session, claim=wanted(4, "a", suspects=2), worker="w/2")).claimed

    assert (2, 4) == (sum(run.recovered for run in got), len(got))


async def test_a_claim_that_recovers_nothing_still_takes_what_is_due(
    backend: BackendPostgres,
    session: WorkerSession,
    database_url: str,
    sql: asyncpg.Connection[Any],
) -> None:
    await backend.create_workflow_runs([NewRun("a")] * 2)
    first, _ = await claim(session, "a", worker="w/1")
    await crash(sql, first.id, 5)
    await expire_leases(database_url)
    (due,) = await backend.create_workflow_runs([NewRun("a")])

    assert [due.id] == [run.id for run in await take(session, "w/2", recover=False)]


async def test_an_arm_with_nothing_to_take_is_not_executed(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    shape = Shape((), updates=False, claim=True)
    statement = flushes.statement(queries.load("public"), shape)

    async def idle_arms(build: str | None = "v1", **options: Any) -> set[str]:
        flush = Flush("w/1", LEASE, {}, wanted(10, "a", build_id=build, **options))
        values = {"namespace_id": "default", **flushes.values(flush, shape)}
        rows = await sql.fetch(
            f"explain (analyze, costs off, timing off) {statement}",
            *(values[name] for name in shape.parameters),
        )
        plan = "\n".join(row[0] for row in rows)
        return {arm for arm in ARMS if "LockRows (actual" not in _part_of(plan, arm)}

    assert set() == await idle_arms()
    assert {"suspect"} == await idle_arms(suspects=0)
    assert {"own"} == await idle_arms(build=None)
    assert {"expired", "suspect"} == await idle_arms(recover=False)


def _part_of(plan: str, name: str) -> str:
    """The nodes of one part of a plan."""
    return plan.split(f"\n  CTE {name}\n")[1].split("\n  CTE ", maxsplit=1)[0]


async def test_a_run_started_by_name_gets_its_workflow_s_deadline_at_its_first_claim(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    own = await backend.now() + timedelta(days=7)
    plain, given, other = await backend.create_workflow_runs(
        [NewRun("a"), NewRun("a", deadline_at=own), NewRun("b")]
    )
    request = wanted(10, "a", "b", deadlines={claim_key("a", ""): 90.0})

    got = {run.id: run for run in (await flush(session, claim=request)).claimed}

    row = await backend.get_workflow_run(plain.id)
    assert row is not None
    assert row.created_at + timedelta(seconds=90) == row.deadline_at == got[plain.id].deadline_at
    assert (own, None) == (got[given.id].deadline_at, got[other.id].deadline_at)


async def test_a_run_that_was_claimed_before_gets_no_deadline_any_more(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    """Else a retry by hand, which forgives the deadline, would fail at once."""
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    await flush(session, ends=[end_of(run, RunStatus.FAILED, error="{}")])
    await backend.retry_workflow_run(run.id)

    (again,) = await take(session, "w/1", deadlines={claim_key("a", ""): 0.001})

    assert again.deadline_at is None


async def test_a_deadline_longer_than_time_itself_breaks_no_claim(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])

    (run,) = await take(session, "w/1", deadlines={claim_key("a", ""): 1e300})

    assert run.deadline_at is not None
    assert run.deadline_at.year >= 2000 + int(LONGEST_DEADLINE / 86_400 / 366)


async def test_a_claim_says_what_the_run_was_woken_to_and_where_its_history_begins(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    await sql.execute("update workflow_runs set wake_no = 3, history_from = 2, claim_no = 1")

    run = await claim_one(session, "a")

    assert (3, 2, 2, False) == (run.wake_no, run.history_from, run.claim_no, run.has_history)


async def test_a_lease_is_as_long_as_it_says_although_the_claim_had_to_wait(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """A table that was locked for longer than a lease made every claim expire at once."""
    await backend.create_workflow_runs([NewRun("a")])
    heartbeat = await backend.open_heartbeat()

    async def delayed(work: Coroutine[Any, Any, Any]) -> float:
        transaction = sql.transaction()
        await transaction.start()
        await sql.execute("lock table workflow_runs in access exclusive mode")
        task = asyncio.ensure_future(work)
        await sql.execute("select pg_sleep(1.5)")
        assert not task.done()
        await transaction.commit()
        await task
        left: float = await sql.fetchval(
            "select extract(epoch from available_at - clock_timestamp())::float8 from workflow_runs"
        )
        return left

    lease = timedelta(seconds=1)
    assert await delayed(flush(session, claim=wanted(1, "a"), lease=lease)) > 0
    (run,) = await sql.fetch("select id, claim_no from workflow_runs")
    assert await delayed(heartbeat.beat("host/1", lease, [(run["id"], run["claim_no"])])) > 0
    await heartbeat.close()


async def blocks_of_a_claim(sql: asyncpg.Connection[Any], **options: Any) -> int:
    """How many blocks of the tables PostgreSQL looks at for one claim that takes nothing else."""
    shape = Shape((), updates=False, claim=True)
    statement = flushes.statement(queries.load("public"), shape)
    flush = Flush("w/1", LEASE, {}, wanted(5, *options.pop("served"), **options))
    values = {"namespace_id": "default", **flushes.values(flush, shape)}
    async with sql.transaction():
        for name, value in WORKER_SETTINGS.items():
            await sql.execute(f"set local {name} = {value}")
        plan = await sql.fetchval(
            f"explain (analyze, buffers, format json) {statement}",
            *(values[name] for name in shape.parameters),
        )
    total = json.loads(plan)[0]["Plan"]
    return int(total["Shared Hit Blocks"] + total["Shared Read Blocks"])


@pytest.mark.parametrize("analysed", [True, False])
@pytest.mark.parametrize(
    "backlog",
    ["another workflow", "another version", "another build", "this build, another workflow"],
)
async def test_a_backlog_that_a_worker_does_not_serve_costs_its_claims_nothing(
    backend: BackendPostgres, sql: asyncpg.Connection[Any], backlog: str, analysed: bool
) -> None:
    """Claims walked past it: 200,000 such runs made them seventy-seven times slower."""
    await sql.execute("alter table workflow_runs set (autovacuum_enabled = false)")
    name = "b" if "workflow" in backlog else "a"
    version = "2" if "version" in backlog else None
    build = {"another build": "v2", "this build, another workflow": "v1"}.get(backlog)
    few = await blocks_of_a_claim(sql, served=["a"], build_id="v1")

    await sql.execute(
        "insert into workflow_runs (workflow_name, version, build_id, pinned, status, available_at)"
        " select $1, $2, $3, $3::text is not null, 'pending', now() - interval '1 h'"
        " from generate_series(1, 20000)",
        *(name, version, build),
    )
    if analysed:
        await sql.execute("vacuum analyze workflow_runs")

    assert await blocks_of_a_claim(sql, served=["a"], build_id="v1") < few + 50


async def test_the_workflow_that_has_waited_for_longest_is_claimed_first(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """No backlog of one that is served keeps another waiting, even if the head of it is held."""
    await backend.create_workflow_runs([NewRun("a")] * 20)
    (waits,) = await backend.create_workflow_runs([NewRun("b")])
    (held,) = await backend.create_workflow_runs([NewRun("a")])
    for run_id, age in ((held.id, 3), (waits.id, 2)):
        await sql.execute(
            "update workflow_runs set available_at = now() - make_interval(hours => $2)"
            " where id = $1",
            *(run_id, age),
        )

    async with sql.transaction():
        await sql.execute("select from workflow_runs where id = $1 for update", held.id)
        got = (await flush(session, claim=wanted(5, "a", "b"))).claimed

    assert waits.id in {run.id for run in got}
    assert held.id not in {run.id for run in got}
    assert 5 == len(got)


async def test_a_claim_fills_itself_from_all_that_is_served(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    kinds = [NewRun("a"), NewRun("a", version="1"), NewRun("b"), NewRun("c", version="1")]
    created = await backend.create_workflow_runs([*kinds, NewRun("a", version="2"), NewRun("c")])
    keys = [claim_key("a", ""), claim_key("a", "1"), claim_key("b", ""), claim_key("c", "1")]

    got = (await flush(session, claim=ClaimRequest(100, keys))).claimed

    assert {run.id for run in created[:4]} == {run.id for run in got}
