"""Connection strings in all the forms people have them in."""

import pytest

from openworkflow.backend.url import Dsn, parse
from openworkflow.core.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _no_defaults_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGUSER", "PGHOST", "PGPORT", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "somebody")


def _place(dsn: Dsn) -> tuple[object, ...]:
    return dsn.hosts, dsn.database, dsn.user, dsn.password


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://postgres:postgres@localhost:5432/postgres",
            ((("localhost", 5432),), "postgres", "postgres", "postgres"),
        ),
        ("postgres://u@db.example.com/myapp", ((("db.example.com", 5432),), "myapp", "u", None)),
        (
            "postgresql://u%40x:p%2Fw%3Aq%25@h/my%20db",
            ((("h", 5432),), "my db", "u@x", "p/w:q%"),
        ),
        ("postgresql://u:p@w@h/db", ((("h", 5432),), "db", "u", "p@w")),
        ("postgresql://u:@h/db", ((("h", 5432),), "db", "u", "")),
        ("postgresql://u@[::1]:6000/db", ((("::1", 6000),), "db", "u", None)),
        ("postgresql://u@a:1,b:2,c/db", ((("a", 1), ("b", 2), ("c", 5432)), "db", "u", None)),
        ("postgresql://u@/db?host=/run/pg&port=7", ((("/run/pg", 7),), "db", "u", None)),
        ("postgresql://%2Frun%2Fpg/db?user=u", ((("/run/pg", 5432),), "db", "u", None)),
        ("postgresql:///db?user=u&password=p%26q", ((("localhost", 5432),), "db", "u", "p&q")),
        ("postgresql+asyncpg://u@h/db", ((("h", 5432),), "db", "u", None)),
        ("postgres+psycopg://u@h/db", ((("h", 5432),), "db", "u", None)),
        ("postgresql://u@h", ((("h", 5432),), "u", "u", None)),
        ("postgresql://u@h?dbname=x", ((("h", 5432),), "x", "u", None)),
        ("postgresql://h", ((("h", 5432),), "somebody", "somebody", None)),
    ],
)
def test_a_url_names_hosts_database_and_role(url: str, expected: tuple[object, ...]) -> None:
    assert expected == _place(parse(url))


def test_what_the_url_leaves_out_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("USER", "u"), ("HOST", "h"), ("PORT", "7"), ("DATABASE", "d")):
        monkeypatch.setenv(f"PG{name}", value)

    assert ((("h", 7),), "d", "u", None) == _place(parse("postgresql://"))


def test_parameters_become_arguments_of_the_driver() -> None:
    dsn = parse(
        "postgresql://u:p@h/db?sslmode=verify-full&sslrootcert=/a b.pem&pool_size=20"
        "&application_name=shop&connect_timeout=2.5&options=-c%20statement_timeout%3D9"
        "&target_session_attrs=read-write"
    )

    arguments = dsn.arguments()

    assert (20, "shop", "-c statement_timeout=9") == (
        dsn.pool_size,
        dsn.application_name,
        dsn.options,
    )
    assert (
        "postgresql://?sslrootcert=%2Fa+b.pem&sslmode=verify-full",
        ["h"],
        [5432],
        "db",
        "u",
        "p",
        2.5,
        "read-write",
    ) == tuple(
        arguments[name]
        for name in (
            "dsn",
            "host",
            "port",
            "database",
            "user",
            "password",
            "timeout",
            "target_session_attrs",
        )
    )


def test_a_parsed_url_shows_its_place_and_never_its_password() -> None:
    dsn = parse("postgresql://u:s3cr3t@[::1],h:7/db?password=s3cr3t&sslpassword=s3cr3t")

    assert "[::1]:5432,h:7/db" == str(dsn)
    assert "s3cr3t" not in repr(dsn)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("  ", "there is no database URL"),
        (None, "set DATABASE_URL"),
        ("localhost/db", "form postgresql://"),
        ("postgresql://u:s3cr3t#1@h/db", "percent-encode"),
        ("postgresql://u@h/db#fragment", "form postgresql://"),
        ("postgresql://u@h:0/db", "1 to 65535"),
        ("postgresql://u@h:1:2/db", "host or port cannot be read"),
        ("postgresql://u@/db?host=a,b&port=1,2,3", "more ports than hosts"),
        ("postgresql://u@h/db?poolsize=3", "did you mean 'pool_size'"),
        ("postgresql://u@h/db?zzz=3", "known are application_name, connect_timeout"),
        ("postgresql://u@h/db?pool_size=-1", "whole number above 0"),
        ("postgresql://u@h/db?pool_size=1.5", "whole number above 0"),
        ("postgresql://u@h/db?connect_timeout=nan", "number of seconds above 0"),
        ("postgresql://u@h/db?target_session_attrs=master", "read-write"),
    ],
)
def test_a_url_that_cannot_be_read_says_what_is_wrong(url: str | None, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word) as caught:
        parse(url)

    assert "s3cr3t" not in str(caught.value)
