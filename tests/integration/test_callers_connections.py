"""Runs and signals that are part of a caller's own transaction, whichever library it is of."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from psycopg_pool import ConnectionPool
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from openworkflow import BackendError, ConfigurationError, OpenWorkflow, Step, Unique, workflow
from tests.callers import django_connection
from tests.helpers import StartWorker, eventually


@workflow
async def welcome(input: str, step: Step) -> str:
    return f"welcome, {input}"


@workflow
async def waiting(step: Step) -> str:
    word: str = await step.wait_for_signal("word", type=str)
    return word


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    yield engine
    await engine.dispose()


async def names(ow: OpenWorkflow) -> list[str]:
    return [run.workflow_name for run in (await ow.list_runs()).runs]


async def test_the_first_statement_of_a_session_is_part_of_it(
    ow: OpenWorkflow, engine: AsyncEngine
) -> None:
    """SQLAlchemy has begun nothing by then."""
    async with AsyncSession(engine) as session:
        await ow.run_workflow(welcome, "ada", connection=session)
        assert await names(ow) == []
        await session.rollback()
    assert await names(ow) == []

    async with AsyncSession(engine) as session:
        await ow.run_workflow(welcome, "ada", connection=session)
        await session.commit()
    assert await names(ow) == ["welcome"]


async def test_a_session_that_has_done_something_before_and_after(
    ow: OpenWorkflow, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(text("create table account (mail text primary key)"))
        await ow.run_workflows(welcome, ["ada", "bob"], connection=session)
        await session.execute(text("insert into account values ('ada')"))
    assert await names(ow) == ["welcome", "welcome"]

    async def twice() -> None:
        async with AsyncSession(engine) as session, session.begin():
            await ow.run_workflow(welcome, "ada", connection=session)
            await session.execute(text("insert into account values ('ada')"))

    with pytest.raises(IntegrityError, match="duplicate key"):
        await twice()
    assert len(await names(ow)) == 2


async def test_a_savepoint_that_is_rolled_back_takes_its_run_with_it(
    ow: OpenWorkflow, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await ow.run_workflow(welcome, "outer", connection=session)
        savepoint = await session.begin_nested()
        await ow.run_workflow(welcome, "inner", connection=session)
        await savepoint.rollback()
    (run,) = (await ow.list_runs()).runs
    assert run.input == "outer"


async def test_connections_keys_and_signals(
    ow: OpenWorkflow, engine: AsyncEngine, start_worker: StartWorker
) -> None:
    await start_worker(waiting)
    async with engine.begin() as connection:
        run = await ow.run_workflow(waiting, unique=Unique("one"), connection=connection)
        await ow.signal(run.id, "word", "yes", connection=connection)
    assert await ow.handle(run.id, waiting).result(timeout="20s") == "yes"


async def test_after_a_refusal_the_session_goes_on(ow: OpenWorkflow, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        run = await ow.run_workflow(welcome, "ada", unique="one", connection=session)
        again = await ow.run_workflow(welcome, "ada", unique="one", connection=session)
        assert (again.id, again.created) == (run.id, False)
    assert len(await names(ow)) == 1


async def test_what_cannot_be_sent_on_is_refused_before_anything_is_stored(
    ow: OpenWorkflow, engine: AsyncEngine, database_url: str
) -> None:
    """By name, with what to write instead."""
    lite = sqlalchemy.create_engine("sqlite://")
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=1)
    blocking = ConnectionPool(database_url, min_size=0, max_size=1, open=False)
    others: list[tuple[Any, str]] = [
        (pool, "async with pool.acquire"),
        (blocking, "with pool.connection"),
        (engine, "async with engine.begin"),
        (lite, "with engine.begin"),
        (sessionmaker(lite), "a session that it makes"),
        (Session(lite), "docs/schema.md"),
        (sqlite3.connect(":memory:"), "docs/schema.md"),
        (database_url, "docs/schema.md"),
        (object(), "docs/schema.md"),
    ]
    for given, told in others:
        with pytest.raises(ConfigurationError, match=told):
            await ow.run_workflow(welcome, "ada", connection=given)
        with pytest.raises(ConfigurationError, match=told):
            await ow.signal("topic", 1, connection=given)
    async with pool.acquire() as connection, connection.transaction():
        await ow.run_workflow(welcome, "ada", connection=connection)
    await pool.close()
    others[6][0].close()
    lite.dispose()
    assert await names(ow) == ["welcome"]


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_pipeline_of_the_callers_takes_runs_and_keeps_its_order(
    ow: OpenWorkflow, database_url: str, blocking: bool
) -> None:
    """It answered with no rows, which was an IndexError after the run had been sent."""
    given: Any
    if blocking:
        with psycopg.connect(database_url) as given, given.pipeline():
            given.execute("create table kept (n int)")
            await ow.run_workflow(welcome, "ada", connection=given)
            given.execute("insert into kept values (1)")
    else:
        async with await psycopg.AsyncConnection.connect(database_url) as given, given.pipeline():
            await given.execute("create table kept (n int)")
            await ow.run_workflow(welcome, "ada", connection=given)
            await given.execute("insert into kept values (1)")
    assert await names(ow) == ["welcome"]


async def test_a_transaction_that_has_failed_says_so_by_every_library(
    ow: OpenWorkflow, engine: AsyncEngine, database_url: str
) -> None:
    told = "current transaction is aborted.*; a statement before it failed: roll back"
    async with (
        AsyncSession(engine) as session,
        engine.connect() as connection,
        await psycopg.AsyncConnection.connect(database_url) as driver,
    ):
        each: tuple[Any, ...] = (session, connection, driver)
        for given in each:
            failing: Any = "select 1/0" if given is driver else text("select 1/0")
            with pytest.raises((DBAPIError, psycopg.Error)):
                await given.execute(failing)
            with pytest.raises(BackendError, match=told):
                await ow.run_workflow(welcome, "ada", connection=given)
            await given.rollback()
            await ow.run_workflow(welcome, "ada", connection=given)
            await given.commit()
    assert await names(ow) == ["welcome"] * 3


async def test_a_connection_that_commits_each_statement_is_refused(
    ow: OpenWorkflow, engine: AsyncEngine, database_url: str
) -> None:
    """The run would be there at once, and stay whatever became of the rest."""
    plain = await asyncpg.connect(database_url)
    blocking = psycopg.connect(database_url, autocommit=True)
    older = psycopg2.connect(database_url)
    older.autocommit = True
    parallel = engine.execution_options(isolation_level="AUTOCOMMIT")
    django = django_connection(database_url)
    django.inc_thread_sharing()
    async with AsyncSession(parallel) as session, parallel.connect() as connection:
        for given in (plain, blocking, older, session, connection, django):
            with pytest.raises(ConfigurationError, match="in no transaction"):
                await ow.run_workflow(welcome, "ada", connection=given)
            with pytest.raises(ConfigurationError, match="in no transaction"):
                await ow.signal("topic", 1, connection=given)
    assert await names(ow) == []
    with blocking.transaction():
        await ow.run_workflow(welcome, "ada", connection=blocking)
    assert await names(ow) == ["welcome"]
    await plain.close()
    await asyncio.to_thread(django.close)
    for each in (blocking, older):
        each.close()


async def test_a_call_that_is_given_up_leaves_its_connection_alone(
    ow: OpenWorkflow, database_url: str
) -> None:
    """The statement goes on in its thread; who has given up hears so when that has ended."""
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        await ow.run_workflow(welcome, "ada", idempotency_key="k", connection=first)
        waiting = asyncio.create_task(
            ow.run_workflow(welcome, "bob", idempotency_key="k", connection=second)
        )
        await eventually(lambda: blocked(first))
        waiting.cancel()
        first.commit()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert second.execute("select 1").fetchone() == (1,)
    assert await names(ow) == ["welcome"]


def blocked(connection: psycopg.Connection[Any]) -> bool:
    """Whether somebody waits for it."""
    sql = "select count(*) from pg_locks where pg_backend_pid() = any(pg_blocking_pids(pid))"
    row = connection.execute(sql).fetchone()
    return row is not None and row[0] > 0
