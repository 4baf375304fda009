"""All who wait in a process share one look, and nothing else: not a fault, no fate."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, WorkflowCanceled
from openworkflow.client import looks
from openworkflow.core.errors import (
    BackendError,
    ConfigurationError,
    ConnectionLost,
    ResultTimeout,
    RunNotFound,
)
from tests.helpers import eventually

END = "update workflow_runs set status = 'succeeded', output = '7', completed_at = now()"


class Counted:
    """The looks at the database, by the runs that each was about."""

    def __init__(self, backend: BackendPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: list[int] = []
        find = backend.find_ended_runs

        async def counted(run_ids: Collection[UUID], *rest: Any, **options: Any) -> Any:
            self.looks.append(len(run_ids))
            return await find(run_ids, *rest, **options)

        monkeypatch.setattr(backend, "find_ended_runs", counted)


@pytest.fixture
def counted(backend: BackendPostgres, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(backend, monkeypatch)


async def test_three_hundred_waits_are_one_look(
    ow: OpenWorkflow, counted: Counted, sql: asyncpg.Connection[Any]
) -> None:
    """3,000 handles cost 1,565 transactions a second while nothing happened."""
    runs = await ow.run_workflows("w", range(300))
    # Clients of one backend share them too.
    clients = [ow, OpenWorkflow(ow._backend)]
    waits = [asyncio.create_task(clients[n % 2].wait(run.id)) for n, run in enumerate(runs)]
    await eventually(lambda: sum(counted.looks) >= 4 * 300)
    assert len(counted.looks) <= 8

    await sql.execute(END)
    ended = await asyncio.gather(*waits)

    assert [run.id for run in runs] == [run.id for run in ended]
    assert not looks.looks_of(ow._backend)._watched


async def test_a_message_leads_to_a_look_at_its_run_only(
    ow: OpenWorkflow, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "FIRST_POLL_SECONDS", 60.0)
    monkeypatch.setattr(looks, "POLL_SECONDS", 60.0)
    runs = await ow.run_workflows("w", range(10))
    waits = [asyncio.create_task(run.result()) for run in runs]
    shared = looks.looks_of(ow._backend)
    await eventually(lambda: shared._listener is not None and shared._listener.healthy)
    await eventually(lambda: not shared._wanted)
    before = len(counted.looks)

    await runs[3].cancel()
    with pytest.raises(WorkflowCanceled):
        await waits[3]

    assert 1 in counted.looks[before:]
    for wait in waits:
        wait.cancel()


async def test_a_flood_of_messages_costs_few_looks(
    ow: OpenWorkflow, counted: Counted, sql: asyncpg.Connection[Any]
) -> None:
    run = await ow.run_workflow("w")
    wait = asyncio.create_task(run.result())
    shared = looks.looks_of(ow._backend)
    await eventually(lambda: shared._listener is not None and shared._listener.healthy)
    channel = ow._backend._namespace.done_channel

    for _ in range(500):
        await sql.execute("select pg_notify($1, $2)", channel, str(run.id))
    await sql.execute(END)

    assert 7 == await wait
    assert len(counted.looks) <= 50


async def test_a_run_that_is_waited_for_twice_answers_both(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    run = await ow.run_workflow("w")
    patient = asyncio.create_task(run.result())
    with pytest.raises(ResultTimeout, match="no worker that serves 'w' has claimed it"):
        await run.result(timeout=0)
    await sql.execute(END)

    assert 7 == await patient == await run.result(timeout=0)


async def test_a_wait_that_is_cancelled_leaves_nothing(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow("w")
    wait = asyncio.create_task(run.result())
    shared = looks.looks_of(ow._backend)
    await eventually(lambda: shared._watched)
    wait.cancel()

    await eventually(lambda: not shared._watched and shared._task is None)


async def test_who_waits_for_what_is_not_there_hears_it_and_others_wait_on(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    run = await ow.run_workflow("w")
    wait = asyncio.create_task(run.result())

    with pytest.raises(RunNotFound):
        await ow.handle(uuid4()).result()

    await sql.execute(END)
    assert 7 == await wait


async def test_more_ends_than_an_answer_holds_are_all_told(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "MOST_ANSWERS", 7)
    monkeypatch.setattr(looks, "MOST_AT_ONCE", 30)
    runs = await ow.run_workflows("w", range(100))
    await sql.execute(END)

    assert [7] * 100 == await asyncio.gather(*(run.result() for run in runs))


async def test_a_row_that_cannot_be_read_costs_only_who_waits_for_it(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "REFUSALS", 3)
    monkeypatch.setattr(looks, "POLL_SECONDS", 0.05)
    runs = await ow.run_workflows("w", range(20))
    await sql.execute(END)
    rows = await sql.fetch(
        "select column_name from information_schema.columns"
        " where table_name = 'workflow_runs' and column_name <> 'output' order by 1"
    )
    columns = ", ".join(row[0] for row in rows)
    await sql.execute(
        f"""
        alter table workflow_runs rename to real_runs;
        create function read(run uuid, value jsonb) returns jsonb language plpgsql as $$ begin
            if run = '{runs[7].id}' then raise 'damaged' using errcode = 'XX001'; end if;
            return value;
        end $$;
        create view workflow_runs as select {columns}, read(id, output) as output from real_runs
        """
    )

    results = await asyncio.gather(*(run.result() for run in runs), return_exceptions=True)

    odd = results.pop(7)
    assert isinstance(odd, BackendError)
    assert "damaged" in str(odd)
    assert [7] * 19 == results


async def test_a_table_that_is_gone_ends_all_waits_and_one_that_comes_back_ends_none(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await ow.run_workflows("w", range(20))
    shared = looks.looks_of(ow._backend)
    waits = [asyncio.create_task(run.result()) for run in runs]
    await sql.execute("alter table workflow_runs rename to gone")
    await eventually(lambda: shared._refusals >= 2)
    await sql.execute("alter table gone rename to workflow_runs")
    await eventually(lambda: shared.trouble is None)

    monkeypatch.setattr(looks, "REFUSALS", 3)
    await sql.execute("alter table workflow_runs rename to gone")
    results = await asyncio.gather(*waits, return_exceptions=True)

    assert {BackendError} == {type(result) for result in results}
    assert "openworkflow migrate" in str(results[0])


async def test_a_login_that_is_refused_for_good_ends_the_waits(
    backend: BackendPostgres,
    sql: asyncpg.Connection[Any],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    role = f"{backend.url.database}_role"
    await sql.execute(f"create role {role} login superuser password 's3cr3t'")
    theirs = await BackendPostgres.connect(
        database_url.replace("postgres@", f"{role}:s3cr3t@"), migrate=False
    )
    try:
        run = await OpenWorkflow(theirs).run_workflow("w")
        shared = looks.looks_of(theirs)
        wait = asyncio.create_task(run.result())
        await eventually(lambda: shared._listener is not None and shared._listener.healthy)
        await sql.execute(f"alter role {role} nologin")
        monkeypatch.setattr(looks, "REFUSALS", 3)
        await sql.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role
        )

        with pytest.raises(BackendError, match="not permitted to log in") as caught:
            await wait
        assert not isinstance(caught.value, ConnectionLost)
        assert "s3cr3t" not in str(caught.value)
    finally:
        await theirs.stop()
        await sql.execute(f"drop role {role}")


async def test_a_backend_that_is_stopped_ends_its_waits(database_url: str) -> None:
    backend = await BackendPostgres.connect(database_url)
    ow = OpenWorkflow(backend)
    run = await ow.run_workflow("w")
    wait = asyncio.create_task(run.result())
    await asyncio.sleep(0)
    await backend.stop()

    with pytest.raises(BackendError, match="stopped while this waited"):
        await wait
    for call in (run.result, ow.list_runs, lambda: ow.run_workflow("w")):
        with pytest.raises(ConfigurationError, match="the backend was stopped"):
            await call()


async def test_a_client_that_stops_leaves_those_of_others_alone(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    other = OpenWorkflow(ow._backend)
    run = await other.run_workflow("w")
    wait = asyncio.create_task(run.result())
    shared = looks.looks_of(ow._backend)
    await eventually(lambda: shared._listener is not None and shared._listener.healthy)
    listening = shared._listener
    await ow.stop()
    assert listening is shared._listener

    await sql.execute(END)
    assert 7 == await wait
    await other.stop()
    assert listening is not shared._listener
    assert 7 == await run.result()


async def test_another_event_loop_is_told_to_connect_for_itself(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow("w")
    errors: list[BaseException] = []

    def elsewhere() -> None:
        for call in (run.result, run.status, ow.list_runs, lambda: ow.run_workflow("w")):
            try:
                asyncio.run(call())
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)

    assert [ConfigurationError] * 4 == [type(error) for error in errors]
    assert all("another event loop" in str(error) for error in errors)


async def test_a_forked_process_is_told_to_connect_for_itself(
    ow: OpenWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ow.run_workflow("w")
    monkeypatch.setattr(os, "getpid", lambda: -1)

    for call in (run.result, ow.list_runs):
        with pytest.raises(ConfigurationError, match="before this process was forked"):
            await call()
