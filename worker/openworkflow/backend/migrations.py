"""Brings a schema up to date: numbered files, forward only, each applied once under a lock.

The lock is a transaction's advisory lock, so fifty workers may start at once, behind a pooler too.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

import asyncpg

from openworkflow.backend.failures import one_line
from openworkflow.backend.queries import quoted
from openworkflow.core.errors import BackendError

Connection = Any
"""An asyncpg connection, or a pool's proxy of one."""

OLDEST_POSTGRES = 12
TABLES = ("workflow_runs", "step_attempts")

_LEDGER = """
create table openworkflow_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered file of `sql/migrations`."""

    version: int
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class MigrationState:
    """A migration, and when it was applied to the database; None if it was not yet."""

    migration: Migration
    applied_at: datetime | None


@cache
def known() -> tuple[Migration, ...]:
    """The migrations this version of the code has, in order."""
    folder = resources.files("openworkflow.backend") / "sql" / "migrations"
    found = []
    for file in folder.iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def states(connection: Connection, schema: str) -> list[MigrationState]:
    """Every known migration with the time it was applied."""
    applied = await _applied(connection, schema)
    return [MigrationState(migration, applied.get(migration.version)) for migration in known()]


async def check(connection: Connection, schema: str) -> None:
    """Raise BackendError for a server too old, or a schema newer than the code."""
    if connection.get_server_version().major < OLDEST_POSTGRES:
        raise BackendError(
            f"this PostgreSQL is version {connection.get_server_version().major}; "
            f"OpenWorkflow needs {OLDEST_POSTGRES} or newer"
        )
    _refuse_newer(await _applied(connection, schema), schema)


async def migrate(connection: Connection, schema: str) -> list[Migration]:
    """Apply what is missing; returns what was applied. Raises BackendError, applying nothing."""
    await check(connection, schema)
    if not _missing(await _applied(connection, schema)):
        return []
    try:
        async with connection.transaction():
            return await _migrate_locked(connection, schema)
    except asyncpg.InsufficientPrivilegeError as error:
        async with connection.transaction():
            role = await connection.fetchval("select current_user")
        raise BackendError(
            f"role {role!r} may not create tables in schema {schema!r}: {one_line(error)}; "
            f"let an administrator run GRANT CREATE, USAGE ON SCHEMA {quoted(schema)} "
            f"TO {quoted(role)}, or `openworkflow migrate` with a role that may"
        ) from error


async def _migrate_locked(connection: Connection, schema: str) -> list[Migration]:
    await connection.execute("set local statement_timeout = 0")
    await connection.fetchval("select pg_advisory_xact_lock($1)", _lock(schema))
    applied = await _applied(connection, schema)
    _refuse_newer(applied, schema)
    missing = _missing(applied)
    if not missing:
        return []
    await _create_schema(connection, schema)
    await connection.execute(f"set local search_path to {quoted(schema)}, public")
    if not applied:
        await _refuse_foreign_tables(connection, schema)
        await connection.execute(_LEDGER)
        await _provide_uuids(connection)
    for migration in missing:
        await connection.execute(migration.sql)
        await connection.execute(
            "insert into openworkflow_migrations (version, name) values ($1, $2)",
            migration.version,
            migration.name,
        )
    return missing


async def _create_schema(connection: Connection, schema: str) -> None:
    # `if not exists` alone would ask for the right to create schemas although this one is there.
    if not await connection.fetchval("select true from pg_namespace where nspname = $1", schema):
        await connection.execute(f"create schema {quoted(schema)}")


async def _applied(connection: Connection, schema: str) -> dict[int, datetime]:
    ledger = f"{quoted(schema)}.openworkflow_migrations"
    async with connection.transaction():
        if not await _exists(connection, schema, "openworkflow_migrations"):
            return {}
        rows = await connection.fetch(f"select version, applied_at from {ledger}")  # noqa: S608
    return {row["version"]: row["applied_at"] for row in rows}


def _missing(applied: dict[int, datetime]) -> list[Migration]:
    return [migration for migration in known() if migration.version not in applied]


def _refuse_newer(applied: dict[int, datetime], schema: str) -> None:
    newest = known()[-1].version
    if applied and max(applied) > newest:
        raise BackendError(
            f"schema {schema!r} is at version {max(applied)}, newer than this program, "
            f"which knows up to {newest}; upgrade openworkflow-fleet here"
        )


async def _refuse_foreign_tables(connection: Connection, schema: str) -> None:
    for table in TABLES:
        if await _exists(connection, schema, table):
            raise BackendError(
                f"schema {schema!r} already has a table {table} that this program did not make; "
                "choose another schema (OPENWORKFLOW_SCHEMA), or, if its contents may go, "
                "DROP TABLE step_attempts; DROP TABLE workflow_runs;"
            )


async def _exists(connection: Connection, schema: str, table: str) -> bool:
    # Not to_regclass(): it may answer from what the session remembers of before the lock.
    found: bool = await connection.fetchval(
        "select exists (select from pg_tables where schemaname = $1 and tablename = $2)",
        schema,
        table,
    )
    return found


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


def _lock(schema: str) -> int:
    digest = hashlib.sha256(f"openworkflow migrations {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
