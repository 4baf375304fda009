"""Brings a schema up to date: numbered files, forward only, each applied once and by itself.

Each migration is a transaction of its own under an advisory lock, so that any number of programs
may start at once, behind a pooler too. Who finds the lock taken does not queue for it but looks
again: a transaction that waits would hold up an index that is made concurrently.
"""

import asyncio
import hashlib
import logging
import random
import re
from collections.abc import Callable

import asyncpg

from openworkflow.backend import granting, ledger
from openworkflow.backend.altering import NO_TIME_LIMITS, Patience, build, insist, is_empty
from openworkflow.backend.blueprint import TABLES, Index, Migration, known
from openworkflow.backend.failures import one_line
from openworkflow.backend.ledger import Connection, Ledger, MigrationState, look, lost_indexes
from openworkflow.core.errors import BackendError
from openworkflow_contract.statements import quoted

__all__ = ["Migration", "MigrationState", "check", "known", "mend", "migrate"]

Begun = Callable[[Migration], None]

ENCODING = "UTF8"
"""Encoding of the database. Text of JSON and errors may have any character."""
OLDEST_POSTGRES = 12
LOOK_AGAIN = 0.1
"""Seconds, twice that at most: until a program that found the lock taken looks again."""
PATIENCE = 60.0
"""Seconds without progress until a migration that others keep from its lock is given up."""

logger = logging.getLogger(__name__)


async def check(connection: Connection, schema: str, *, absent: bool = False) -> None:
    """Raise BackendError for a server that does not do, or a schema with a newer contract.

    Or for a schema that is not there, unless it may be `absent`.
    """
    _refuse_server(connection)
    found = await look(connection, schema)
    found.refuse_newer()
    if not (absent or found.exists or await _is_there(connection, schema)):
        raise BackendError(
            f"there is no schema {schema!r} in this database; correct schema= "
            f"(OPENWORKFLOW_SCHEMA), or make it: openworkflow migrate --schema {schema}"
        )


async def migrate(
    connection: Connection,
    schema: str,
    begun: Begun | None = None,
    *,
    pooled: bool = False,
    patience: float = PATIENCE,
) -> list[Migration]:
    """Apply what is missing, one by one; returns what was applied here.

    `pooled` says that the connection keeps no state between transactions; `begun` is told each
    migration before it is tried, for the first time and again after a wait. Raises BackendError;
    the migrations before the one that failed stay applied.
    """
    _refuse_server(connection)
    applied: list[Migration] = []
    told = False
    waiting, left = Patience(patience), len(known()) + 1
    while True:
        found = await look(connection, schema)
        _refuse(found)
        if not found.missing:
            return applied
        if len(found.missing) < left:
            waiting, left = Patience(patience), len(found.missing)
        migration = found.missing[0]
        if begun is not None:
            begun(migration)
        try:
            if await _apply(connection, found, migration, waiting, pooled):
                applied.append(migration)
                continue
        except asyncpg.InsufficientPrivilegeError as error:
            raise await _not_allowed(connection, found, error) from error
        if not told:
            logger.info("schema %s is migrated by another program: waiting for it", schema)
        told = True
        await asyncio.sleep(random.uniform(LOOK_AGAIN, 2 * LOOK_AGAIN))


async def mend(connection: Connection, schema: str, *, patience: float = PATIENCE) -> list[Index]:
    """Make indexes again that are gone or invalid; returns them. Needs a direct connection."""
    lost = await lost_indexes(connection, schema)
    if lost:
        async with _Session(connection, schema) as session:
            if not session.locked:
                return []
            for index in lost:
                await build(connection, schema, index, Patience(patience))
    return lost


async def _apply(
    connection: Connection, found: Ledger, migration: Migration, waiting: Patience, pooled: bool
) -> bool:
    """Apply one migration, unless another program is at it or was faster."""
    if migration.concurrently and not await is_empty(connection, found.schema, migration):
        if pooled:
            raise _no_state_behind_a_pooler(found.schema, migration)
        return await _apply_concurrently(connection, found.schema, migration, waiting)
    async with connection.transaction(isolation="read_committed"):
        number = lock(found.schema)
        if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", number):
            return False
        now = await look(connection, found.schema)
        if now.missing[:1] != [migration]:
            return False
        _refuse(now)
        await _prepare(connection, now)

        async def apply() -> None:
            await connection.execute(_within(found.schema, migration.in_transaction))
            await connection.execute(ledger.RECORD, migration.number, migration.name)
            if await granting.are_wanted(connection, found.schema):
                await granting.renew(connection, found.schema)

        await insist(connection, found.schema, what(migration), migration.locks, apply, waiting)
    return True


