"""Limits and runs that nobody executes: these keep no slot from those that somebody does."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres, Limit, OpenWorkflow, Rate, Step, workflow
from openworkflow.backend.backend import NewRun, WorkerSession
from openworkflow.core.explanation import Reason
from openworkflow.core.limits import LimitRule
from tests.flushes import claim, end_of, flush
from tests.helpers import StartWorker, eventually

ONE = "erp"
LATER = "update workflow_limits set updated_at = updated_at - interval '1 min'"


@pytest.fixture
async def session(backend: BackendPostgres) -> Any:
    session = await backend.open_session(1)
    yield session
    await session.close()


async def look_after(backend: BackendPostgres, sql: asyncpg.Connection[Any]) -> None:
    """What workers do every minute."""
    await sql.execute(LATER)
    await backend.limits.declare([LimitRule(name=ONE, slots=1)], [])


async def pass_over(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """Have two others go first that somebody serves."""
    await given(backend, "served", "served")
    await sql.execute(
        "update workflow_runs set available_at = now() - interval '2 min'"
        " where available_at <= now()"
    )
    await look_after(backend, sql)
    for _ in range(2):
        (run,) = await claim(session, "served")
        await flush(session, ends=[end_of(run)])


async def long_ago(sql: asyncpg.Connection[Any]) -> None:
    """Let two hours pass for what is due, and for what workers have said."""
    for table, column in (
        ("workflow_runs", "available_at"),
        ("workflow_served", "seen_at"),
    ):
        await sql.execute(f"update {table} set {column} = {column} - interval '2 h'")


async def sound(backend: BackendPostgres) -> None:
    assert [] == (await backend.diagnostics()).violations


async def given(backend: BackendPostgres, *names: str, **columns: Any) -> list[UUID]:
    await backend.limits.ensure([LimitRule(name=ONE, slots=1)])
    runs = [NewRun(name, limits=ONE, **columns) for name in names]
    return [run.id for run in await backend.create_workflow_runs(runs)]


async def test_runs_that_nobody_serves_keep_no_slot_and_wait_once_somebody_does(
    backend: BackendPostgres,
    session: WorkerSession,
    ow: OpenWorkflow,
    sql: asyncpg.Connection[Any],
) -> None:
    await backend.builds.serve([("served", "")])
    first, second, third = await given(backend, "nobodys", "nobodys", "nobodys")
    other, last = await given(backend, "served", "served")
    await sql.execute(
        "update workflow_runs set available_at = now() - interval '2 min' where id = $1", first
    )
    await look_after(backend, sql)

    # What nobody serves is due, as it is without a limit, and tells why it is not done.
    for run_id in (first, second, third):
        assert Reason.UNSERVED is (await ow.explain(run_id)).reason
    (run,) = await claim(session, "served")
    assert other == run.id
    await sound(backend)
    # One that comes is passed over as well, and nobody has to look after that.
    (late,) = await given(backend, "nobodys")
    assert Reason.LIMITED is (await ow.explain(late)).reason
    await flush(session, ends=[end_of(run)])
    (run,) = await claim(session, "served")
    assert last == run.id
    await sound(backend)

    # Its worker has it wait, in its place before those that came later.
    assert [] == await claim(session, "nobodys")
    for run_id in (first, second, third, late):
        assert Reason.LIMITED is (await ow.explain(run_id)).reason
    await sound(backend)
    for run_id in (first, second, third, late):
        await flush(session, ends=[end_of(run)])
        (run,) = await claim(session, "nobodys")
        assert run_id == run.id
        await sound(backend)


async def test_who_is_served_is_found_behind_any_number_of_lanes_that_nobody_serves(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """It was looked for in some of the lanes, and for each run that left; which took minutes."""
    await backend.builds.serve([("served", "")])
    await backend.limits.ensure([LimitRule(name=ONE, slots=1)])
    each = [f"{ONE}{chr(30)}customer{chr(31)}{number % 60}" for number in range(300)]
    await backend.create_workflow_runs([NewRun("nobodys", limits=limits) for limits in each])
    (served,) = await given(backend, "served")
    await sql.execute(
        "update workflow_runs set available_at = now() - interval '2 min'"
        " where available_at <= now()"
    )
    await look_after(backend, sql)

    assert [served] == [run.id for run in await claim(session, "served")]
    await sound(backend)


async def test_who_is_served_is_heeded_where_all_workers_have_gone_for_now(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    """A fleet that was scaled to none comes back for what is due, and that has to be seen."""
    await backend.builds.serve([("served", "")])
    await given(backend, "nobodys", "nobodys")
    (served,) = await given(backend, "served")
    await long_ago(sql)
    await look_after(backend, sql)

    assert [served] == [run.id for run in await claim(session, "served")]
    await sound(backend)


async def test_a_slot_goes_on_whose_run_nobody_serves_any_more(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await backend.builds.serve([("old", ""), ("new", "")])
    await given(backend, "old", "old")
    (waits,) = await given(backend, "new")
    await look_after(backend, sql)
    assert [] == await claim(session, "new")

    await long_ago(sql)
    await backend.builds.serve([("new", "")])
    await look_after(backend, sql)

    assert [waits] == [run.id for run in await claim(session, "new")]
    await sound(backend)


@pytest.mark.parametrize("seen", [True, False])
async def test_a_slot_of_a_run_whose_build_is_gone_goes_on(
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    ow: OpenWorkflow,
    seen: bool,
) -> None:
    """Of workers of a version before, which do not say that they are there, nothing is known."""
    await backend.builds.register("b1")
    await backend.builds.serve([("a", "")], "b1" if seen else None)
    (bound,) = await given(backend, "a")
    await sql.execute("update workflow_runs set pinned = true, build_id = 'b1'")
    (waits,) = await given(backend, "a")
    await long_ago(sql)
    await backend.builds.serve([("a", "")], "b2")
    await look_after(backend, sql)

    assert ([waits] if seen else []) == [run.id for run in await claim(session, "a")]
    told = await ow.explain(bound)
    assert (Reason.UNSERVED if seen else Reason.BUILD) is told.reason
    assert seen is ("'b1', of which no worker is left: the last said so at" in told.sentence)
    (listed,) = [each for each in (await ow.list_runs()).runs if each.id == bound]
    standing = (await backend.control.standings([bound]))[bound]
    assert listed.pinned
    assert (not seen) is standing.build_known
    await sound(backend)

    # One of its workers is there again: whoever takes it has it wait.
    await backend.builds.serve([("a", "")], "b1")
    assert Reason.BUILD is (await ow.explain(bound)).reason


async def test_nothing_is_called_unserved_where_no_worker_has_said_anything(
    backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    await given(backend, "a", "b")
    await long_ago(sql)
    await look_after(backend, sql)

    assert [] == await claim(session, "b")  # it waits for a slot
    assert 1 == len(await claim(session, "a"))
    await sound(backend)


@workflow(limits=[Limit(1, name=ONE)], rate=Rate(100, per="1s", name="fast"))
async def swift(step: Step) -> str:
    return "done"


async def test_a_worker_that_starts_later_executes_all_of_what_nobody_served(
    backend: BackendPostgres,
    session: WorkerSession,
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
) -> None:
    """Though it may not say what it serves."""
    await backend.builds.serve([("served", "")])
    runs = [await ow.run_workflow(swift) for _ in range(20)]
    await pass_over(backend, session, sql)
    due = "select count(*) from workflow_runs where status = 'pending' and available_at <= now()"
    assert 20 == await sql.fetchval(due)
    await sql.execute(
        "create function refuse() returns trigger language plpgsql as"
        " $$begin raise exception 'not to be said'; end$$;"
        "create trigger refuse before insert on workflow_served execute function refuse()"
    )
    await start_worker(swift)

    done = "select count(*) from workflow_runs where status = 'succeeded'"
    assert await eventually(lambda: _is(sql, done, len(runs) + 2))
    claims = "select max(claim_no) from workflow_runs"
    assert 1 == await sql.fetchval(claims)
    await sound(backend)


async def _is(sql: asyncpg.Connection[Any], query: str, count: int) -> bool:
    return bool(count == await sql.fetchval(query))


@pytest.mark.parametrize("how", ["cancel", "pause", "deadline", "delete"])
async def test_what_is_done_with_a_run_that_nobody_serves_is_heeded(
    backend: BackendPostgres,
    session: WorkerSession,
    ow: OpenWorkflow,
    sql: asyncpg.Connection[Any],
    how: str,
) -> None:
    await backend.builds.serve([("served", "")])
    (left,) = await given(backend, "nobodys")
    await pass_over(backend, session, sql)
    assert Reason.UNSERVED is (await ow.explain(left)).reason
    if how == "cancel":
        await ow.cancel(left)
    elif how == "delete":
        await sql.execute("delete from workflow_runs where id = $1", left)
    elif how == "pause":
        await ow.pause(left)
        assert Reason.PAUSED is (await ow.explain(left)).reason
        assert [] == await claim(session, "nobodys")
        await ow.resume(left)
        assert [left] == [run.id for run in await claim(session, "nobodys")] or [left] == [
            run.id for run in await claim(session, "nobodys")
        ]
    else:
        await sql.execute("update workflow_runs set deadline_at = now() - interval '1 s'")
        await claim(session, "nobodys")
        assert 1 == await sql.fetchval(
            "select count(*) from workflow_runs where status = 'running'"
        ) or 1 == len(await claim(session, "nobodys"))
    await sound(backend)
