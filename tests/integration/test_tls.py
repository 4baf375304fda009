"""TLS: whom we trust, what is said of whom we do not, and certificates that change under way."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.backend import addresses
from openworkflow.core.errors import BackendError, Fault
from tests.certificates import Authority, TlsServer, tls_server
from tests.database_roles import working
from tests.guarded_postgres import programs_with_tls
from tests.helpers import eventually
from tests.holding import Holding
from tests.names import DEAD, Names, dead_at

pytestmark = pytest.mark.skipif(
    programs_with_tls() is None, reason="needs a PostgreSQL with TLS (Debian's)"
)
ALIVE = "127.0.0.1"


@workflow
async def one_step(step: Step) -> int:
    return await step.run("a", lambda: 1)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "others")


@pytest.fixture(scope="module")
def server(ours: Authority) -> Iterator[TlsServer]:
    with tls_server(*ours.sign("db.test"), ours) as made:
        made.postgres.run(
            "createdb", "-h", ALIVE, "-p", str(made.postgres.port), "-U", "postgres", "mutual"
        )
        yield made


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setattr(addresses, "_first", {})
    names = Names(monkeypatch)
    names.known |= {"db.test": [ALIVE], "other.test": [ALIVE]}
    return names


async def test_verified_by_name_whatever_address_it_has(
    server: TlsServer, names: Names, ours: Authority
) -> None:
    names.known["db.test"] = [DEAD, ALIVE]
    url = server.url(
        "postgres", "db.test", sslmode="verify-full", sslrootcert=ours.file, connect_timeout=2
    )
    with dead_at(server.postgres.port):
        backend = await BackendPostgres.connect(url)
        async with working(backend, one_step):
            run = await OpenWorkflow(backend).run_workflow(one_step)
            assert 1 == await run.result(timeout=30)
        await backend.stop()


@pytest.mark.parametrize(
    ("database", "host", "query", "said"),
    [
        ("postgres", "other.test", {}, "the database URL has to have the host name that is in"),
        ("postgres", "db.test", {"sslrootcert": "others"}, "check that sslrootcert in the"),
        ("postgres", "db.test", {"sslrootcert": "key"}, "cannot be used"),
        ("mutual", "db.test", {}, "requires a valid client certificate; name the certificate"),
        ("mutual", "db.test", {"sslcert": "others"}, "refuse"),
        ("mutual", "db.test", {"sslcert": "expired"}, "refuse"),
        ("mutual", "db.test", {"sslcert": "mixed"}, "check sslrootcert and sslcert and sslkey"),
        ("mutual", "db.test", {"sslmode": "prefer"}, "may require TLS: use sslmode=require"),
    ],
)
async def test_whom_we_do_not_trust_or_who_does_not_trust_us_is_told(
    server: TlsServer,
    names: Names,
    ours: Authority,
    others: Authority,
    database: str,
    host: str,
    query: dict[str, str],
    said: str,
) -> None:
    """Each was the server's certificate that was refused, or a connection that was closed."""
    roots = {"": ours.file, "others": others.file, "key": ours.folder / "ca.key"}
    options: dict[str, object] = {
        "sslmode": query.get("sslmode", "verify-full"),
        "sslrootcert": roots[query.get("sslrootcert", "")],
    }
    if "sslcert" in query:
        certificate, key = {
            "others": lambda: others.sign("client"),
            "expired": lambda: ours.sign("client", expired=True),
            "mixed": lambda: (ours.sign("client")[0], others.sign("client")[1]),
        }[query["sslcert"]]()
        options |= {"sslcert": certificate, "sslkey": key}

    with pytest.raises(BackendError) as caught:
        await BackendPostgres.connect(server.url(database, host, **options))

    assert said in str(caught.value)
    assert caught.value.fault is Fault.SERVER


async def test_a_server_whose_certificate_has_expired_is_told(
    names: Names, ours: Authority
) -> None:
    with tls_server(*ours.sign("db.test", expired=True), ours) as server:
        url = server.url("postgres", "db.test", sslmode="verify-full", sslrootcert=ours.file)
        with pytest.raises(BackendError, match=r"has expired .*; have it renewed on the server"):
            await BackendPostgres.connect(url)


async def test_certificates_that_change_under_way_cost_time_and_nothing_else(
    names: Names,
    ours: Authority,
    others: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server's is of another authority, which we learn of later."""
    caplog.set_level(logging.INFO)
    held = Holding()
    calls, hold, holding = held.calls, held.hold, held.workflow
    root = tmp_path / "root.crt"
    shutil.copy(ours.file, root)
    with tls_server(*ours.sign("db.test"), ours) as server:
        backend = await BackendPostgres.connect(
            server.url("postgres", "db.test", sslmode="verify-full", sslrootcert=root)
        )
        async with working(backend, holding):
            client = OpenWorkflow(backend)
            run = await client.run_workflow(holding)
            result = asyncio.create_task(run.result(timeout=60))
            await eventually(lambda: "b" in calls)
            asked = names.asked
            await server.rotate(*others.sign("db.test"))
            hold.set()
            await eventually(lambda: names.asked > asked)
            with pytest.raises(BackendError, match="the TLS certificate of PostgreSQL"):
                await client.run_workflow(holding)
            assert names.asked > asked + 5
            warnings = [each.name for each in caplog.records if each.levelno >= logging.WARNING]
            assert len(warnings) < 10, warnings
            shutil.copy(others.file, root)
            await result
        await backend.stop()

    assert ["a", "b", "c"] == calls
