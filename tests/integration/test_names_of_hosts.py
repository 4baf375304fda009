"""Whatever the host's name leads to: what answers there is found, and found again."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import Any

import asyncpg
import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.backend import addresses
from openworkflow.backend import url as url_of
from openworkflow.backend.connection import connect
from openworkflow.core.errors import BackendError, ConnectionLost
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import parse
from tests.database_roles import working
from tests.helpers import eventually
from tests.holding import Holding
from tests.local_postgres import FAST_AND_UNSAFE, LocalPostgres, embedded_programs
from tests.names import DEAD, Names, dead_at, named, port_of
from tests.two_servers import migrated, set_read_only, two_servers

ALIVE = "127.0.0.1"
KILL = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)


@workflow
async def two_steps(step: Step) -> int:
    first: int = await step.run("a", lambda: 1)
    return first + await step.run("b", lambda: 2)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setattr(addresses, "_first", {})
    return Names(monkeypatch)


async def test_a_name_whose_first_address_is_dead_is_connected_to(
    names: Names, database_url: str
) -> None:
    """That one took the whole of the timeout, at each connection: nobody ever connected."""
    names.known["db.test"] = [DEAD, ALIVE]
    url = named(database_url, "db.test", connect_timeout=1)
    with dead_at(port_of(database_url)):
        backend = await BackendPostgres.connect(url)
        async with working(backend, two_steps):
            run = await OpenWorkflow(backend).run_workflow(two_steps)
            assert 3 == await run.result(timeout=30)
        await backend.stop()


async def test_a_dead_address_costs_its_time_once(
    names: Names, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    class Recording(addresses.LoopTowards):
        def __init__(self, address: str) -> None:
            super().__init__(address)
            tried.append(address)

    monkeypatch.setattr("openworkflow.backend.hosts.LoopTowards", Recording)
    names.known["db.test"] = [DEAD, ALIVE]
    with dead_at(port_of(database_url)):
        backend = await BackendPostgres.connect(named(database_url, "db.test", connect_timeout=0.3))
        for _ in range(3):
            await backend.now()
        session = await backend.open_session()
        await session.close()
        await backend.stop()

    assert [DEAD, ALIVE] == tried[:2]
    assert {ALIVE} == set(tried[2:])


async def test_who_gives_up_among_dead_addresses_goes_on_after_them(
    names: Names, database_url: str
) -> None:
    """Whoever waits for less than all of them take would else try the same ones again."""
    names.known["db.test"] = [DEAD, ALIVE]
    port = port_of(database_url)
    with dead_at(port):
        assert [DEAD, ALIVE] == list(await addresses.addresses("db.test", port, 1))
        addresses.begin_with("db.test", port, ALIVE)
        assert [ALIVE, DEAD] == list(await addresses.addresses("db.test", port, 1))
        names.known["db.test"] = ["127.0.0.3", DEAD]  # what was known of it is over
        assert ["127.0.0.3", DEAD] == list(await addresses.addresses("db.test", port, 1))


async def test_the_server_that_is_wanted_is_found_behind_one_name(
    names: Names, database_url: str
) -> None:
    """A standby that came first in DNS was all that was tried."""
    names.known["db.test"] = [DEAD, ALIVE]
    programs = embedded_programs()
    library = programs.parent / "lib"
    settings = {
        **FAST_AND_UNSAFE,
        "listen_addresses": DEAD,
        "default_transaction_read_only": "on",
    }
    server = LocalPostgres(programs, library if library.is_dir() else None, settings)
    server.port = port_of(database_url)
    server.start()
    try:
        first = await asyncpg.connect(host="db.test", port=server.port, user="postgres", ssl=False)
        assert "on" == await first.fetchval("show default_transaction_read_only")
        await first.close()
        for wanted in ("read-write", "read-only", "read-write"):
            url = f"postgresql://postgres@db.test:{server.port}/postgres"
            dsn = url_of.parse(f"{url}?target_session_attrs={wanted}")
            found = await connect(dsn, application_name="test")
            assert (wanted == "read-only") == (
                "on" == await found.fetchval("show default_transaction_read_only")
            )
            found.terminate()
    finally:
        server.stop()


async def test_the_operator_connects_to_a_name_whose_first_address_is_dead(
    names: Names, database_url: str
) -> None:
    names.known["db.test"] = [DEAD, ALIVE]
    with dead_at(port_of(database_url)):
        database = await Database.connect(
            parse(named(database_url, "db.test", sslmode="disable")),
            "public",
            ConnectOptions(allow_loopback=True),
        )
    database.terminate()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "cannot be looked up for now ([Errno -3] Temporary failure in name resolution); "
            "check that DNS answers",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "is unknown; check its spelling in the database URL, and DNS",
        ),
    ],
)
async def test_what_is_wrong_with_a_name_is_told(names: Names, error: OSError, said: str) -> None:
    names.known["db.test"] = error

    with pytest.raises(ConnectionLost) as caught:
        await BackendPostgres.connect("postgresql://me@db.test/shop")

    assert f"the host of PostgreSQL at db.test:5432 (database 'shop') {said}" == str(caught.value)


async def test_a_name_that_cannot_be_one_is_told() -> None:
    with pytest.raises(BackendError, match="is unknown; check its spelling"):
        await BackendPostgres.connect("postgresql://me@db..test/shop")


async def test_an_outage_of_dns_costs_time_and_nothing_else(
    names: Names,
    database_url: str,
    sql: asyncpg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    held = Holding()
    calls, hold, holding = held.calls, held.hold, held.workflow
    names.known["db.test"] = [ALIVE]
    backend = await BackendPostgres.connect(named(database_url, "db.test"))
    async with working(backend, holding):
        run = await OpenWorkflow(backend).run_workflow(holding)
        result = asyncio.create_task(run.result(timeout=60))
        await eventually(lambda: "b" in calls)
        names.known["db.test"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
        await sql.fetch(KILL)
        asked = names.asked
        hold.set()
        await eventually(lambda: names.asked > asked + 10)
        lines = len(caplog.messages)
        names.known["db.test"] = [ALIVE]
        await result
    await backend.stop()

    assert ["a", "b", "c"] == calls
    assert lines < 15, caplog.messages


async def test_a_name_that_moves_to_the_promoted_server_is_followed(names: Names) -> None:
    """The old one still answers, and takes no writes any more."""
    with two_servers() as (old, new):
        await migrated(old, new)
        url = old.url().replace(f"127.0.0.1:{old.port}", f"db.test:{old.port}")
        names.known["db.test"] = [ALIVE]
        backend = await BackendPostgres.connect(url)
        async with working(backend, two_steps):
            client = OpenWorkflow(backend)
            assert 3 == await (await client.run_workflow(two_steps)).result(timeout=30)
            await set_read_only(old, on=True)
            await _at_the_port_of(old, new)
            names.known["db.test"] = [DEAD]
            assert 3 == await (await client.run_workflow(two_steps)).result(timeout=60)
        await backend.stop()


async def _at_the_port_of(old: LocalPostgres, new: LocalPostgres) -> None:
    """Have the new server answer at DEAD, on the port of the old one."""
    connection = await asyncpg.connect(new.url())
    await connection.execute(f"alter system set listen_addresses = '{DEAD}'")
    await connection.close()
    new.port = old.port
    await asyncio.to_thread(new.restart, signal.SIGINT)
