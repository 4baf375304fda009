"""Finished runs whose time is over are deleted, and nothing else, page by page."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres
from openworkflow.core.workflow_run import RunStatus
from openworkflow_operator.api.spec import Key
from openworkflow_operator.database import retention
from openworkflow_operator.database.connection import ConnectOptions, Database, Kept, Pruned
from openworkflow_operator.database.dsn import Dsn, parse
from openworkflow_operator.database.retention import Pruner, Rest, Retention
from openworkflow_operator.decide.observation import Pruning
from tests.helpers import eventually

LOCAL = ConnectOptions(allow_loopback=True)
KEY = Key("shop", "orders")
HOUR, DAY = 3600, 86_400
AT_ONCE = Rest(0, 0.05, 0.05, 0.05)
START = UUID(int=0)


async def insert(
    sql: asyncpg.Connection[Any],
    count: int = 1,
    status: str = "succeeded",
    age: float = 2 * DAY,
    namespace_id: str = "orders",
) -> None:
    """Runs that ended so many seconds ago, or have not, with two steps each."""
    await sql.execute(
        """
        WITH runs AS (
          INSERT INTO workflow_runs
            (workflow_name, namespace_id, status, available_at, completed_at)
          SELECT 'w', $1, $2, now(),
            CASE WHEN $2 IN ('succeeded', 'failed', 'canceled')
              THEN now() - $3 * interval '1 second' END
          FROM generate_series(1, $4)
          RETURNING id
        )
        INSERT INTO step_attempts (workflow_run_id, step_name, kind, status)
        SELECT id, name, 'function', 'succeeded' FROM runs, unnest('{a,b}'::text[]) AS name
        """,
        namespace_id,
        status,
        float(age),
        count,
    )


async def test_what_a_new_build_is_judged_by_is_kept(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    """The canary too: else one that failed would be started again, until it succeeds once."""
    await insert(sql, 3)
    await insert(sql, 2, namespace_id="other")
    for build in ("old", "new"):
        await sql.execute(
            "INSERT INTO workflow_runs"
            " (workflow_name, namespace_id, status, available_at, completed_at, build_id)"
            " VALUES ('w', 'orders', 'succeeded', now(), now() - interval '2 days', $1)",
            build,
        )

    kept = [Kept("orders", "succeeded", DAY, "new"), Kept("other", "succeeded", DAY)]
    pages = await walk(database, kept, page=10)

    assert {"orders": 4, "other": 2} == pages[0].deleted
    assert "new" == await sql.fetchval("SELECT build_id FROM workflow_runs")


async def counts(sql: asyncpg.Connection[Any]) -> tuple[int, int]:
    """Runs and steps."""
    runs = await sql.fetchval("SELECT count(*) FROM workflow_runs")
    return runs, await sql.fetchval("SELECT count(*) FROM step_attempts")


async def walk(database: Database, kept: list[Kept], page: int) -> list[Pruned]:
    pages = [await database.prune(kept, START, page)]
    while (after := pages[-1].last) is not None:
        pages.append(await database.prune(kept, after, page))
    return pages


async def test_what_openworkflow_prune_would_delete_is_deleted(
    database: Database, sql: asyncpg.Connection[Any], database_url: str
) -> None:
    for status in ("succeeded", "failed", "canceled", "pending", "running"):
        for age in (60, 2 * HOUR, 2 * DAY):
            await insert(sql, 3, status, age)
            await insert(sql, 2, status, age, "other")
    orders = await BackendPostgres.connect(database_url, namespace_id="orders")
    try:

        async def would_be(status: str, seconds: int) -> int:
            older = timedelta(seconds=seconds)
            return sum([n async for n in orders.prune([RunStatus(status)], older, dry_run=True)])

        assert (6, 3) == (await would_be("succeeded", HOUR), await would_be("failed", DAY))
        kept = [Kept("orders", "succeeded", HOUR), Kept("orders", "failed", DAY)]
        pages = await walk(database, kept, page=10)

        assert (0, 0) == (await would_be("succeeded", HOUR), await would_be("failed", DAY))
    finally:
        await orders.stop()
    assert 9 == sum(page.deleted.get("orders", 0) for page in pages)
    assert (75 - 9, 2 * (75 - 9)) == await counts(sql)
    assert 7 <= len(pages) <= 8  # 75 rows in pages of 10


async def test_one_walk_serves_every_namespace_by_its_own_rules(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await insert(sql, 3, age=2 * HOUR)
    await insert(sql, 3, age=2 * HOUR, namespace_id="strict")
    await insert(sql, 3, age=2 * HOUR, namespace_id="unknown")
    kept = [Kept("orders", "succeeded", DAY), Kept("strict", "succeeded", HOUR)]

    (page,) = await walk(database, kept, page=100)

    assert {"strict": 3} == page.deleted
    assert (6, 12) == await counts(sql)


async def test_a_run_that_somebody_holds_is_left_for_the_next_walk(
    database: Database, sql: asyncpg.Connection[Any]
) -> None:
    await insert(sql, 3)
    kept = [Kept("orders", "succeeded", DAY)]
    async with sql.transaction():
        await sql.execute(
            "SELECT 1 FROM workflow_runs WHERE id = (SELECT min(id::text)::uuid FROM workflow_runs)"
            " FOR UPDATE"
        )
        assert {"orders": 2} == (await walk(database, kept, page=100))[0].deleted
    assert {"orders": 1} == (await walk(database, kept, page=100))[0].deleted


class Told:
    """What a pruner told."""

    def __init__(self) -> None:
        self.ended: list[Key] = []
        self.deleted: dict[Key, int] = {}
        self.failures: list[str] = []

    def count(self, key: Key, runs: int) -> None:
        self.deleted[key] = self.deleted.get(key, 0) + runs

    def pruner(self, rest: Rest = AT_ONCE) -> Pruner:
        return Pruner(self.ended.append, self.count, self.failures.append, LOCAL, rest)


async def test_the_pruner_walks_again_and_again_and_tells_of_changes_only(
    database_url: str, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAGE", 7)
    await insert(sql, 40)
    told = Told()
    async with told.pruner() as pruner:
        pruner.keep(KEY, Retention(parse(database_url), "public", "orders", {"succeeded": DAY}))
        assert pruner.last(KEY) is None
        await eventually(lambda: told.deleted == {KEY: 40})
        await insert(sql, 2)
        await eventually(lambda: told.deleted == {KEY: 42})
        await eventually(lambda: pruner.last(KEY) == Pruning())
        assert [KEY] == told.ended
        pruner.forget(KEY)
        assert pruner.last(KEY) is None
    assert [] == told.failures


async def test_a_role_that_may_not_delete_is_told_until_it_may(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    await insert(sql, 3)
    role = f"reader_{sql.get_server_pid()}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    await sql.execute(f"GRANT SELECT ON workflow_runs TO {role}")
    own = parse(database_url)
    reader = Dsn(own.hosts, own.ports, own.database, role, "p", own.tls)
    told = Told()
    try:
        async with told.pruner() as pruner:
            pruner.keep(KEY, Retention(reader, "public", "orders", {"succeeded": DAY}))
            await eventually(lambda: problem_of(pruner) == "PermissionDenied")
            assert "PermissionDenied" in told.failures
            await sql.execute(f"GRANT UPDATE, DELETE ON workflow_runs TO {role}")
            await eventually(lambda: pruner.last(KEY) == Pruning())
            assert {KEY: 3} == told.deleted
    finally:
        await sql.execute(f"DROP OWNED BY {role}")
        await sql.execute(f"DROP ROLE {role}")


async def test_a_page_that_takes_too_long_becomes_smaller(
    database_url: str, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert(sql, 40)
    sizes: list[int] = []
    prune = Database.prune

    async def slow(self: Database, kept: Any, after: UUID, page: int) -> Pruned:
        sizes.append(page)
        if page > 20:
            raise TimeoutError
        return await prune(self, kept, after, page)

    monkeypatch.setattr(Database, "prune", slow)
    told = Told()
    async with told.pruner() as pruner:
        pruner.keep(KEY, Retention(parse(database_url), "public", "orders", {"succeeded": DAY}))
        await eventually(lambda: told.deleted == {KEY: 40})
    assert [1000, 250, 62, 15] == sizes[:4]


async def test_walks_through_one_database_are_one_and_end_with_their_last_resource(
    database_url: str,
) -> None:
    dsn, other = parse(database_url), Key("shop", "other")
    async with Told().pruner(Rest(first=60)) as pruner:
        pruner.keep(KEY, Retention(dsn, "public", "orders", {"failed": HOUR}))
        pruner.keep(other, Retention(dsn, "public", "other", {"failed": HOUR}))
        assert 1 == len(pruner._walkers)
        (walker,) = pruner._walkers.values()
        pruner.keep(other, Retention(dsn, "elsewhere", "other", {"failed": HOUR}))
        assert 2 == len(pruner._walkers)
        pruner.forget(KEY)
        assert 1 == len(pruner._walkers)
        await asyncio.wait([walker.task])
        assert walker.task.cancelled()


def problem_of(pruner: Pruner) -> str | None:
    last = pruner.last(KEY)
    return None if last is None or last.problem is None else last.problem.reason
