"""No connection is lost, wherever what makes it is cancelled, refused or closed meanwhile.

A lost one holds a place of the server's until the garbage collector comes by.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, Worker, workflow
from openworkflow.backend.connection import connected, probe
from openworkflow.backend.failures import ConnectionLost
from openworkflow.backend.link import Link
from openworkflow.backend.session import WorkerSession
from openworkflow.backend.url import parse
from openworkflow.core.errors import BackendError, Fault
from openworkflow_operator.database import dsn
from openworkflow_operator.database.connection import ConnectOptions, Database
from tests.cutting import cut
from tests.helpers import eventually

Made = list["asyncpg.Connection[Any]"]


@workflow
async def nothing(step: Step) -> None:
    pass


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Every connection that is made from now on."""
    kept: Made = []
    original = asyncpg.connection.Connection.__init__

    def keep(self: asyncpg.Connection[Any], *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        kept.append(self)

    monkeypatch.setattr(asyncpg.connection.Connection, "__init__", keep)
    return kept


async def none_is_left(made: Made) -> None:
    """A thread that was not waited for may still be about to close one."""

    async def all_closed() -> bool:
        return all(each.is_closed() for each in made)

    try:
        await eventually(all_closed)
    finally:
        for each in made:
            each.terminate()  # what is left is told by its own test alone
        made.clear()


async def connect(url: str) -> None:
    backend = await BackendPostgres.connect(url)
    await backend.stop()


async def probe_it(url: str) -> None:
    connection, _ = await probe(parse(url), application_name="test")
    connection.terminate()


async def open_session(url: str) -> None:
    async with _backend(url) as backend:
        session = await backend.open_session(connections=3)
        await session.close()


async def ask(url: str) -> None:
    async with _backend(url) as backend:
        await backend.now()


async def listen(url: str) -> None:
    async with _backend(url) as backend, backend.listen() as listener:
        assert listener.healthy


async def start_worker(url: str) -> None:
    async with _backend(url) as backend:
        worker = _worker(backend)
        await worker.start()
        await worker.stop()


async def live_as_worker(url: str) -> None:
    async with _backend(url) as backend:
        worker = _worker(backend)
        worker._started = asyncio.get_running_loop().create_future()
        worker._draining.set()
        await worker._run()


async def look_as_operator(url: str) -> None:
    options = ConnectOptions(allow_loopback=True)
    database = await Database.connect(dsn.parse(url), "public", options)
    database.terminate()


async def on_its_own(url: str) -> None:
    async with connected(parse(url), application_name="test", pooled=False) as connection:
        await connection.fetchval("select 1")


@contextlib.asynccontextmanager
async def _backend(url: str) -> AsyncIterator[BackendPostgres]:
    backend = await BackendPostgres.connect(url, migrate=False)
    try:
        yield backend
    finally:
        await backend.stop()


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "as the answer comes"])
@pytest.mark.parametrize(
    "work",
    [
        *(connect, probe_it, open_session, ask, listen, on_its_own),
        *(start_worker, live_as_worker, look_as_operator),
    ],
    ids=lambda work: work.__name__,
)
async def test_whoever_is_cancelled_leaves_no_connection(
    database_url: str, made: Made, work: Any, late: bool
) -> None:
    at = 1
    while await cut(work(database_url), at, late=late):
        await none_is_left(made)
        at += 1
    await none_is_left(made)
    assert at > 5


async def test_a_session_that_cannot_have_all_of_its_connections_keeps_none(
    database_url: str, unused_port: int, made: Made
) -> None:
    dead = urlsplit(database_url)._replace(netloc=f"127.0.0.1:{unused_port}").geturl()
    session = WorkerSession([_link(database_url), _link(dead)], {}, {})

    with pytest.raises(ConnectionLost):
        await session.open()

    assert 1 == len(made)
    await none_is_left(made)


async def test_a_link_that_is_closed_while_it_connects_leaves_nothing(
    database_url: str, made: Made
) -> None:
    """As where a connection was cut, and its worker stops while something still reads."""
    link = _link(database_url)
    reading = asyncio.create_task(link.fetch("select 1", ()))
    await asyncio.sleep(0)
    await link.close()

    with pytest.raises(ConnectionLost, match="closed by its owner"):
        await reading
    assert 1 == len(made)
    await none_is_left(made)


async def test_a_link_that_was_closed_is_not_opened_again(database_url: str, made: Made) -> None:
    link = _link(database_url)
    await link.fetch("select 1", ())
    await link.close()

    with pytest.raises(ConnectionLost, match="closed by its owner"):
        await link.fetch("select 1", ())
    assert 1 == len(made)
    await none_is_left(made)


@pytest.mark.parametrize("error", [RuntimeError("no"), asyncio.CancelledError()], ids=repr)
async def test_a_backend_closes_its_pool_whatever_else_cannot_be_closed(
    database_url: str, made: Made, error: BaseException
) -> None:
    backend = await BackendPostgres.connect(database_url, migrate=False)
    await backend.now()

    async def refuse() -> None:
        raise error

    backend.on_stop(refuse)
    with pytest.raises(type(error)):
        await backend.stop()
    await none_is_left(made)


def _worker(backend: BackendPostgres) -> Worker:
    return OpenWorkflow(backend).new_worker(workflows=[nothing], drain=timedelta(0))


def _link(url: str) -> Link:
    return Link(parse(url), application_name="test", pooled=False)


async def test_a_transaction_whose_beginning_is_refused_is_no_defect(
    backend: BackendPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler it was left open, in which the next statement was taken for a mistake."""
    link, begin = Link(backend.url, application_name="x", pooled=True), Link._begin
    monkeypatch.setattr(
        Link, "_begin", lambda self: "begin; select pg_cancel_backend(pg_backend_pid())"
    )
    with pytest.raises(BackendError) as refused:
        await link.fetch("select 1", ())
    monkeypatch.setattr(Link, "_begin", begin)

    assert Fault.SIZE is refused.value.fault
    assert [(1,)] == [tuple(row) for row in await link.fetch("select 1", ())]
    await link.close()
