"""How tables in use are altered: for its lock a migration waits a moment only, then steps back.

ALTER TABLE needs its table for itself. While it waits for one old reader, every statement that
comes later waits behind it; so it gives up soon, lets them through and tries again. An index is
made concurrently, which holds up nobody and may itself wait for longer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import asyncpg

from openworkflow.backend.blueprint import Index, Migration
from openworkflow.core.errors import BackendError
from openworkflow_contract.statements import quoted

Connection = Any
"""An asyncpg connection."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds between two attempts."""

logger = logging.getLogger(__name__)

# Longer than deadlock_timeout, after which PostgreSQL sends an autovacuum away that is in the way.
_LIMIT_LOCKS = """
select set_config('lock_timeout', ceil(500 + 1000 * extract(
           epoch from current_setting('deadlock_timeout')::interval))::int::text, true)"""

NO_TIME_LIMITS = """
select set_config(name, '0', $1) from pg_settings
 where name in ('statement_timeout', 'transaction_timeout',
                'idle_in_transaction_session_timeout')"""
"""For this transaction, or for the session. The second came with PostgreSQL 17."""

_BLOCKERS = """
select lock.pid, activity.application_name as name,
       extract(epoch from clock_timestamp() - activity.xact_start)::int as seconds
  from (select pid from pg_locks
         where granted and relation in (select pg_class.oid
                                          from pg_class join pg_namespace
                                            on relnamespace = pg_namespace.oid
                                         where nspname = $1 and relname = any($2::text[]::name[]))
           and database = (select oid from pg_database where datname = current_database())
         union
        select pid from pg_stat_activity
         where $3 and datname = current_database() and backend_xmin is not null) as lock
  left join pg_stat_activity as activity using (pid)
 where pid is distinct from pg_backend_pid()
   and coalesce(activity.xact_start < clock_timestamp() - interval '1 second', true)
 order by activity.xact_start
 limit 5"""

_IS_VALID = """
select indisvalid from pg_index
  join pg_class on pg_class.oid = indexrelid join pg_namespace on relnamespace = pg_namespace.oid
 where nspname = $1 and relname = $2"""


class Patience:
    """How long to go on trying, and how long to pause in between."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._pause = seconds, FIRST_PAUSE
        self._deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds; none or less when it is over."""
        return self._deadline - time.monotonic()

    def pause(self) -> float:
        """Seconds to the next attempt, longer each time."""
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return min(pause, max(self.left, 0.0))


async def insist(
    connection: Connection,
    schema: str,
    what: str,
    tables: Collection[str],
    apply: Callable[[], Awaitable[object]],
    patience: Patience,
) -> None:
    """Apply `what` within the open transaction, as often as it takes to lock its `tables`.

    The advisory lock is kept in the pauses: fifty programs that take turns would leave no pause.
    Raises BackendError that names who is in the way.
    """
    await connection.fetchval(_LIMIT_LOCKS)
    while patience.left > 0:
        try:
            async with connection.transaction():
                await apply()
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            who, _ = await _blockers(connection, schema, tables, snapshots=False)
        pause = patience.pause()
        logger.warning("%s waits for %s; trying again in %.0f s", what, who, pause)
        await asyncio.sleep(pause)
    raise await _given_up(connection, schema, what, tables, patience, snapshots=False)


async def build(connection: Connection, schema: str, index: Index, patience: Patience) -> None:
    """Make an index while others write, on a direct connection outside of a transaction.

    What an interrupted attempt left behind is dropped first; PostgreSQL would keep it up to date,
    and never use it. Raises BackendError that names who is in the way.
    """
    await connection.fetch(NO_TIME_LIMITS, False)
    while patience.left > 0:
        try:
            valid = await connection.fetchval(_IS_VALID, schema, index.name)
            if valid:
                return
            await connection.execute(f"set lock_timeout = {max(1, int(patience.left * 1000))}")
            if valid is False:
                name = f"{quoted(schema)}.{index.name}"
                await connection.execute(f"drop index concurrently if exists {name}")
            await connection.execute(index.statement(schema, concurrently=True))
        except asyncpg.LockNotAvailableError:
            break
        except asyncpg.DeadlockDetectedError:
            await asyncio.sleep(patience.pause())
    what = f"index {index.name}"
    raise await _given_up(connection, schema, what, [index.table], patience, snapshots=True)


async def is_empty(connection: Connection, schema: str, migration: Migration) -> bool:
    """Whether the tables of the migration have no rows, or are not there yet."""
    async with connection.transaction():
        for table in migration.locks:
            where = f"{quoted(schema)}.{table}"
            if not await connection.fetchval("select to_regclass($1) is not null", where):
                continue
            if await connection.fetchval(f"select exists (select from {where})"):  # noqa: S608
                return False
    return True


async def _given_up(
    connection: Connection,
    schema: str,
    what: str,
    tables: Collection[str],
    patience: Patience,
    *,
    snapshots: bool,
) -> BackendError:
    who, pids = await _blockers(connection, schema, tables, snapshots=snapshots)
    end = f"SELECT pg_terminate_backend({pids[0]})" if pids else "see pg_stat_activity, pg_locks"
    return BackendError(
        f"schema {schema!r}: {what} could not lock {', '.join(tables)} within "
        f"{patience.seconds:g} s; in the way is {who}: let it end its transaction ({end}), then "
        "run `openworkflow migrate`"
    )


async def _blockers(
    connection: Connection, schema: str, tables: Collection[str], *, snapshots: bool
) -> tuple[str, list[int]]:
    """Connections that have held the tables for more than a moment, in words and as process ids.

    With `snapshots` any old transaction of the database: an index that is made waits for it.
    """
    async with connection.transaction():
        rows = await connection.fetch(_BLOCKERS, schema, list(tables), snapshots)
    found = [
        "a prepared transaction (pg_prepared_xacts)"
        if row["pid"] is None
        else f"pid {row['pid']} ({row['name'] or 'no application_name'}{_since(row['seconds'])})"
        for row in rows
    ]
    pids = [row["pid"] for row in rows if row["pid"] is not None]
    return ", ".join(found) or "a transaction that has ended meanwhile", pids


def _since(seconds: int | None) -> str:
    return "" if seconds is None else f", for {seconds} s"
