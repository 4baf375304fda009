"""The runs that an old build leaves: moved or failed, and never one that ended meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from openworkflow_operator.database.connection import ConnectOptions, Database, _statement

LOCAL = ConnectOptions(allow_loopback=True)
BOTH = pytest.mark.parametrize("file", ["fail_runs.sql", "move_runs.sql"])


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
    database: Database, sql: asyncpg.Connection[Any], file: str
) -> None:
    for status, count in (("pending", 3), ("running", 2), ("succeeded", 4)):
        await insert(sql, count, status)
    await insert(sql, 5, "pending", "another")

    assert 5 == len(await database.write(file, "orders", "old"))
    assert [] == await database.write(file, "orders", "old")


@BOTH
async def test_a_run_that_ends_at_the_same_moment_stays_as_it_ended(
    database: Database, sql: asyncpg.Connection[Any], file: str
) -> None:
    await insert(sql, 1, "running")
    async with sql.transaction():
        await sql.execute(
            "UPDATE workflow_runs SET status = 'succeeded', worker_id = NULL, completed_at = now()"
        )
        settling = asyncio.create_task(database.write(file, "orders", "old"))
        await asyncio.sleep(0.3)

    assert [] == await settling
    assert "succeeded" == await sql.fetchval("SELECT status FROM workflow_runs")


@BOTH
async def test_it_costs_nothing_that_the_namespace_has_many_runs(
    sql: asyncpg.Connection[Any], file: str
) -> None:
    await insert(sql, 20_000, "succeeded", "another")
    await insert(sql, 1, "pending")
    await sql.execute("VACUUM ANALYZE workflow_runs")
    statement = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + _statement(file, "public")

    async with sql.transaction():
        await sql.execute("SET LOCAL enable_seqscan = off")
        plan = json.loads(await sql.fetchval(statement, "orders", "old"))[0]["Plan"]

    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100
