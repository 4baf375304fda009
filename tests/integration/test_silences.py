"""A peer that says nothing any more, and closes nothing: every wait for it ends by itself.

The bounds are those of `backend/liveness.py`, made small.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.backend import connection as connections
from openworkflow.backend import link as links
from openworkflow.backend import liveness, requests
from openworkflow.backend.backend import NewRun
from openworkflow.backend.url import parse
from openworkflow.core.errors import BackendError, ConnectionLost
from openworkflow.worker import executor
from openworkflow.worker.worker import Worker
from tests.chaos.proxy import Proxy
from tests.flushes import claim, end_of, flush, step_of
from tests.guarded_postgres import has_pgbouncer, pooler_of
from tests.helpers import eventually

ANSWER = 1.0
SOON = 20.0
"""Far above the bounds here, far below those of before."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "ANSWER_SECONDS", ANSWER)
    monkeypatch.setattr(requests, "REQUEST_SECONDS", 2 * ANSWER)
    monkeypatch.setattr(requests, "REPEAT_SECONDS", 0.0)
    monkeypatch.setattr(requests, "RELEASE_SECONDS", 0.2)
    monkeypatch.setattr(liveness, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(liveness, "CHECK_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(liveness, "CLOSE_SECONDS", 0.3)


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(urlsplit(database_url).port or 5432)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
def proxy_url(proxy: Proxy, database_url: str) -> str:
    parts = urlsplit(database_url)
    return f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}?connect_timeout=2"


@pytest.fixture
async def far(proxy_url: str) -> AsyncIterator[BackendPostgres]:
    """A backend on the other side of the proxy."""
    connected = await BackendPostgres.connect(proxy_url, migrate=False)
    yield connected
    await connected.stop()


@workflow
async def charge(amount: int, step: Step) -> int:
    return await step.run("charge", lambda: amount)


# -- connecting ------------------------------------------------------------------------------


async def test_a_server_that_accepts_and_says_nothing_is_given_up(
    proxy: Proxy, proxy_url: str
) -> None:
    proxy.deaf = True

    async with asyncio.timeout(SOON):
        with pytest.raises(ConnectionLost, match="did not answer"):
            await BackendPostgres.connect(proxy_url, migrate=False)


@pytest.mark.parametrize("statement", [b"pg_backend_pid", b"openworkflow_migrations"])
async def test_silence_in_the_first_statements_is_noticed(
    proxy: Proxy, proxy_url: str, statement: bytes
) -> None:
    proxy.hush = statement

    async with asyncio.timeout(SOON):
        with pytest.raises(ConnectionLost):
            await BackendPostgres.connect(proxy_url)


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option"
)
async def test_the_kernel_is_told_to_notice_a_dead_peer(
    database_url: str, far: BackendPostgres
) -> None:
    link = await connections.connect(parse(database_url), application_name="test")
    async with far._requests.borrow() as pooled:
        for connection in (link, pooled):
            peer = connection._transport.get_extra_info("socket")
            assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
            # The first probe, and those that fail: within the 15 seconds that are promised.
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 15_000
    link.terminate()


# -- the pool --------------------------------------------------------------------------------


async def test_one_silent_connection_costs_one_wait_and_its_like_none(
    far: BackendPostgres, proxy: Proxy
) -> None:
    await asyncio.gather(*(far.now() for _ in range(4)))
    proxy.silence()

    async with asyncio.timeout(SOON):
        with pytest.raises(ConnectionLost, match="did not answer within"):
            await far.now()
    await asyncio.gather(*(far.now() for _ in range(8)))

    assert far._requests.silences.count == 1


async def test_silent_connections_that_were_idle_are_let_go_too(
    far: BackendPostgres, proxy: Proxy
) -> None:
    """The driver said goodbye to each of them, and waited for the answer forever."""
    await asyncio.gather(*(far.now() for _ in range(4)))
    before = asyncio.all_tasks()
    proxy.silence()
    with pytest.raises(ConnectionLost):
        await far.now()

    await asyncio.gather(*(far.now() for _ in range(8)))

    await eventually(lambda: proxy.silent == 0)
    await eventually(lambda: not any("close" in repr(t) for t in asyncio.all_tasks() - before))


