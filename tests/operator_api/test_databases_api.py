"""What may be wrong with a database: each fault is told, does no harm, and passes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres
from openworkflow_operator.cluster import credentials
from openworkflow_operator.database.retention import Rest
from openworkflow_operator.process import Operator
from openworkflow_operator.visits import reconcile
from tests.guarded_postgres import (
    guarded_server,
    has_pgbouncer,
    pooler_of,
    programs_with_tls,
    standby_of,
)
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space, enqueue
from tests.local_postgres import LocalPostgres
from tests.postgres import run_sync

Start = Callable[..., AbstractAsyncContextManager[Operator]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed Secret is noticed in a fraction of a second."""
    monkeypatch.setattr(credentials, "FRESH_SECONDS_IN_TROUBLE", 0.2)
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 0.5)
    monkeypatch.setattr(reconcile, "UNTOLD_RETRY_SECONDS", 0.3)


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalPostgres]:
    """A server with passwords and TLS, and the tables."""

    async def prepare() -> None:
        await (await BackendPostgres.connect(server.url())).stop()
        connection = await asyncpg.connect(server.url())
        await connection.execute(
            "CREATE ROLE careful LOGIN PASSWORD 'right'; CREATE ROLE secret LOGIN;"
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO careful, secret"
        )
        await connection.close()

    with guarded_server() as server:
        run_sync(prepare)
        yield server


async def becomes(space: Space, status: str, reason: str) -> None:
    """The condition DatabaseReachable takes this status and reason."""
    await eventually(lambda: space.condition("DatabaseReachable") == (status, reason), deadline=20)


async def test_a_wrong_password_is_told_and_the_right_one_works(
    space: Space, start: Start, guarded: LocalPostgres
) -> None:
    url = f"postgresql://careful:{{}}@127.0.0.1:{guarded.port}/postgres"
    space.secret(url.format("hunter2"))
    space.resource(scaling=FAST)
    async with start():
        await becomes(space, "False", "AuthenticationFailed")
        assert 0 == space.replicas()
        space.secret(url.format("right"))
        await becomes(space, "True", "Reachable")
        assert "hunter2" not in str(space.get()) + str(space.events())


@pytest.mark.skipif(programs_with_tls() is None, reason="needs a PostgreSQL with TLS (Debian's)")
async def test_a_server_that_demands_tls(
    space: Space, start: Start, guarded: LocalPostgres
) -> None:
    url = f"postgresql://secret@127.0.0.1:{guarded.port}/postgres?sslmode="
    space.secret(url + "disable")
    space.resource(scaling=FAST)
    async with start():
        await becomes(space, "False", "AuthenticationFailed")
        space.secret(url + "verify-full")  # nobody has signed the certificate
        await becomes(space, "False", "TLSFailed")
        space.secret(url + "require")
        await becomes(space, "True", "Reachable")
    authority = str(Path(guarded.settings["ssl_cert_file"]))
    space.secret(url + "verify-full")
    async with start(ca_file=authority):
        await becomes(space, "True", "Reachable")
        space.secret((url + "verify-full").replace("127.0.0.1", "localhost"))
        await becomes(space, "False", "TLSFailed")  # another name than the certificate's


async def test_a_standby_is_read_and_only_deleting_is_refused(
    space: Space, start: Start, guarded: LocalPostgres
) -> None:
    with standby_of(guarded) as standby:
        space.secret(standby.url())
        space.resource(scaling=FAST, retention={"failedSeconds": 60})
        async with start() as operator:
            operator.rest = Rest(0.1, 0.1, 0.1, 0.1)
            await becomes(space, "True", "Reachable")
            refused = ("False", "ReadOnly")
            await eventually(lambda: space.condition("RetentionActive") == refused)
            assert 0 == space.replicas()
            assert ("True", "Reachable") == space.condition("DatabaseReachable")


