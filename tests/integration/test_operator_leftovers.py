"""The runs that an old build leaves: moved or failed, and never one that ended meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres
from openworkflow_contract.retirement import BATCH
from openworkflow_operator.database import queries
from openworkflow_operator.database.connection import Database
from openworkflow_operator.database.routes import fail_batch, move_batch

Settle = Callable[[Database, str, str], Coroutine[Any, Any, int]]
BOTH = pytest.mark.parametrize("settle", [fail_batch, move_batch])

ENDED = """
    select run.status, run.error::text, step.status, step.error::text, step.context::text
      from workflow_runs run join step_attempts step on step.workflow_run_id = run.id
     where run.namespace_id = $1"""


async def insert(sql: asyncpg.Connection[Any], count: int, status: str, build: str = "old") -> None:
    await sql.execute(
        "INSERT INTO workflow_runs"
        " (workflow_name, namespace_id, status, available_at, worker_id, build_id, pinned)"
        " SELECT 'w', 'orders', $1, now(), CASE $1 WHEN 'running' THEN 'a/1' END, $2, true"
        " FROM generate_series(1, $3)",
        status,
        build,
        count,
    )


@BOTH
async def test_waiting_and_running_ones_are_settled_and_no_others(
    database: Database, sql: asyncpg.Connection[Any], settle: Settle
) -> None:
    for status, count in (("pending", 3), ("running", 2), ("succeeded", 4)):
        await insert(sql, count, status)
    await insert(sql, 5, "pending", "another")

    assert 5 == await settle(database, "orders", "old")
    assert 0 == await settle(database, "orders", "old")


@BOTH
async def test_a_run_that_ends_at_the_same_moment_stays_as_it_ended(
    database: Database, sql: asyncpg.Connection[Any], settle: Settle
) -> None:
    await insert(sql, 1, "running")
    async with sql.transaction():
        await sql.execute(
            "UPDATE workflow_runs SET status = 'succeeded', worker_id = NULL, completed_at = now()"
        )
        settling = asyncio.create_task(settle(database, "orders", "old"))
        await asyncio.sleep(0.3)

    assert 0 == await settling
    assert "succeeded" == await sql.fetchval("SELECT status FROM workflow_runs")


async def test_the_operator_fails_them_as_the_command_does(
    database: Database, sql: asyncpg.Connection[Any], backend: BackendPostgres
) -> None:
    """Both wrote an error of their own, and the operator's dropped what the step had said."""

    async def by_operator() -> int:
        return await fail_batch(database, "orders", "old")

    async def by_command() -> int:
        return await backend.builds.settle("old", "fail")

    ended = []
    for namespace_id, fail in (("orders", by_operator), (backend.namespace_id, by_command)):
        await insert(sql, 1, "running")
        await sql.execute(
            "WITH run AS (UPDATE workflow_runs SET namespace_id = $1 WHERE status = 'running'"
            " RETURNING id)"
            " INSERT INTO step_attempts (workflow_run_id, step_name, kind, status, context)"
            """ SELECT id, 's', 'run', 'running', '{"seq": 1}' FROM run""",
            namespace_id,
        )
        assert 1 == await fail()
        ended.append(tuple(await sql.fetchrow(ENDED, namespace_id) or ()))

    assert ended[0] == ended[1]
    assert "BuildRetired" in ended[0][1]


@pytest.mark.parametrize("name", ["lock_pinned_runs", "unpin_build"])
async def test_it_costs_nothing_that_the_namespace_has_many_runs(
    sql: asyncpg.Connection[Any], name: str
) -> None:
    await insert(sql, 20_000, "succeeded", "another")
    await insert(sql, 1, "pending")
    await sql.execute("VACUUM ANALYZE workflow_runs")
    statement = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + queries.load("public")[name]

    async with sql.transaction():
        await sql.execute("SET LOCAL enable_seqscan = off")
        plan = json.loads(await sql.fetchval(statement, "orders", "old", BATCH))[0]["Plan"]

    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100
