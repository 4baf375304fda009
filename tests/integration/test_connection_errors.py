"""Each way in which a connection fails gives one line with the next thing to try."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from openworkflow.backend.backend import BackendPostgres, ConnectionLost
from openworkflow.backend.records import Flush
from openworkflow.backend.url import parse
from openworkflow.core.errors import BackendError, ConfigurationError
from tests.flushes import LEASE
from tests.helpers import eventually
from tests.ports import free_port
from tests.postgres import DatabaseServer

SECRET = "s3cr3t%2Fp%40ss"
SSL_REQUEST = 80877103


async def _error(url: str) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await BackendPostgres.connect(url)
    message = str(caught.value)
    assert "\n" not in message
    assert "s3cr3t" not in message
    return caught.value


def _with(url: str, **parts: str) -> str:
    """The same server, with another database, query or credentials."""
    split = urlsplit(url)
    place = split.netloc.rpartition("@")[2]
    netloc = f"{parts['credentials']}@{place}" if "credentials" in parts else split.netloc
    query = "&".join(filter(None, [split.query, parts.get("query", "")]))
    return urlunsplit(
        split._replace(netloc=netloc, path=parts.get("path", split.path), query=query)
    )


@contextlib.asynccontextmanager
async def _server_that_says(state: str, message: str) -> AsyncIterator[int]:
    """A server that refuses every startup with this error, and TLS always."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            length, code = struct.unpack("!II", await reader.readexactly(8))
            if code == SSL_REQUEST:
                writer.write(b"N")
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                await reader.readexactly(length - 4)
            else:
                await reader.readexactly(length - 8)
            fields = {"S": "FATAL", "V": "FATAL", "C": state, "M": message}
            body = b"".join(f"{key}{value}".encode() + b"\0" for key, value in fields.items())
            writer.write(b"E" + struct.pack("!I", len(body) + 5) + body + b"\0")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_refused_connection_asks_whether_the_server_runs() -> None:
    port = free_port()

    error = await _error(f"postgresql://me:{SECRET}@127.0.0.1:{port}/shop")

    assert isinstance(error, ConnectionLost)
    assert (
        f"PostgreSQL at 127.0.0.1:{port} (database 'shop') refused the connection; check that it "
        f"runs (pg_isready -h 127.0.0.1 -p {port}) and that host and port are right"
    ) == str(error)


async def test_a_refusal_of_every_address_of_a_name_is_one_line() -> None:
    error = await _error(f"postgresql://me:{SECRET}@localhost:{free_port()}/shop")

    assert "refused the connection" in str(error)


async def test_an_unknown_host_asks_for_its_spelling() -> None:
    error = await _error(f"postgresql://me:{SECRET}@no-such-host.invalid/shop")

    assert (
        "the host of PostgreSQL at no-such-host.invalid:5432 (database 'shop') is unknown; "
        "check its spelling in the database URL, and DNS"
    ) == str(error)


async def test_a_host_that_stays_silent_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]

        error = await _error(f"postgresql://me:{SECRET}@127.0.0.1:{port}/shop?connect_timeout=0.2")

    assert f"127.0.0.1:{port} (database 'shop') did not answer within 0.2 s; check" in str(error)
    assert "firewalls" in str(error)


async def test_a_socket_that_is_not_there_is_named() -> None:
    error = await _error("postgresql://me@/shop?host=/no/such/folder")

    assert "no Unix socket of PostgreSQL at /no/such/folder/.s.PGSQL.5432" in str(error)


async def test_a_file_for_tls_that_is_not_there_is_named() -> None:
    url = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/shop"

    named = await _error(f"{url}?sslmode=verify-full&sslrootcert=/no/such.pem")
    by_default = await _error(f"{url}?sslmode=verify-full")

    assert "check sslrootcert in the database URL" in str(named)
    assert "root certificate file" in str(by_default)


async def test_no_server_of_the_wanted_kind_is_told(empty_database_url: str) -> None:
    error = await _error(
        _with(empty_database_url, query="target_session_attrs=standby&connect_timeout=1")
    )

    assert str(error).endswith("is standby")


@pytest.mark.parametrize(
    ("state", "said", "advice"),
    [
        ("28P01", 'password authentication failed for user "me"', "check user and password"),
        ("28000", 'role "me" does not exist', "check the user in the database URL"),
        (
            "28000",
            'no pg_hba.conf entry for host "::1", user "me", database "shop", no encryption',
            "may require TLS: use sslmode=require",
        ),
        (
            "28000",
            'no pg_hba.conf entry for host "::1", user "me", database "shop", SSL encryption',
            "let an administrator allow this host",
        ),
        ("53300", "sorry, too many clients already", "lower pool_size"),
        ("3D000", 'database "shop" does not exist', "createdb -h 127.0.0.1 -p"),
        ("08P01", "no such database: shop", "createdb -h 127.0.0.1 -p"),
        ("08P01", "transaction blocks not allowed in statement pooling mode", "set pool_mode"),
        ("57P03", "the database system is starting up", "starting up"),
    ],
)
async def test_what_the_server_refuses_comes_with_advice(
    state: str, said: str, advice: str
) -> None:
    async with _server_that_says(state, said) as port:
        error = await _error(f"postgresql://me:{SECRET}@127.0.0.1:{port}/shop")

    assert f"PostgreSQL at 127.0.0.1:{port} (database 'shop'): {said}" in str(error)
    assert advice in str(error)
    assert isinstance(error, ConnectionLost) == (state[:2] in ("08", "53", "57"))


