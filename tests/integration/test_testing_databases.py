"""The testing kit's databases: one for each test, used again only if nothing is left in it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from openworkflow import ConfigurationError
from openworkflow.testing.databases import Databases
from openworkflow.testing.server import Server
from tests.postgres import DatabaseServer, run_sync


@pytest.fixture
def databases(postgres: DatabaseServer) -> Iterator[Databases]:
    made = Databases(Server(postgres.admin_url))
    yield made
    made.close()


def execute(url: str, *statements: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return run_sync(run)


def test_a_database_is_emptied_and_used_again(databases: Databases) -> None:
    first = databases.take()
    execute(
        first.url,
        "insert into workflow_runs (namespace_id, id, workflow_name, status, config, available_at)"
        " values ('default', gen_random_uuid(), 'w', 'pending', '{}', now())",
        "update openworkflow_clock.clock set ahead = '1 year'",
        "select 1",
    )
    databases.give_back(first, clean=True)
    second = databases.take()
    assert second is first
    assert execute(second.url, "select count(*) from workflow_runs") == 0
    assert execute(second.url, "select now() - pg_catalog.now() = interval '0'")


def test_a_database_with_something_left_in_it_is_dropped(
    databases: Databases, postgres: DatabaseServer
) -> None:
    changed, busy = databases.take(), databases.take()
    execute(changed.url, "create table mine (id int)", "select 1")
    databases.give_back(changed, clean=True)
    databases.give_back(busy, clean=False)
    third = databases.take()
    assert third.name not in (changed.name, busy.name)
    names = f"('{changed.name}', '{busy.name}')"
    assert postgres.fetch_value(f"select count(*) from pg_database where datname in {names}") == 0


def test_what_a_killed_process_has_left_is_dropped_a_day_later(
    databases: Databases, postgres: DatabaseServer
) -> None:
    now = int(time.time())
    mark = f"{os.getpid()}x{now}"
    old, new = (f"openworkflow_testing_t_{now - age}_{mark}" for age in (90_000, 3_600))
    postgres.create_database(old)
    postgres.create_database(new)
    try:
        databases.give_back(databases.take(), clean=True)
        left = f"select string_agg(datname, ' ') from pg_database where datname like '%{mark}'"
        assert postgres.fetch_value(left) == new
    finally:
        postgres.drop_database(old)
        postgres.drop_database(new)


def test_all_sql_of_the_tables_reads_the_clock_of_the_test(databases: Databases) -> None:
    url = databases.take().url
    functions = (
        "select string_agg(proname, ' ') from pg_proc"
        " where pronamespace = 'public'::regnamespace"
        r" and prosrc ~ '(?<!openworkflow_clock\.)\m(now|clock_timestamp)\(\)'"
    )
    defaults = (
        "select string_agg(adrelid::regclass || '.' || adnum, ' ') from pg_attrdef"
        " join pg_class on pg_class.oid = adrelid where relnamespace = 'public'::regnamespace"
        " and pg_get_expr(adbin, adrelid) ~ 'now|clock_timestamp'"
        " and pg_get_expr(adbin, adrelid) !~ 'openworkflow_clock'"
    )
    other = "(current_|local)time|(transaction|statement)_timestamp|timeofday"
    assert execute(url, functions) is None
    # PostgreSQL names the schema of a function that the search_path would not find first.
    assert execute(url, "set search_path = public", defaults) is None
    for source in [*(Path(__file__).parents[2] / "worker/openworkflow/backend").rglob("*.sql")]:
        assert not re.search(other, source.read_text(), re.IGNORECASE), source


def test_where_there_is_no_postgresql_the_ways_to_one_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TEST_DATABASE_URL")
    monkeypatch.setitem(sys.modules, "fasteners", None)
    with pytest.raises(ConfigurationError, match=r"'openworkflow-fleet\[dev\]'.*TEST_DATABASE_URL"):
        asyncio.run(Server().start())


EMBEDDED = """
import asyncio

from openworkflow import Step, workflow
from openworkflow.testing import environment


@workflow
async def sleeper(step: Step) -> str:
    await step.sleep("a-year", "365d")
    return "rested"


async def main():
    async with environment() as env:
        print((await env.run(sleeper)).output)


asyncio.run(main())
"""


@pytest.mark.timeout(300)  # it makes a server
def test_two_processes_that_come_first_at_once_share_the_embedded_server() -> None:
    environ = {k: v for k, v in os.environ.items() if k != "TEST_DATABASE_URL"}
    with tempfile.TemporaryDirectory() as folder:  # a short path: a socket lives in it
        command = [sys.executable, "-c", EMBEDDED]
        running = [
            subprocess.Popen(
                command,
                env={**environ, "XDG_DATA_HOME": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for each in running:
            out, errors = each.communicate(timeout=280)
            assert out == "rested\n", errors
        assert not (Path(folder) / "openworkflow" / "testing" / "postmaster.pid").exists()
