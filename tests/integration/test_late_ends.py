"""A connection of which the server has said that it ends it, and whose end is not there yet.

Over TLS there is a moment in between, and a proxy may leave any time. The driver sends nothing
then, and says so in words of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow
from openworkflow.core.errors import ConnectionLost
from tests.helpers import eventually

END = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'ending'"

ASLEEP = (
    "select true from pg_stat_activity"
    " where datname = current_database() and wait_event = 'PgSleep'"
)


class LateEnds:
    """Passes on what both sides say, and to nobody that the server has hung up."""

    def __init__(self, port: int) -> None:
        self._to, self.ended = port, 0
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asking = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += writer, asking
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pass(reader, asking), self._pass(answers, writer, late=True))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, late: bool = False
    ) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        if late:
            self.ended += 1
        else:
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def late(database_url: str) -> AsyncIterator[tuple[LateEnds, str]]:
    """The network, and the URL through it."""
    parts = urlsplit(database_url)
    network = LateEnds(parts.port or 5432)
    server = await asyncio.start_server(network.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield network, f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable"
    server.close()
    network.close()


async def test_what_the_driver_did_not_send_is_sent_again(
    late: tuple[LateEnds, str], sql: asyncpg.Connection[Any]
) -> None:
    """A run without a key was taken for one that may have been stored, and not started again."""
    network, url = late
    backend = await BackendPostgres.connect(url, application_name="ending")
    await backend.now()
    before = network.ended
    await sql.fetch(END)
    await eventually(lambda: network.ended > before)
    await asyncio.sleep(0)  # what it said last is read

    await OpenWorkflow(backend).run_workflow("w")

    assert 1 == await sql.fetchval("select count(*) from workflow_runs")
    await backend.stop()


async def test_what_ended_a_connection_is_told_by_the_server_s_words(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    """What the driver said of it afterwards was told: cannot call Transaction.__aexit__()."""
    backend = await BackendPostgres.connect(database_url, application_name="ending")

    async def sleep_in_a_transaction() -> None:
        async with backend._requests.borrow() as connection, connection.transaction():
            await connection.fetch("select pg_sleep(60)")

    sleeping = asyncio.create_task(sleep_in_a_transaction())
    await eventually(lambda: sql.fetchval(ASLEEP))
    await sql.fetch(END)

    with pytest.raises(ConnectionLost, match=r"was lost: .*terminating connection due to"):
        await sleeping
    await backend.stop()