async def test_an_unknown_database_of_a_real_server_is_named(empty_database_url: str) -> None:
    error = await _error(_with(empty_database_url, path="/no_such_database"))

    assert "database 'no_such_database'" in str(error)
    assert "createdb" in str(error)


async def test_tls_that_the_server_does_not_speak_is_explained(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    speaks_tls = await connection.fetchval("SELECT current_setting('ssl')") == "on"
    await connection.close()
    if speaks_tls or "host=%2F" in empty_database_url or "host=/" in empty_database_url:
        pytest.skip("this server speaks TLS, or listens on a Unix socket only")

    error = await _error(_with(empty_database_url, query="sslmode=require"))

    assert "does not speak TLS, which sslmode=require demands" in str(error)


async def test_too_many_connections_of_a_role_are_told(empty_database_url: str) -> None:
    role = "openworkflow_limited_" + empty_database_url[-8:]
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 's3cr3t' CONNECTION LIMIT 0")
    try:
        error = await _error(_with(empty_database_url, credentials=f"{role}:s3cr3t"))
    finally:
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()

    assert "too many connections" in str(error)
    assert "lower pool_size" in str(error)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "DATABASE_URL"),
        ("mysql://h/db", "postgresql://user:password@host"),
        (f"postgresql://me:{SECRET}/oops@h/db", "percent-encode"),
        ("postgresql://me:s3cr3t@h:port/db", "port"),
        ("postgresql://me:s3cr3t@h:70000/db", "65535"),
        ("postgresql://me:s3cr3t@h/db?ssl_mode=require", "did you mean 'sslmode'"),
        ("postgresql://me:s3cr3t@h/db?sslmode=on", "verify-full"),
        ("postgresql://me:s3cr3t@h/db?pool_size=0", "pool_size"),
        ("postgresql://me:s3cr3t@h/db?connect_timeout=soon", "connect_timeout"),
    ],
)
async def test_a_url_that_cannot_be_is_refused_before_any_connection(url: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word) as caught:
        await BackendPostgres.connect(url)

    assert "s3cr3t" not in str(caught.value)


async def test_a_backend_never_shows_its_password(database_url: str) -> None:
    url = _with(database_url, credentials="postgres:s3cr3t")
    backend = await BackendPostgres.connect(url)

    assert "s3cr3t" not in f"{backend.url} {backend.url!r}"
    await backend.stop()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_text_is_refused(
    postgres: DatabaseServer, empty_database_url: str, encoding: str
) -> None:
    """Such a database replaced the error of a run by one about its encoding."""
    name = urlsplit(empty_database_url).path[1:]
    postgres.drop_database(name)
    postgres.execute(
        f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    )

    error = await _error(empty_database_url)

    assert f"this database has the encoding {encoding}" in str(error)
    assert "needs UTF8" in str(error)


@pytest.fixture
def terminate(database_url: str) -> Callable[[], Awaitable[None]]:
    """Ends every other connection to the test's database."""

    async def terminate() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()

    return terminate


async def test_a_session_says_the_connection_is_lost_and_comes_back(
    backend: BackendPostgres, terminate: Callable[[], Awaitable[None]]
) -> None:
    session = await backend.open_session(1)
    heartbeat = await backend.open_heartbeat()
    await terminate()

    async def flushes() -> bool:
        try:
            await session.flush(Flush("host/1", LEASE))
            await heartbeat.beat("host/1", LEASE, [])
        except ConnectionLost:
            return False
        return True

    await eventually(flushes)
    assert (await backend.now()).tzinfo is not None
    await session.close()
    await heartbeat.close()


async def test_a_worker_s_session_calls_any_failure_to_reconnect_a_lost_connection(
    backend: BackendPostgres,
    terminate: Callable[[], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even a wrong password may be put right while the worker waits."""
    session = await backend.open_session(1)
    async with _server_that_says("28P01", "password authentication failed") as port:
        elsewhere = parse(f"postgresql://me@127.0.0.1:{port}/x")
        for link in session._links:
            monkeypatch.setattr(link, "_dsn", elsewhere)
            link.drop()

        with pytest.raises(ConnectionLost, match="check user and password"):
            await session.flush(Flush("host/1", LEASE))
    await session.close()