async def _apply_concurrently(
    connection: Connection, schema: str, migration: Migration, waiting: Patience
) -> bool:
    async with _Session(connection, schema) as session:
        if not session.locked or (await look(connection, schema)).missing[:1] != [migration]:
            return False
        for index in migration.makes.indexes:
            await build(connection, schema, index, waiting)
        async with connection.transaction():
            await connection.execute(f"set local search_path to {quoted(schema)}, public")
            await connection.execute(ledger.RECORD, migration.number, migration.name)
    return True


class _Session:
    """The lock as a session's, for what cannot be done in a transaction."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._lock, self.locked = connection, lock(schema), False

    async def __aenter__(self) -> "_Session":
        self.locked = await self._connection.fetchval("select pg_try_advisory_lock($1)", self._lock)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.locked and not self._connection.is_closed():
            await self._connection.execute("reset all")
            await self._connection.fetchval("select pg_advisory_unlock($1)", self._lock)


async def _is_there(connection: Connection, schema: str) -> bool:
    return bool(
        await connection.fetchval("select true from pg_namespace where nspname = $1", schema)
    )


async def _prepare(connection: Connection, found: Ledger) -> None:
    """Make the transaction ready for a migration: limits, schema, ledger."""
    await connection.fetch(NO_TIME_LIMITS, True)
    # `if not exists` alone would ask for the right to create schemas although this one is there.
    schema = found.schema
    if not await _is_there(connection, schema):
        await connection.execute(f"create schema {quoted(schema)}")
    await connection.execute(f"set local search_path to {quoted(schema)}, public")
    if not found.exists:
        await connection.execute(ledger.CREATE)
        await _provide_uuids(connection)
    elif found.emptied:
        await connection.execute(ledger.FORGET)


def _within(schema: str, statements: str) -> str:
    """Have what is dropped be of this schema: unqualified, a name that it lacks means public's."""

    def qualified(drop: re.Match[str]) -> str:
        tables = ", ".join(f"{quoted(schema)}.{name}" for name in drop[1].split(", "))
        return f"drop table if exists {tables};"

    return re.sub(r"(?m)^DROP TABLE IF EXISTS ([\w, ]+);", qualified, statements)


def _refuse(found: Ledger) -> None:
    found.refuse_newer()
    found.refuse_loss()
    if not found.rows and (foreign := [table for table in TABLES if table in found.tables]):
        raise BackendError(
            f"schema {found.schema!r} already has a table {foreign[0]} that this program did not "
            "make; choose another schema (OPENWORKFLOW_SCHEMA), or, if its contents may go, "
            "DROP TABLE step_attempts; DROP TABLE workflow_runs;"
        )


def _refuse_server(connection: Connection) -> None:
    encoding = connection.get_settings().server_encoding
    if encoding != ENCODING:
        raise BackendError(
            f"this database has the encoding {encoding}, in which not every text can be stored, "
            "and not every error; OpenWorkflow needs UTF8: create database ... encoding 'UTF8' "
            "locale 'C' template template0"
        )
    major = connection.get_server_version().major
    if major < OLDEST_POSTGRES:
        raise BackendError(
            f"this PostgreSQL is version {major}; OpenWorkflow needs {OLDEST_POSTGRES} or newer"
        )


def what(migration: Migration) -> str:
    """Name of a migration for people."""
    return f"migration {migration.version:04d} {migration.name}"


def _no_state_behind_a_pooler(schema: str, migration: Migration) -> BackendError:
    return BackendError(
        f"schema {schema!r}: {what(migration)} makes indexes "
        "while others write, which a pooler in transaction mode cannot carry; run "
        "`openworkflow migrate --url` with a URL that leads to PostgreSQL itself"
    )


async def _not_allowed(
    connection: Connection, found: Ledger, error: asyncpg.PostgresError
) -> BackendError:
    async with connection.transaction():
        role = await connection.fetchval("select current_user")
    if found.rows and not found.emptied:
        return BackendError(
            f"role {role!r} may not bring schema {found.schema!r} up to date: {one_line(error)}; "
            "run `openworkflow migrate` with the role that owns the tables"
        )
    return BackendError(
        f"role {role!r} may not create tables in schema {found.schema!r}: {one_line(error)}; "
        f"let an administrator run GRANT CREATE, USAGE ON SCHEMA {quoted(found.schema)} "
        f"TO {quoted(role)}, or `openworkflow migrate` with a role that may"
    )


async def _provide_uuids(connection: Connection) -> None:
    """gen_random_uuid() came with PostgreSQL 13; before, it is in the extension pgcrypto."""
    if await connection.fetchval("select to_regproc('gen_random_uuid') is not null"):
        return
    try:
        async with connection.transaction():
            await connection.execute("create extension if not exists pgcrypto")
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFileError) as error:
        raise BackendError(
            "PostgreSQL 12 needs the extension pgcrypto, and it could not be created: "
            f"{one_line(error)}; let an administrator CREATE EXTENSION pgcrypto in this database"
        ) from error


def lock(schema: str) -> int:
    """The number of the advisory lock; programs of all versions take the same."""
    digest = hashlib.sha256(f"openworkflow migrations {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
