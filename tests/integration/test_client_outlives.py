"""What a client asks outlives restarts, failovers, cut and silent connections."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow
from openworkflow.backend import requests
from openworkflow.client import looks
from openworkflow.core.errors import BackendError, ConnectionLost, ResultTimeout
from tests.chaos.proxy import Proxy
from tests.helpers import eventually
from tests.local_postgres import LocalPostgres
from tests.refusing import refusing
from tests.two_servers import migrated, proxy_to, set_read_only, two_servers

END = "update workflow_runs set status = 'succeeded', output = '7', completed_at = now()"
KILL = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[LocalPostgres, LocalPostgres]]:
    with two_servers() as both:
        yield both


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with proxy_to(urlsplit(database_url).port or 5432) as proxy:
        yield proxy


@pytest.fixture
async def through(proxy: Proxy, database_url: str) -> AsyncIterator[BackendPostgres]:
    """A backend behind the proxy."""
    parts = urlsplit(database_url)
    backend = await BackendPostgres.connect(
        f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}"
    )
    yield backend
    await backend.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon."""
    monkeypatch.setattr(requests, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(looks, "LOOK_SECONDS", 0.3)


async def _waiting(ow: OpenWorkflow, timeout: float | None = None) -> asyncio.Task[Any]:
    """A wait for a run that nobody serves, which has begun."""
    run = await ow.run_workflow("w")
    task = asyncio.create_task(run.result(timeout))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_wait_outlives_a_restart_of_the_server(
    servers: tuple[LocalPostgres, LocalPostgres],
    how: signal.Signals,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It raised ConnectionLost, although the run went on."""
    server = servers[0]
    await migrated(server)
    backend = await BackendPostgres.connect(server.url())
    wait = await _waiting(OpenWorkflow(backend))
    await eventually(lambda: looks.looks_of(backend)._listener)

    await asyncio.to_thread(server.restart, how, 1.0)
    sql = await asyncpg.connect(server.url())
    await sql.execute(END)

    async with asyncio.timeout(20):
        assert 7 == await wait
    assert 1 == caplog.text.count("waiting for runs, and for the database")
    await sql.close()
    await backend.stop()


async def test_a_wait_outlives_connections_that_are_ended(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    wait = await _waiting(ow)
    for _ in range(20):
        await sql.execute(KILL)
        await asyncio.sleep(0.01)
    await sql.execute(END)

    async with asyncio.timeout(20):
        assert 7 == await wait


@pytest.mark.usefixtures("impatient")
async def test_a_wait_outlives_connections_that_fall_silent(
    through: BackendPostgres, proxy: Proxy, sql: asyncpg.Connection[Any]
) -> None:
    wait = await _waiting(OpenWorkflow(through))
    assert proxy.silence()
    await sql.execute(END)

    async with asyncio.timeout(20):
        assert 7 == await wait


async def test_a_wait_ends_in_time_although_nobody_answers(
    through: BackendPostgres, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`result(timeout="10s")` had not ended after 130 s."""
    monkeypatch.setattr(looks, "LAST_LOOK_SECONDS", 0.1)
    run = await OpenWorkflow(through).run_workflow("w")
    proxy.pause()

    async with asyncio.timeout(12):
        with pytest.raises(ResultTimeout, match=r"within 0\.2 s; how it stands is not known"):
            await run.result(timeout=0.2)
    proxy.cut()
    proxy.resume()


@pytest.mark.usefixtures("impatient")
async def test_a_request_is_made_again_on_another_connection_where_one_is_silent(
    through: BackendPostgres, proxy: Proxy
) -> None:
    run = await OpenWorkflow(through).run_workflow("w")
    assert proxy.silence()

    async with asyncio.timeout(20):
        assert "w" == (await run.run()).workflow_name
        await run.cancel()


@pytest.mark.usefixtures("impatient")
async def test_an_enqueue_on_a_silent_connection_is_in_doubt_and_the_next_is_not(
    through: BackendPostgres, proxy: Proxy
) -> None:
    ow = OpenWorkflow(through)
    await ow.run_workflow("w")
    assert proxy.silence()

    async with asyncio.timeout(20):
        with pytest.raises(ConnectionLost, match=r"did not answer within 0\.3") as caught:
            await ow.run_workflow("w")
        assert caught.value.in_doubt
        assert (await ow.run_workflow("w")).created


async def test_what_is_cancelled_while_nobody_answers_ends(
    through: BackendPostgres, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection was waited for, to be given back."""
    monkeypatch.setattr(requests, "RELEASE_SECONDS", 0.1)
    ow = OpenWorkflow(through)
    await ow.list_runs()
    proxy.pause()

    async with asyncio.timeout(12):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ow.list_runs()
    proxy.cut()
    proxy.resume()


async def test_the_pool_leaves_a_server_that_became_read_only(
    servers: tuple[LocalPostgres, LocalPostgres],
) -> None:
    """40 of 40 calls in 40 s failed after a failover, for its connections lived on."""
    old, new = servers
    await migrated(old, new)
    async with proxy_to(old.port) as proxy:
        backend = await BackendPostgres.connect(f"postgresql://postgres@127.0.0.1:{proxy.port}")
        ow = OpenWorkflow(backend)
        await asyncio.gather(*(ow.list_runs() for _ in range(10)))  # many connections
        await set_read_only(old, on=True)
        proxy.upstream_port = new.port
        try:
            runs = [await ow.run_workflow("w", idempotency_key=f"{n}") for n in range(10)]
            runs += [await ow.run_workflow("w") for _ in range(10)]
        finally:
            await set_read_only(old, on=False)

        assert len(runs) == len((await ow.list_runs()).runs)
        await backend.stop()


@pytest.mark.parametrize("name", ["one", "other"])
async def test_the_host_that_takes_writes_is_found_among_those_of_the_url(
    servers: tuple[LocalPostgres, LocalPostgres], name: str
) -> None:
    old, new = servers if name == "one" else servers[::-1]
    await migrated(old, new)
    backend = await BackendPostgres.connect(
        f"postgresql://postgres@127.0.0.1:{old.port},127.0.0.1:{new.port}/postgres"
    )
    ow = OpenWorkflow(backend)
    await ow.run_workflow("before")
    await set_read_only(old, on=True)
    try:
        await ow.run_workflow("after")
        async with backend._own_connection() as own:  # as those of a worker
            assert "off" == await own.fetchval("show default_transaction_read_only")
    finally:
        await set_read_only(old, on=False)
    sql = await asyncpg.connect(new.url())
    assert ["after"] == [r[0] for r in await sql.fetch("select workflow_name from workflow_runs")]
    await sql.close()
    await backend.stop()


async def test_reads_go_on_where_no_host_takes_writes(
    servers: tuple[LocalPostgres, LocalPostgres],
) -> None:
    await migrated(*servers)
    ports = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    for server in servers:
        await set_read_only(server, on=True)
    try:
        backend = await BackendPostgres.connect(
            f"postgresql://postgres@{ports}/postgres", migrate=False
        )
        assert [] == (await OpenWorkflow(backend).list_runs()).runs
        await backend.stop()
    finally:
        for server in servers:
            await set_read_only(server, on=False)


async def test_a_host_that_says_nothing_leaves_time_for_the_next(database_url: str) -> None:
    """One timeout was for all hosts: the first one that was dead took it."""
    parts = urlsplit(database_url)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = f"127.0.0.1:{silent.getsockname()[1]},{parts.hostname}:{parts.port}"
        backend = await BackendPostgres.connect(
            f"postgresql://{parts.username}@{place}{parts.path}?connect_timeout=0.5"
        )
        async with asyncio.timeout(0.45):  # the silent one is not tried first any more
            await backend.now()
        await backend.stop()


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57014"])
async def test_a_moment_that_passes_is_waited_out(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], state: str
) -> None:
    async with refusing(sql, "workflow_runs", state, await _first(sql, 2)):
        plain = await ow.run_workflow("w")
    async with refusing(sql, "workflow_runs", state, await _first(sql, 2)):
        keyed = await ow.run_workflow("w", idempotency_key="k")
    async with refusing(sql, "workflow_runs", state, await _first(sql, 2)):
        many = await ow.run_workflows("w", range(3))
    async with refusing(sql, "workflow_runs", state, await _first(sql, 2)):
        await plain.cancel()
    async with refusing(sql, "workflow_runs", state, await _first(sql, 2)):
        await ow.retry(plain.id)

    assert plain.created
    assert keyed.created
    assert "pending" == await plain.status()
    assert 2 + len(many) == await sql.fetchval("select count(*) from workflow_runs")


async def test_in_the_caller_s_transaction_nothing_is_made_again(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any], database_url: str
) -> None:
    mine = await asyncpg.connect(database_url)
    async with refusing(sql, "workflow_runs", "40001", await _first(sql, 1)):
        with pytest.raises(BackendError, match="refused by a test"):
            async with mine.transaction():
                await ow.run_workflow("w", idempotency_key="k", connection=mine)

    assert 1 == await sql.fetchval("select last_value from tries")
    await mine.close()


async def test_a_retry_or_cancel_whose_answer_is_lost_is_made_once(
    through: BackendPostgres, proxy: Proxy, sql: asyncpg.Connection[Any]
) -> None:
    ow = OpenWorkflow(through)
    first, run = [await ow.run_workflow("w") for _ in range(2)]
    await first.cancel()
    await ow.retry(first.id)  # prepares the statements, so that one message executes each
    proxy.about = through._namespace.work_channel.encode()

    proxy.lose = 1
    assert "canceled" == (await ow.cancel(run.id)).status
    proxy.lose = 1
    assert "pending" == (await ow.retry(run.id)).status

    assert 2 == proxy.lost
    assert "pending" == await run.status()


async def _first(sql: asyncpg.Connection[Any], times: int) -> str:
    """A condition that holds so many times; a rollback does not set it back."""
    await sql.execute("drop sequence if exists tries; create sequence tries")
    return f"nextval('tries') <= {times}"
