"""Wake-ups: they come after commits, survive reconnects, and never come for what did not happen."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres, NewRun
from openworkflow.backend.notifications import Listener
from tests.flushes import claim, end_of, flush
from tests.hearing import Heard, wake_ups_so_far
from tests.helpers import eventually


@pytest.fixture
async def heard_ends(backend: BackendPostgres) -> AsyncIterator[Heard]:
    """What a listener hears that was asked to listen for finished runs too."""
    listener = backend.listen()
    heard = Heard(listener)
    listener.on_finished(heard.finished.append, heard.on_missed)
    async with listener:
        await eventually(lambda: heard.missed == 1)
        yield heard


@pytest.fixture
async def listener(backend: BackendPostgres) -> AsyncIterator[Listener]:
    async with backend.listen() as listener:
        yield listener


def _loggers(connection: Any) -> int:
    return len(connection._query_loggers)


async def test_a_new_run_wakes_the_workers(backend: BackendPostgres, listener: Listener) -> None:
    heard = Heard(listener)

    await backend.create_workflow_runs([NewRun("a")])

    assert listener.healthy
    await eventually(lambda: heard.work == 1)


async def test_a_run_of_another_namespace_wakes_nobody_here(
    backend: BackendPostgres, listener: Listener, database_url: str
) -> None:
    heard = Heard(listener)
    other = await BackendPostgres.connect(database_url, namespace_id="other")

    await other.create_workflow_runs([NewRun("a")])

    assert await wake_ups_so_far(backend, heard) == 0
    await other.stop()


async def test_many_simultaneous_enqueues_share_a_few_wake_ups(
    backend: BackendPostgres, listener: Listener
) -> None:
    heard = Heard(listener)

    await asyncio.gather(*(backend.create_workflow_runs([NewRun("a")]) for _ in range(200)))

    await eventually(lambda: heard.work)
    assert await wake_ups_so_far(backend, heard) < 100


async def test_the_caller_s_commit_wakes_the_workers(
    backend: BackendPostgres, listener: Listener, database_url: str
) -> None:
    heard = Heard(listener)
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection, connection.transaction():
            async with connection.transaction():
                await backend.create_workflow_runs([NewRun("a")], connection=connection)
            before = heard.work

        await eventually(lambda: heard.work == 1)

        async with pool.acquire() as connection:
            assert _loggers(connection) == 0
    assert before == 0


async def test_a_caller_s_commit_after_the_backend_stopped_is_one_warning(
    database_url: str, sql: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The task of the wake-up ended with an error that nobody asked for."""
    backend = await BackendPostgres.connect(database_url)
    async with sql.transaction():
        await backend.create_workflow_runs([NewRun("a")], connection=sql)
        await backend.stop()

    await eventually(lambda: "could not wake the workers" in caplog.text)

    assert "never retrieved" not in caplog.text
    assert 1 == await sql.fetchval("select count(*) from workflow_runs")


async def test_the_caller_s_rollback_wakes_nobody(
    backend: BackendPostgres, listener: Listener, database_url: str
) -> None:
    heard = Heard(listener)
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    await backend.create_workflow_runs([NewRun("a")], connection=connection)
    await transaction.rollback()

    assert await wake_ups_so_far(backend, heard) == 0
    assert _loggers(connection) == 0
    await connection.close()


async def test_a_savepoint_rolled_back_in_a_transaction_that_commits_loses_no_wake_up(
    backend: BackendPostgres, listener: Listener, database_url: str
) -> None:
    heard = Heard(listener)
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await backend.create_workflow_runs([NewRun("a")], connection=connection)
        savepoint = connection.transaction()
        await savepoint.start()
        await savepoint.rollback()

    await eventually(lambda: heard.work)
    await connection.close()


async def test_every_finished_run_of_a_large_flush_wakes_who_waits_for_it(
    backend: BackendPostgres, heard_ends: Heard
) -> None:
    """The ids of 500 runs do not fit into one notification."""
    await backend.create_workflow_runs([NewRun("a")] * 500)
    session = await backend.open_session(1)
    runs = await claim(session, "a", limit=500)

    await flush(session, ends=[end_of(run) for run in runs])

    await eventually(lambda: len(heard_ends.finished) == 500)
    assert {run.id for run in runs} == set(heard_ends.finished)
    await session.close()


async def test_a_canceled_run_is_heard_by_workers_and_by_who_waits(
    backend: BackendPostgres, heard_ends: Heard
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])

    await backend.cancel_workflow_run(created.id)

    await eventually(lambda: heard_ends.canceled == [created.id])
    await eventually(lambda: heard_ends.finished == [created.id])


async def test_a_retried_run_wakes_the_workers(
    backend: BackendPostgres, listener: Listener
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    await backend.cancel_workflow_run(created.id)
    heard = Heard(listener)
    await wake_ups_so_far(backend, heard)
    before = heard.work

    await backend.retry_workflow_run(created.id)

    await eventually(lambda: heard.work > before)


async def test_a_lost_connection_comes_back_and_wakes_everybody_once(
    backend: BackendPostgres, heard_ends: Heard, database_url: str
) -> None:
    before = heard_ends.work
    connection = await asyncpg.connect(database_url)

    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )

    await eventually(lambda: heard_ends.missed == 2)
    assert before + 1 == heard_ends.work
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    await eventually(lambda: heard_ends.work == before + 2)
    await backend.cancel_workflow_run(created.id)
    await eventually(lambda: heard_ends.finished == [created.id])
    await connection.close()


async def test_a_listener_that_cannot_connect_says_so_and_goes_on_trying(
    backend: BackendPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def connect() -> object:
        nonlocal tries
        tries += 1
        raise ConnectionRefusedError("nobody there")

    async with Listener(backend._namespace, connect) as listener:
        await eventually(lambda: tries >= 3)

        assert not listener.healthy
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    # Eight lines in twenty seconds, before, from a client that only waited for a result.
    assert ["no wake-ups for now, polling instead: nobody there"] == warnings


@pytest.mark.parametrize("ticks", range(6))
async def test_a_listener_is_left_in_whatever_tick_its_connection_is_lost(
    backend: BackendPostgres, ticks: int
) -> None:
    """`asyncio.wait_for` swallowed the cancellation, before Python 3.12, and `stop` hung."""
    async with asyncio.timeout(25):
        async with backend.listen() as listener:
            await eventually(lambda: listener.healthy)
            for _ in range(3):
                await asyncio.sleep(0)
            listener._changed.set()
            for _ in range(ticks):
                await asyncio.sleep(0)
        assert listener._task is not None
        assert listener._task.cancelled()


async def test_a_listener_whose_connections_end_at_once_opens_fewer_and_fewer(
    backend: BackendPostgres, database_url: str, sql: Any
) -> None:
    """An `idle_session_timeout` of milliseconds had it open, and tell of, a dozen a second."""
    opened: list[Any] = []

    async def connect() -> Any:
        opened.append(await asyncpg.connect(database_url))
        return opened[-1]

    begun = time.monotonic()
    async with Listener(backend._namespace, connect) as listener:
        for number in range(1, 7):
            await eventually(partial(_hears, listener, opened, number))
            pid = opened[-1].get_server_pid()
            await sql.fetch("select pg_terminate_backend($1)", pid)

    assert time.monotonic() - begun > 0.5 * (0.1 + 0.2 + 0.4 + 0.8 + 1.6)


def _hears(listener: Listener, opened: list[Any], times: int) -> bool:
    return listener.healthy and len(opened) == times
