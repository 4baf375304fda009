"""What a schema has: the migrations in its ledger, and what of their tables is really there.

The ledger is the table `openworkflow_migrations`. Its highest number is the *contract*: additive
migrations are recorded below zero and do not raise it. One look is one transaction that reads two
catalogs and the ledger, so it may be taken at every connect.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openworkflow.backend.blueprint import TABLES, Index, Made, Migration, known, made_by
from openworkflow.backend.liveness import bounded
from openworkflow.core.errors import BackendError
from openworkflow_contract.statements import quoted

Connection = Any
"""An asyncpg connection, or a pool's proxy of one."""

TABLE = "openworkflow_migrations"
CREATE = f"""
create table {TABLE} (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
)"""
RECORD = f"insert into {TABLE} (version, name) values ($1, $2)"  # noqa: S608
FORGET = f"delete from {TABLE}"  # noqa: S608

# Not to_regclass(): it may answer from what the session remembers of before the lock. The casts
# spare the driver questions about the type name[], which cost more than all the rest.
_COLUMNS = """
select relname::text, attname::text
  from pg_class join pg_attribute on attrelid = pg_class.oid
 where relnamespace = (select oid from pg_namespace where nspname = $1)
   and relname = any($2::text[]::name[]) and relkind in ('r', 'p')
   and attnum > 0 and not attisdropped"""
_INDEXES = """
select relname::text
  from pg_class join pg_index on indexrelid = pg_class.oid
 where relnamespace = (select oid from pg_namespace where nspname = $1)
   and relname = any($2::text[]::name[]) and indisvalid"""


@dataclass(frozen=True, slots=True)
class MigrationState:
    """A migration, and when it was applied to the database; None if it was not yet."""

    migration: Migration
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that a migration made and somebody took away, and what to do about it."""

    found: str
    advice: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """One look at a schema."""

    schema: str
    exists: bool
    """Whether there is a ledger at all."""
    rows: dict[int, datetime]
    columns: frozenset[tuple[str, str]]
    """Pairs of table and column: all columns of our tables, whoever made them."""

    @property
    def tables(self) -> frozenset[str]:
        """Our tables that are there."""
        return frozenset(table for table, _ in self.columns)

    @property
    def contract(self) -> int:
        """The version that a program must know."""
        return max(self.rows, default=0)

    @property
    def emptied(self) -> bool:
        """Whether both tables of runs were dropped: nothing is left that a new start could hurt."""
        return bool(self.rows) and self.tables.isdisjoint(TABLES)

    @property
    def states(self) -> list[MigrationState]:
        """Every known migration with the time it was applied."""
        rows = {} if self.emptied else self.rows
        return [MigrationState(known_one, rows.get(known_one.number)) for known_one in known()]

    @property
    def missing(self) -> list[Migration]:
        """The known migrations that are to be applied, in order."""
        return [state.migration for state in self.states if state.applied_at is None]

    @property
    def made(self) -> Made:
        """The tables, columns and indexes that ought to be there."""
        return made_by(state.migration for state in self.states if state.applied_at is not None)

    @property
    def loss(self) -> Loss | None:
        """A table or column that is gone and that nobody but people may make again, if any."""
        made = self.made
        gone = [table for table in made.tables if table not in self.tables]
        if lost := [table for table in TABLES if table in gone]:
            return _half_of_the_runs(lost[0], *(set(TABLES) - {lost[0]}))
        if gone:
            return Loss(f"table {gone[0]} is gone", _restore_or(made.tables[gone[0]], self.schema))
        for column in made.columns:
            if (column.table, column.name) not in self.columns:
                return Loss(
                    f"column {column.name} of {column.table} is gone",
                    _restore_or(column.statement(self.schema), self.schema),
                )
        return None

    def refuse_newer(self) -> None:
        """Raise BackendError if the schema's contract is newer than this program."""
        newest = max(migration.number for migration in known())
        if self.contract > newest:
            raise BackendError(
                f"schema {self.schema!r} has contract {self.contract}, newer than this program, "
                f"which knows up to {newest}; upgrade openworkflow-fleet here"
            )

    def refuse_loss(self) -> None:
        """Raise BackendError if something is gone that only people can decide about."""
        if loss := self.loss:
            raise BackendError(f"schema {self.schema!r}: {loss.found}; {loss.advice}")


async def look(connection: Connection, schema: str) -> Ledger:
    """Take one look, of one moment: a migration may be committed while it is taken."""
    isolation = None if connection.is_in_transaction() else "repeatable_read"
    with bounded(connection):
        return await _look(connection, schema, isolation)


async def _look(connection: Connection, schema: str, isolation: str | None) -> Ledger:
    async with connection.transaction(isolation=isolation):
        ours = [TABLE, *made_by(known()).tables]
        columns = frozenset(map(tuple, await connection.fetch(_COLUMNS, schema, ours)))
        exists = any(table == TABLE for table, _ in columns)
        rows = await _rows(connection, schema) if exists else {}
    return Ledger(schema, exists, rows, columns)


async def lost_indexes(connection: Connection, schema: str) -> list[Index]:
    """Indexes of applied migrations that are gone or invalid."""
    indexes = (await look(connection, schema)).made.indexes
    rows = await connection.fetch(_INDEXES, schema, [index.name for index in indexes])
    valid = {row["relname"] for row in rows}
    return [index for index in indexes if index.name not in valid]


async def _rows(connection: Connection, schema: str) -> dict[int, datetime]:
    rows = await connection.fetch(f"select version, applied_at from {quoted(schema)}.{TABLE}")  # noqa: S608
    return {row["version"]: row["applied_at"] for row in rows}


def _half_of_the_runs(lost: str, kept: str) -> Loss:
    return Loss(
        f"table {lost} is gone and {kept} is not",
        f"restore both from a backup; or, if all runs may go, DROP TABLE {kept}; "
        "and `openworkflow migrate` makes both again",
    )


def _restore_or(statement: str, schema: str) -> str:
    return (
        "restore it from a backup; or make it again without what was in it, by "
        f"SET search_path TO {quoted(schema)}, public; {statement};"
    )
