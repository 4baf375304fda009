"""A tenant's URL is hostile input: what is taken of it, what is refused, and what never leaks."""

from __future__ import annotations

import ssl

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.backend.url import parse as parse_as_worker
from openworkflow.core.errors import ConfigurationError
from openworkflow_operator.database.diagnosis import SchemaMissing, SchemaTooNew, diagnose
from openworkflow_operator.database.dsn import (
    Dsn,
    InvalidUrl,
    TlsMode,
    check_address,
    digest,
    parse,
    tls_context,
)

SECRET = "hunter2"
PARTS = ("hunter2", "db.example", "orders_role", "evil")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://me:p%40ss@db.example:6432/orders?sslmode=verify-full",
            Dsn(("db.example",), (6432,), "orders", "me", "p@ss", TlsMode.VERIFY_FULL),
        ),
        ("postgres://me@db.example", Dsn(("db.example",), (5432,), "me", "me", "")),
        (
            "postgresql://me:x@a:1,b:2/d?target_session_attrs=read-write",
            Dsn(("a", "b"), (1, 2), "d", "me", "x"),
        ),
        ("postgresql://me:x@[2001:db8::1]:5433/d", Dsn(("2001:db8::1",), (5433,), "d", "me", "x")),
        (
            "postgresql://me:x@h/d?pool_size=5&options=-c%20a%3Db",
            Dsn(("h",), (5432,), "d", "me", "x"),
        ),
        ("postgresql://me:x@h/d?sslmode=allow", Dsn(("h",), (5432,), "d", "me", "x")),
    ],
)
def test_what_is_needed_to_connect_is_taken_and_the_rest_left(url: str, expected: Dsn) -> None:
    assert expected == parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://me:hunter2@db.example/evil",
        "file:///etc/passwd",
        "host=db.example user=orders_role password=hunter2",
        "postgresql:///evil",
        "postgresql://db.example/evil",
        "postgresql://orders_role:hunter2@/evil",
        "postgresql://orders_role:hunter2@%2Fvar%2Frun%2Fevil/d",
        "postgresql://orders_role:hunter2@db.example:0/evil",
        "postgresql://orders_role:hunter2@db.example:evil/d",
        "postgresql://orders_role:hunter2@db.example:00655350/evil",
        "postgresql://orders_role:hunter2@db.example:5432:5432/d",
        "postgresql://orders_role:hunter2@[::1/evil",
        "postgresql://orders_role:hunter2@db.example/d?host=/tmp/evil",
        "postgresql://orders_role:hunter2@db.example/d?passfile=/evil",
        "postgresql://orders_role:hunter2@db.example/d?service=evil",
        "postgresql://orders_role:hunter2@db.example/d?sslkey=/evil",
        "postgresql://orders_role:hunter2@db.example/d?sslrootcert=/evil",
        "postgresql://orders_role:hunter2@db.example/d?sslmode=evil",
        "postgresql://orders_role:hunter2@db.example/d?evil=1",
        "postgresql://orders_role:hunter2@" + ",".join(["db.example"] * 9) + "/evil",
        "postgresql://orders_role:hunter2@db.example/\0evil",
        "postgresql://orders_role:hunter2@db.example/evil" + "x" * 9000,
    ],
)
def test_what_is_refused_is_refused_without_an_echo(url: str) -> None:
    with pytest.raises(InvalidUrl) as refused:
        parse(url)

    assert [] == [part for part in PARTS if part in str(refused.value)]
    assert refused.value.__cause__ is None


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://u:p@h/{text}?{text}"):
        try:
            found = parse(url)
        except InvalidUrl:
            continue
        assert found.hosts
        assert all(not host.startswith("/") for host in found.hosts)


def test_nothing_of_the_url_is_in_the_repr() -> None:
    shown = repr(parse("postgresql://orders_role:hunter2@db.example/evil"))

    assert [] == [part for part in PARTS if part in shown]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "fe80::1%eth0",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_the_operator_does_not_connect_to_itself_or_to_metadata_services(address: str) -> None:
    with pytest.raises(InvalidUrl, match="loopback"):
        check_address(address)