async def test_who_waits_for_a_connection_of_the_pool_does_not_wait_for_ever(
    proxy_url: str,
) -> None:
    far = await BackendPostgres.connect(f"{proxy_url}&pool_size=1", migrate=False)

    async with asyncio.timeout(SOON), far._requests.borrow(SOON):
        with pytest.raises(ConnectionLost):
            await far.now()

    await far.stop()


async def test_who_gives_up_a_silent_statement_is_let_go(
    far: BackendPostgres, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poller's look for the next timer hung here, in the release of its connection."""
    monkeypatch.setattr(requests, "REQUEST_SECONDS", 30.0)
    await far.now()
    proxy.silence()

    async with asyncio.timeout(SOON):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await far.next_due()
        await far.now()


# -- a worker's connections ------------------------------------------------------------------


async def test_a_silent_flush_is_in_doubt_and_the_other_connections_are_replaced(
    far: BackendPostgres, proxy: Proxy
) -> None:
    session = await far.open_session(3)
    await far.create_workflow_runs([NewRun("a")])
    proxy.silence()

    async with asyncio.timeout(SOON):
        with pytest.raises(ConnectionLost) as caught:
            await claim(session, "a")
    await asyncio.gather(*(claim(session, "a") for _ in range(3)), far.now())

    assert caught.value.in_doubt
    assert far._requests.silences.count == 1
    await session.close()


async def test_a_statement_that_is_only_slow_gets_more_time_each_time(
    far: BackendPostgres,
) -> None:
    session = await far.open_session(1)
    sleep = "select pg_sleep(2.4)"

    for _ in range(2):
        with pytest.raises(ConnectionLost):
            await session._fetch(sleep, ())
    rows = await session._fetch(sleep, ())

    assert len(rows) == 1
    await session.close()


async def test_a_write_that_waits_for_a_lock_comes_back(
    backend: BackendPostgres, sql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.WORKER_LIMITS, "lock_timeout", "100")
    monkeypatch.setattr(liveness, "ANSWER_SECONDS", 30.0)
    await backend.create_workflow_runs([NewRun("a")])
    session = await backend.open_session(1)
    (run,) = await claim(session, "a")

    async with asyncio.timeout(SOON), sql.transaction():
        await sql.execute("select from workflow_runs for update")
        with pytest.raises(Exception, match="lock timeout"):
            await flush(session, ends=[end_of(run)])

    assert not (await flush(session, ends=[end_of(run)])).lost
    await session.close()


# -- wake-ups --------------------------------------------------------------------------------


async def test_silence_at_listen_is_noticed(far: BackendPostgres, proxy: Proxy) -> None:
    proxy.hush, proxy.hushes = b"LISTEN", 1

    async with asyncio.timeout(SOON), far.listen() as listener:
        await eventually(lambda: listener.healthy)


async def test_a_silent_listener_is_replaced_and_wakes_everybody(
    far: BackendPostgres, proxy: Proxy
) -> None:
    async with asyncio.timeout(SOON), far.listen() as listener:
        woken = asyncio.Event()
        listener.on_work(woken.set)
        proxy.silence()

        await woken.wait()


async def test_idle_sessions_that_the_server_ends_are_replaced_without_a_word(
    backend: BackendPostgres,
    sql: asyncpg.Connection[Any],
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if sql.get_server_version() < (14, 0):
        pytest.skip("this PostgreSQL has no idle_session_timeout")
    database = urlsplit(database_url).path.removeprefix("/")
    await sql.execute(f'alter database "{database}" set idle_session_timeout = 100')
    losses = 0

    def count() -> None:
        nonlocal losses
        losses += 1

    async with asyncio.timeout(SOON), backend.listen() as listener:
        listener.on_work(count)
        await eventually(lambda: losses >= 3)

    assert "WARNING" not in [record.levelname for record in caplog.records]


# -- whole workers ---------------------------------------------------------------------------


async def test_a_worker_whose_connections_all_fall_silent_goes_on(
    proxy: Proxy, far: BackendPostgres, ow: OpenWorkflow
) -> None:
    worker = Worker(far, [charge], concurrency=4, lease=timedelta(seconds=3))
    await worker.start()
    assert await (await ow.run_workflow(charge, 1)).result() == 1

    assert proxy.silence() >= 4
    handle = await ow.run_workflow(charge, 2)

    async with asyncio.timeout(SOON):
        assert await handle.result() == 2
        await eventually(lambda: worker.ready()[0])
        await worker.stop()


async def test_a_drain_with_a_sync_step_ends_while_the_database_is_silent(
    proxy: Proxy, proxy_url: str, ow: OpenWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain of two seconds took twenty-five."""
    monkeypatch.setattr(executor, "HAND_BACK_SECONDS", 0.3)
    end, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        end.wait()

    @workflow
    async def stuck(step: Step) -> None:
        await step.run("hang", hang)

    far = await BackendPostgres.connect(proxy_url, migrate=False)
    worker = Worker(far, [stuck], concurrency=4, drain=timedelta(seconds=0.1))
    await worker.start()
    await ow.run_workflow(stuck)
    await eventually(begun.is_set)
    proxy.silence()
    proxy.deaf = True

    async with asyncio.timeout(SOON):
        await worker.stop()
        await far.stop()
    end.set()


async def test_a_worker_that_ends_waits_for_what_asks_a_silent_database(
    proxy: Proxy, proxy_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a task takes a moment to be canceled, and was called one that does not let itself be."""
    monkeypatch.setattr(executor, "HAND_BACK_SECONDS", 0.1)
    monkeypatch.setattr(requests, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(requests, "RELEASE_SECONDS", liveness.RELEASE_SECONDS)
    far = await BackendPostgres.connect(proxy_url, migrate=False)
    worker = Worker(far, [charge], concurrency=4, drain=timedelta(0))
    await worker.start()
    assert worker._parts is not None
    await far.next_due()
    proxy.silence()

    async def ask() -> None:
        await far.next_due()

    worker._parts.executor._spawn(ask())

    async with asyncio.timeout(SOON):
        await worker.stop()
        assert 0 == worker._left
        await far.stop()


async def test_a_deadline_between_two_steps_of_the_driver_is_a_silence(
    backend: BackendPostgres,
) -> None:
    """It had prepared a statement, and found no protocol any more by which to execute it."""

    async def meet_the_deadline() -> None:
        async with backend._requests.borrow(0.05) as connection:
            driver = connection._con
            await eventually(driver.is_closed)
            await driver._protocol.bind_execute()

    with pytest.raises(ConnectionLost, match="did not answer within"):
        await meet_the_deadline()


@pytest.fixture
async def pooler_url(database_url: str, tmp_path: Path) -> AsyncIterator[str]:
    if not has_pgbouncer():
        pytest.skip("pgbouncer is not installed (make test-programs)")
    with pooler_of(database_url, tmp_path) as url:
        yield url


@pytest.fixture
def _short_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = links._BEGIN
    for name, seconds in (("idle_in_transaction_session_timeout", 500), ("lock_timeout", 100)):
        before = begin.partition(f"{name} = ")[2].partition(";")[0]
        begin = begin.replace(f"{name} = {before}", f"{name} = {seconds}")
    monkeypatch.setattr(links, "_BEGIN", begin)


@pytest.mark.usefixtures("_short_transactions")
async def test_a_commit_that_is_swallowed_behind_a_pooler_does_not_keep_its_locks(
    pooler_url: str, database_url: str, backend: BackendPostgres
) -> None:
    """The server's transaction lived on with its connection, and the resend met its locks."""
    parts = urlsplit(pooler_url)
    proxy = Proxy(parts.port or 0)
    await proxy.start()
    url = f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}"
    far = await BackendPostgres.connect(url, listen_url=database_url, migrate=False)
    assert far.pooled
    session = await far.open_session(2)
    await backend.create_workflow_runs([NewRun("a")])
    (run,) = await claim(session, "a")
    proxy.hush, proxy.hushes = b"commit\x00", 1

    with pytest.raises(ConnectionLost):
        await flush(session, steps=[step_of(run, "s")], ends=[end_of(run)])

    async def ended() -> bool:
        try:
            flushed = await flush(session, steps=[step_of(run, "s")], ends=[end_of(run)])
        except BackendError:  # a lock
            return False
        return not flushed.lost

    async with asyncio.timeout(SOON):
        await eventually(ended)
    await session.close()
    await far.stop()
    await proxy.stop()
