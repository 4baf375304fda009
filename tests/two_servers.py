"""Two servers and a network before them, so that one may fail over to the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import asyncpg

from openworkflow import BackendPostgres
from tests.chaos.proxy import Proxy
from tests.local_postgres import FAST_AND_UNSAFE, LocalPostgres, embedded_programs


@contextlib.contextmanager
def two_servers() -> Iterator[tuple[LocalPostgres, LocalPostgres]]:
    """Two that know nothing of each other."""
    programs = embedded_programs()
    library = programs.parent / "lib"
    found = library if library.is_dir() else None
    # What was committed is there after a crash of the server; of the machine there is none.
    durable = {**FAST_AND_UNSAFE, "synchronous_commit": "on"}
    first, second = (LocalPostgres(programs, found, durable) for _ in range(2))
    try:
        yield first.start(), second.start()
    finally:
        first.stop()
        second.stop()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """A network to this port that does as it is told."""
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def set_read_only(server: LocalPostgres, *, on: bool) -> None:
    """Have the server refuse writes, on the connections that it has too."""
    connection = await asyncpg.connect(server.url())
    value = "on" if on else "off"
    await connection.execute(f"alter system set default_transaction_read_only = {value}")
    await connection.execute("select pg_reload_conf()")
    while await connection.fetchval("show default_transaction_read_only") != value:
        await asyncio.sleep(0.01)
    await connection.close()


async def migrated(*servers: LocalPostgres) -> None:
    """Make the tables, without rows."""
    for server in servers:
        backend = await BackendPostgres.connect(server.url())
        await backend.stop()
        connection = await asyncpg.connect(server.url())
        await connection.execute("truncate workflow_runs cascade")
        await connection.close()
