"""Runs and signals that are part of a caller's own transaction, whichever library it is of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from openworkflow import ConfigurationError, OpenWorkflow, Step, Unique, workflow
from tests.helpers import StartWorker


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
    ow: OpenWorkflow, database_url: str
) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=0, max_size=1)
    others: list[tuple[Any, str]] = [
        (pool, "async with pool.acquire"),
        (Session(), "docs/schema.md"),
        (database_url, "docs/schema.md"),
    ]
    for given, told in others:
        with pytest.raises(ConfigurationError, match=told):
            await ow.run_workflow(welcome, "ada", connection=given)
        with pytest.raises(ConfigurationError, match=told):
            await ow.signal("topic", 1, connection=given)
    async with pool.acquire() as connection, connection.transaction():
        await ow.run_workflow(welcome, "ada", connection=connection)
    await pool.close()
    assert await names(ow) == ["welcome"]