@pytest.mark.skipif(not has_pgbouncer(), reason="needs pgbouncer (make test-programs)")
async def test_a_fleet_is_scaled_and_pruned_through_pgbouncer(
    space: Space, start: Start, database_url: str, sql: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    columns = "workflow_name, namespace_id, status, available_at, completed_at"
    with pooler_of(database_url, tmp_path) as url:
        space.secret(url)
        space.resource(scaling=FAST, retention={"failedSeconds": 60})
        async with start() as operator:
            operator.rest = Rest(0.1, 0.1, 0.1, 0.1)
            await becomes(space, "True", "Reachable")
            await enqueue(sql, 15)
            await eventually(lambda: space.replicas() == 2, deadline=20)
            await sql.execute(
                f"INSERT INTO workflow_runs ({columns}) "
                "VALUES ('w', 'orders', 'failed', now(), now() - interval '1 hour')"
            )
            left = "SELECT count(*) FROM workflow_runs WHERE status = 'failed'"
            await eventually(lambda: _is_zero(sql, left))


async def _is_zero(sql: asyncpg.Connection[Any], query: str) -> bool:
    return bool(await sql.fetchval(query) == 0)


async def test_a_slow_database_holds_its_fleet_and_no_other(
    tenant: Space, start: Start, sql: asyncpg.Connection[Any], guarded: LocalPostgres
) -> None:
    """The statement's time limit, not a person, ends the wait."""
    await enqueue(sql, 25)
    tenant.resource(scaling=FAST)
    tenant.secret(guarded.url(), name="another-database")
    tenant.resource("another", scaling=FAST, database={"secretRef": {"name": "another-database"}})
    async with start():
        await eventually(lambda: tenant.replicas() == 3, deadline=20)
        await sql.execute("""
            ALTER TABLE workflow_runs RENAME TO away;
            CREATE VIEW workflow_runs AS SELECT away.* FROM away, pg_sleep(30)""")
        await becomes(tenant, "False", "TimedOut")
        assert 3 == tenant.replicas()
        fine = ("True", "Reachable")
        await eventually(lambda: tenant.condition("DatabaseReachable", "another") == fine)
        await sql.execute("DROP VIEW workflow_runs; ALTER TABLE away RENAME TO workflow_runs")
        await becomes(tenant, "True", "Reachable")


@pytest.fixture
async def switch(database_url: str) -> AsyncIterator[Switch]:
    """A way to the database that can be cut."""
    switch = Switch(database_url)
    yield switch
    await switch.cut()


class Switch:
    """A port that leads to the database, or at which nobody answers."""

    def __init__(self, url: str) -> None:
        host_and_port = url.rpartition("@")[2].partition("/")[0]
        self._host, self._port = host_and_port.split(":")
        self._url, self.port = url, 0
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return self._url.replace(f":{self._port}/", f":{self.port}/")

    async def join(self) -> None:
        """Let connections through; at the same port each time."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections, and refuse others."""
        if self._server is not None:
            self._server.close()
        for link in self._links:
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        there, back = await asyncio.open_connection(self._host, int(self._port))
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(_pump(reader, back)),
                    asyncio.ensure_future(_pump(there, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            pass
        finally:
            for each in (writer, back):
                each.transport.abort()
            self._links.discard(link)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
    target.close()


async def test_a_database_that_is_down_at_the_start_and_in_flight(
    space: Space, start: Start, sql: asyncpg.Connection[Any], switch: Switch
) -> None:
    await switch.join()
    await switch.cut()
    space.secret(switch.url)
    space.resource(scaling=FAST)
    async with start():
        await becomes(space, "False", "Unreachable")
        assert ("False", "DatabaseUnreachable") == space.condition("ScalingActive")
        await enqueue(sql, 15)
        await switch.join()
        await becomes(space, "True", "Reachable")
        await eventually(lambda: space.replicas() == 2)
        await switch.cut()
        await sql.execute("DELETE FROM workflow_runs")
        await becomes(space, "False", "Unreachable")
        assert 2 == space.replicas()
        await switch.join()
        await eventually(lambda: space.replicas() == 0, deadline=20)