@pytest.mark.parametrize("address", ["10.0.0.7", "2001:db8::1", "db.example", "192.168.1.4"])
def test_other_addresses_are_fine(address: str) -> None:
    check_address(address)


def test_certificates_are_verified_where_the_url_asks_for_it() -> None:
    full, some = (tls_context(m, None) for m in (TlsMode.VERIFY_FULL, TlsMode.VERIFY_CA))
    loose = tls_context(TlsMode.REQUIRE, None)

    assert full is not None
    assert (full.verify_mode, full.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert some is not None
    assert (some.verify_mode, some.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert loose is not None
    assert loose.verify_mode == ssl.CERT_NONE
    assert tls_context(TlsMode.DISABLE, None) is None


def test_a_fingerprint_depends_on_the_url_and_on_the_resource() -> None:
    assert digest("a", "uid") == digest("a", "uid")
    assert 3 == len({digest("a", "uid"), digest("b", "uid"), digest("a", "other")})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.InvalidPasswordError("hunter2"), "AuthenticationFailed"),
        (asyncpg.InvalidAuthorizationSpecificationError("orders_role"), "AuthenticationFailed"),
        (asyncpg.InvalidCatalogNameError("evil"), "DatabaseNotFound"),
        (asyncpg.TooManyConnectionsError("evil"), "TooManyConnections"),
        (asyncpg.InsufficientPrivilegeError("evil"), "PermissionDenied"),
        (asyncpg.UndefinedTableError("evil"), "SchemaMissing"),
        (asyncpg.UndefinedColumnError("evil"), "SchemaMissing"),
        (asyncpg.QueryCanceledError("evil"), "TimedOut"),
        (asyncpg.AdminShutdownError("evil"), "Unreachable"),
        (asyncpg.CannotConnectNowError("evil"), "Unreachable"),
        (asyncpg.SyntaxOrAccessError("evil"), "QueryFailed"),
        (asyncpg.InternalClientError("evil"), "Unreachable"),
        (ssl.SSLCertVerificationError("db.example"), "TLSFailed"),
        (ConnectionError("rejected SSL upgrade"), "TLSFailed"),
        (ConnectionRefusedError("db.example"), "Unreachable"),
        (OSError("db.example"), "Unreachable"),
        (TimeoutError("db.example"), "TimedOut"),
        (SchemaMissing(), "SchemaMissing"),
        (SchemaTooNew(), "SchemaTooNew"),
        (InvalidUrl("the URL must be good"), "InvalidURL"),
        (RuntimeError("hunter2"), "QueryFailed"),
    ],
)
def test_every_error_has_a_reason_and_advice_and_is_never_quoted(
    error: Exception, reason: str
) -> None:
    problem = diagnose(error)

    assert reason == problem.reason
    assert len(problem.message) > 10
    assert [] == [part for part in PARTS if part in problem.message]


@pytest.mark.parametrize(
    "scheme",
    ["postgresql", "postgres", "POSTGRESQL", "postgresql+asyncpg", "postgres+psycopg"],
)
def test_what_a_worker_reads_the_operator_reads(scheme: str) -> None:
    """A Secret that one of them refuses is a fleet that does not start, or is never scaled."""
    url = f"{scheme}://me:x@db.example/orders"
    assert parse(url).database == parse_as_worker(url).database == "orders"


@pytest.mark.parametrize("scheme", ["mysql", "postgresqlx", "postgresql+", "http"])
def test_what_a_worker_refuses_the_operator_refuses(scheme: str) -> None:
    url = f"{scheme}://me:x@db.example/orders"
    with pytest.raises(InvalidUrl):
        parse(url)
    with pytest.raises(ConfigurationError):
        parse_as_worker(url)
