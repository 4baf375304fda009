"""Transactions of others that stay open for long, with locks that a request needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, Unique, workflow
from openworkflow.backend import connection as connections
from openworkflow.backend import requests
from openworkflow.core.errors import BackendError, ConfigurationError, ConnectionLost
from tests.guarded_postgres import has_pgbouncer, pooler_of

WAITING = """
select count(*) from pg_stat_activity
 where datname = current_database() and wait_event_type = 'Lock'
"""


@workflow
async def one_step(step: Step, number: int) -> int:
    return await step.run("a", lambda: number)


@pytest.fixture(params=["direct", "pooled"])
async def client(
    request: pytest.FixtureRequest,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[OpenWorkflow]:
    """One that gives up soon."""
    monkeypatch.setitem(connections.REQUEST_LIMITS, "lock_timeout", "100")
    monkeypatch.setattr(requests, "REPEAT_SECONDS", 0.0)
    if request.param == "direct":
        backend = await BackendPostgres.connect(database_url)
        yield OpenWorkflow(backend)
        await backend.stop()
        return
    if not has_pgbouncer():
        pytest.skip("needs PgBouncer (make test-programs)")
    with pooler_of(database_url, tmp_path_factory.mktemp("pooler")) as url:
        backend = await BackendPostgres.connect(url)
        assert backend.pooled
        yield OpenWorkflow(backend)
        await backend.stop()


@pytest.mark.parametrize("how", ["idempotency_key", "unique"])
async def test_who_starts_what_another_transaction_is_starting_is_told(
    client: OpenWorkflow, sql: asyncpg.Connection[Any], how: str
) -> None:
    """He was told that the database does not answer, each time with a backend left that waits."""
    key: Any = Unique("k") if how == "unique" else "k"
    transaction = sql.transaction()
    await transaction.start()
    await client.run_workflow(one_step, 1, connection=sql, **{how: key})

    with pytest.raises(BackendError, match="holds the row, the key or the table") as caught:
        await client.run_workflow(one_step, 1, **{how: key})

    assert not isinstance(caught.value, ConnectionLost)
    assert not caught.value.in_doubt
    assert 0 == client._backend._requests.silences.count
    assert 0 == await sql.fetchval(WAITING)
    await transaction.rollback()
    assert 0 == await sql.fetchval("select count(*) from workflow_runs")


async def test_a_transaction_that_was_begun_by_sql_is_refused_with_what_to_write(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    await sql.execute("begin")

    with pytest.raises(ConfigurationError, match=r"begin it by async with connection.transaction"):
        await ow.run_workflow(one_step, 1, connection=sql)

    await sql.execute("rollback")
    assert 0 == await sql.fetchval("select count(*) from workflow_runs")
