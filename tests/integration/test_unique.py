"""Keys that one run of a workflow has at a time, and calls that are put together into one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import (
    BackendPostgres,
    Debounce,
    Limit,
    OpenWorkflow,
    RunExists,
    RunStatus,
    Unique,
    workflow,
)
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.workflow_run import WorkflowRun
from tests.flushes import claim, end_of, flush, session_of


@workflow
async def sync_user(user: str) -> None: ...


@workflow(limits=[Limit(1, key=lambda user: user)])
async def limited(user: str) -> None: ...


async def run_of(backend: BackendPostgres, run_id: UUID) -> WorkflowRun:
    run = await backend.get_workflow_run(run_id)
    assert run is not None
    return run


async def test_a_second_call_gets_the_run_that_has_the_key_until_it_ends(
    ow: OpenWorkflow, backend: BackendPostgres
) -> None:
    session = await session_of(backend)
    first = await ow.run_workflow(sync_user, "ann", unique="ann")
    again = await ow.run_workflow(sync_user, "bob", unique="ann")
    other = await ow.run_workflow(sync_user, "bob", unique="bob")
    of_another = await ow.run_workflow("else", "ann", unique="ann")

    assert (True, False) == (first.created, again.created)
    assert first.id == again.id
    assert 3 == len({first.id, other.id, of_another.id})
    with pytest.raises(RunExists, match="has the key 'ann'") as refused:
        await ow.run_workflow(sync_user, "ann", unique=Unique("ann", on_conflict="reject"))
    assert first.id == ow.handle(refused.value.run_id).id
    runs = await claim(session, "sync-user")
    await flush(session, ends=[end_of(run) for run in runs])
    later = await ow.run_workflow(sync_user, "ann", unique=Unique("ann", on_conflict="reject"))
    assert later.created
    await session.close()


async def test_one_that_has_not_begun_takes_the_new_input_and_its_limits(
    ow: OpenWorkflow, backend: BackendPostgres
) -> None:
    session, rule = await session_of(backend), Unique("k", on_conflict="replace")
    first = await ow.run_workflow(limited, "ann", unique=rule)
    second = await ow.run_workflow(limited, "bob", unique=rule)

    assert first.id == second.id
    run = await run_of(backend, first.id)
    assert ("bob", ["limited/key\x1fbob"]) == (run.input, run.limits)
    assert [first.id] == [each.id for each in await claim(session, "limited")]
    third = await ow.run_workflow(limited, "eve", unique=rule)
    fourth = await ow.run_workflow(limited, "kim", unique=rule)
    assert first.id != third.id == fourth.id
    assert [] == (await backend.diagnostics()).violations
    await session.close()


async def test_one_that_runs_is_canceled(ow: OpenWorkflow, backend: BackendPostgres) -> None:
    session = await session_of(backend)
    first = await ow.run_workflow(limited, "ann", unique="k")
    await claim(session, "limited")

    second = await ow.run_workflow(limited, "ann", unique=Unique("k", on_conflict="cancel"))

    assert RunStatus.CANCELED == (await run_of(backend, first.id)).status
    assert [second.id] == [each.id for each in await claim(session, "limited")]
    await session.close()


async def test_of_many_at_once_one_is_stored(ow: OpenWorkflow, backend: BackendPostgres) -> None:
    calls = [ow.run_workflow(sync_user, str(n), unique="k") for n in range(20)]
    handles = await asyncio.gather(*calls)

    assert 1 == len({each.id for each in handles})
    assert [True] == [each.created for each in handles if each.created]
    assert 1 == sum((await backend.count_runs()).values())


async def test_a_transaction_that_is_rolled_back_has_had_no_key(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    transaction = sql.transaction()
    await transaction.start()
    first = await ow.run_workflow(sync_user, "ann", unique="k", connection=sql)
    same = await ow.run_workflow(sync_user, "ann", unique="k", connection=sql)
    waiting = asyncio.create_task(ow.run_workflow(sync_user, "bob", unique="k"))
    await asyncio.sleep(0.1)
    assert (first.id, False) == (same.id, waiting.done())
    await transaction.rollback()

    assert (await waiting).created


@pytest.mark.parametrize("which", [sync_user, limited])
async def test_calls_that_come_shortly_after_each_other_are_one_run_with_the_last_input(
    ow: OpenWorkflow, backend: BackendPostgres, sql: asyncpg.Connection[Any], which: Any
) -> None:
    how = Debounce("k", "10s", max_wait="15s")
    first = await ow.run_workflow(which, "ann", debounce=how)
    before = await run_of(backend, first.id)
    await sql.execute("update workflow_keys set since = since - interval '3 s'")
    second = await ow.run_workflow(which, "bob", debounce=how)
    after = await run_of(backend, first.id)
    await sql.execute("update workflow_keys set since = since - interval '5 s'")
    await ow.run_workflow(which, "eve", debounce=how)
    last = await run_of(backend, first.id)

    assert first.id == second.id
    assert ("bob", "eve") == (after.input, last.input)
    assert timedelta(seconds=10) == before.available_at - before.created_at
    assert before.available_at < after.available_at
    assert last.available_at - last.created_at < timedelta(seconds=9)
    assert [] == (await backend.diagnostics()).violations


async def test_wrong_ones_are_refused_and_store_nothing(
    ow: OpenWorkflow, backend: BackendPostgres
) -> None:
    wrong: list[dict[str, Any]] = [
        {"unique": ""},
        {"unique": Unique("k", on_conflict="ask")},  # type: ignore[arg-type]
        {"unique": "k", "debounce": Debounce("k", 1)},
        {"unique": "k", "idempotency_key": "k"},
        {"debounce": Debounce("k", "soon")},
        {"debounce": "5s"},
    ]
    for options in wrong:
        with pytest.raises(ConfigurationError):
            await ow.run_workflow(sync_user, "ann", **options)
    assert 0 == sum((await backend.count_runs()).values())


async def test_keys_of_runs_that_have_ended_are_forgotten(
    ow: OpenWorkflow, backend: BackendPostgres, sql: asyncpg.Connection[Any]
) -> None:
    done = await ow.run_workflow(sync_user, "ann", unique="a")
    await ow.run_workflow(sync_user, "bob", unique="b")
    await ow.cancel(done.id)
    await sql.execute("update workflow_keys set since = since - interval '2 h'")

    await backend.limits.declare([], ["sync-user"])

    assert "b" == await sql.fetchval("select string_agg(key, ',') from workflow_keys")
