"""A role or database may have settings of its own; what our statements rely on holds anyway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from openworkflow.backend import arranging
from openworkflow.backend.backend import BackendPostgres
from openworkflow_operator.database import connection as operator_connection
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import parse
from tests.flushes import session_of
from tests.guarded_postgres import has_pgbouncer, pooler_of
from tests.postgres import DatabaseServer

ISOLATION = "show transaction_isolation"


@pytest.fixture
def strict_url(postgres: DatabaseServer, database_url: str) -> str:
    """A database whose transactions are serializable unless they say otherwise."""
    name = urlsplit(database_url).path[1:]
    postgres.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
    return database_url


@pytest.fixture(params=["direct", "pooled"])
def way_in(request: pytest.FixtureRequest, strict_url: str, tmp_path: Path) -> Iterator[str]:
    """To that database, and through a pooler."""
    if request.param == "direct":
        yield strict_url
        return
    if not has_pgbouncer():
        pytest.skip("pgbouncer is not installed (make test-programs)")
    with pooler_of(strict_url, tmp_path) as url:
        yield url


async def test_every_statement_sees_what_was_committed_before_it(way_in: str) -> None:
    """The fence and the locks of builds look again at rows that they had to wait for."""
    backend = await BackendPostgres.connect(way_in)
    session = await session_of(backend)
    try:
        of_worker = await session._fetch(ISOLATION, ())
        of_client = await backend._requests.fetch(ISOLATION)
    finally:
        await session.close()
        await backend.stop()

    assert ["read committed"] * 2 == [of_worker[0][0], of_client[0][0]]


async def test_the_operator_s_statements_see_what_was_committed_before_them(
    strict_url: str,
) -> None:
    options = ConnectOptions(allow_loopback=True)
    database = await Database.connect(parse(strict_url), "public", options)
    try:
        seen = []
        for begin in (operator_connection._READ, operator_connection._WRITE):
            async with database._transaction(begin, "COMMIT"):
                seen.append(await database._connection.fetchval(ISOLATION))
    finally:
        database.terminate()

    assert ["read committed"] * 2 == seen


async def test_roles_are_arranged_by_what_was_committed_before_it_was_their_turn(
    strict_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once: the second did not see the roles of the first, and could not make them."""

    async def seen(connection: Any, *_: Any) -> list[str]:
        return [await connection.fetchval(ISOLATION)]

    backend = await BackendPostgres.connect(strict_url)
    await backend.stop()
    monkeypatch.setattr(arranging, "_arrange", seen)

    assert ["read committed"] == await arranging.arrange(strict_url, "public", arranging.Wish())
