"""Runs in transactions of callers: the same laws, whichever library the connection is of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from openworkflow import (
    BackendPostgres,
    ConfigurationError,
    ConnectionLost,
    Limit,
    OpenWorkflow,
    RunNotFound,
    Step,
    Unique,
    workflow,
)
from tests.callers import CALLERS, VARIANTS, Caller
from tests.hearing import Heard, wake_ups_so_far
from tests.helpers import StartWorker, eventually
from tests.postgres import DatabaseServer


@workflow
async def welcome(input: str, step: Step) -> str:
    return f"welcome, {input}"


@workflow
async def waiting(step: Step) -> str:
    word: str = await step.wait_for_signal("word", type=str)
    return word


@workflow(limits=[Limit(1, name="mailer")])
async def limited(input: str, step: Step) -> str:
    return f"limited, {input}"


@pytest.fixture(params=CALLERS, ids=lambda kind: kind.__name__)
async def caller(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Caller]:
    caller: Caller = request.param(database_url)
    await caller.open()
    yield caller
    await caller.close()


async def inputs(ow: OpenWorkflow) -> set[Any]:
    return {run.input for run in (await ow.list_runs()).runs}


@pytest.mark.parametrize("caller", CALLERS + VARIANTS, indirect=True)
async def test_as_the_first_statement_it_ends_as_the_transaction_does(
    ow: OpenWorkflow, caller: Caller
) -> None:
    await ow.run_workflow(welcome, "ada", connection=caller.given)
    assert await inputs(ow) == set()
    await caller.rollback()
    assert await inputs(ow) == set()

    await ow.run_workflow(welcome, "bob", connection=caller.given)
    assert await inputs(ow) == set()
    await caller.commit()
    assert await inputs(ow) == {"bob"}


async def test_many_with_keys_times_and_limits(
    ow: OpenWorkflow, caller: Caller, start_worker: StartWorker
) -> None:
    """Each kind of parameter that our statements have, sent by each driver."""
    await caller.execute("select 1")
    keys, texts = ["a", None, "a%b"], ["ada", "b\"o\\b's %s $1", "ünï"]
    runs = await ow.run_workflows(
        welcome,
        texts,
        idempotency_keys=keys,
        available_at=timedelta(seconds=0),
        deadline="1h",
        tags={"of": "mine"},
        priority=3,
        connection=caller.given,
    )
    again = await ow.run_workflow(welcome, "other", idempotency_key="a%b", connection=caller.given)
    assert (again.id, again.created) == (runs[2].id, False)
    other = await ow.run_workflow(limited, "one", connection=caller.given)
    assert await inputs(ow) == set()
    await caller.commit()
    assert await inputs(ow) == {*texts, "one"}
    await start_worker(welcome, limited)
    assert [await run.result("20s") for run in runs] == [f"welcome, {text}" for text in texts]
    assert await other.result("20s") == "limited, one"


async def test_what_a_savepoint_takes_back(ow: OpenWorkflow, caller: Caller) -> None:
    await ow.run_workflow(welcome, "outer", connection=caller.given)
    await caller.execute("savepoint mine")
    await ow.run_workflow(welcome, "inner", unique="k", connection=caller.given)
    await caller.execute("rollback to savepoint mine")
    await caller.commit()
    assert await inputs(ow) == {"outer"}


async def test_a_refusal_leaves_the_transaction_as_it_was(
    ow: OpenWorkflow, caller: Caller, start_worker: StartWorker
) -> None:
    run = await ow.run_workflow(waiting, unique=Unique("one"), connection=caller.given)
    again = await ow.run_workflow(waiting, unique=Unique("one"), connection=caller.given)
    assert (again.id, again.created) == (run.id, False)
    with pytest.raises(RunNotFound):
        await ow.signal(UUID(int=7), "word", "no", connection=caller.given)
    await ow.signal(run.id, "word", "yes", connection=caller.given)
    await ow.signal("topic", 1, connection=caller.given)
    await caller.commit()
    await start_worker(waiting)
    assert await run.result("20s") == "yes"


async def test_workers_hear_of_it_if_it_is_committed_and_not_before(
    ow: OpenWorkflow, backend: BackendPostgres, caller: Caller
) -> None:
    async with backend.listen() as listener:
        heard = Heard(listener)
        await ow.run_workflow(welcome, "ada", connection=caller.given)
        await caller.rollback()
        await ow.run_workflow(welcome, "bob", connection=caller.given)
        before = await wake_ups_so_far(backend, heard)
        await caller.commit()
        await eventually(lambda: heard.work > before + 1)
    assert before == 0


async def test_an_error_of_the_database_is_ours_and_the_transaction_is_the_callers(
    ow: OpenWorkflow, caller: Caller
) -> None:
    await caller.execute("set local lock_timeout = '1ms'")
    await caller.execute("set constraints all immediate")
    await caller.execute("savepoint mine")
    with pytest.raises(Exception, match="division by zero"):
        await caller.execute("select 1/0")
    with pytest.raises(Exception, match="aborted"):
        await ow.run_workflow(welcome, "ada", connection=caller.given)
    await caller.execute("rollback to savepoint mine")
    await ow.run_workflow(welcome, "bob", connection=caller.given)
    await caller.commit()
    assert await inputs(ow) == {"bob"}


async def test_another_database_is_refused_before_anything_is_stored(
    ow: OpenWorkflow,
    caller: Caller,
    postgres: DatabaseServer,
    template_database: str,
) -> None:
    """Whose tables are the same: the run would be there, and no worker of ours would see it."""
    name = f"other_{ow.list_runs.__name__}_{id(caller)}"
    postgres.create_database(name, template=template_database)
    other = type(caller)(postgres.url(name))
    try:
        await other.open()
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="another database"):
                await ow.run_workflow(welcome, "ada", connection=other.given)
        with pytest.raises(ConfigurationError, match="another database"):
            await ow.signal("topic", 1, connection=other.given)
        await other.commit()
        async with await BackendPostgres.connect(postgres.url(name)) as there:
            assert sum((await there.count_runs()).values()) == 0
        await other.close()
    finally:
        postgres.drop_database(name)


async def test_namespace_and_schema_are_those_of_the_client(
    database_url: str, caller: Caller
) -> None:
    async with await BackendPostgres.connect(
        database_url, namespace_id="mine", schema="elsewhere"
    ) as backend:
        ow = OpenWorkflow(backend)
        await ow.run_workflow(welcome, "ada", connection=caller.given)
        await ow.run_workflow(welcome, "ada", unique="k", connection=caller.given)
        await caller.commit()
        assert len((await ow.list_runs()).runs) == 2
    async with await BackendPostgres.connect(database_url) as backend:
        assert sum((await backend.count_runs()).values()) == 0


async def test_whoever_waits_for_a_key_is_not_in_the_way_of_who_holds_it(
    ow: OpenWorkflow, caller: Caller
) -> None:
    """Many that wait for a key which one transaction holds: that one goes on."""
    await ow.run_workflow(welcome, "first", idempotency_key="k", connection=caller.given)
    others = [type(caller)(caller.url) for _ in range(8)]
    for other in others:
        await other.open()
    waiters = [
        asyncio.create_task(
            ow.run_workflow(welcome, "later", idempotency_key="k", connection=other.given)
        )
        for other in others
    ]
    await ow.run_workflow(welcome, "second", connection=caller.given)
    await caller.commit()
    for other, waiter in zip(others, waiters, strict=True):
        assert not (await waiter).created
        await other.commit()
        await other.close()
    assert await inputs(ow) == {"first", "second"}


async def test_a_closed_connection_is_an_error_before_anything_is_stored(
    ow: OpenWorkflow, database_url: str
) -> None:
    from tests.callers import OfAsyncpg, OfAsyncPsycopg, OfPsycopg, OfPsycopg2

    for kind in (OfAsyncpg, OfAsyncPsycopg, OfPsycopg, OfPsycopg2):
        closed: Caller = kind(database_url)
        await closed.open()
        await closed.close()
        with pytest.raises((ConnectionLost, ConfigurationError)):
            await ow.run_workflow(welcome, "ada", connection=closed.given)
    assert await inputs(ow) == set()
