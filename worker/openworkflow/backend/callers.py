"""A caller's own connection, as the driver's that statements of ours are sent on.

It may be one of asyncpg, or SQLAlchemy's AsyncSession or AsyncConnection over that. SQLAlchemy
begins its transaction with the first statement that it sends itself: whatever we sent before would
be committed at once, and stay where the session rolls back. So it is asked to send one first.
"""

from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from openworkflow.backend.connection import Connection
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

_WANTED = (
    "an asyncpg connection of yours in a transaction, or SQLAlchemy's AsyncSession or "
    "AsyncConnection over asyncpg"
)
_BY_SQL = "a run can also be started by SQL of your own, see docs/schema.md"


async def driver_connection(given: Any) -> Connection:
    """The connection to send on. Raises ConfigurationError before anything is stored."""
    if isinstance(given, (asyncpg.Connection, PoolConnectionProxy)):
        return given
    if isinstance(given, asyncpg.Pool):
        raise _refusal(given, "take one of the pool: async with pool.acquire() as connection")
    if any(kind.__module__.startswith("sqlalchemy.") for kind in type(given).__mro__):
        return await _of_sqlalchemy(given)
    raise _refusal(given, _BY_SQL)


async def _of_sqlalchemy(given: Any) -> Connection:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncSession,
        async_scoped_session,
    )

    if isinstance(given, (AsyncSession, async_scoped_session)):
        given = await given.connection()
    if not isinstance(given, AsyncConnection):
        raise _refusal(given, _BY_SQL)
    if given.dialect.driver != "asyncpg":
        raise _refusal(given, f"this one is over {given.dialect.driver}; {_BY_SQL}")
    await given.exec_driver_sql("select 1")
    return (await given.get_raw_connection()).driver_connection


def _refusal(given: object, instead: str) -> ConfigurationError:
    return ConfigurationError(f"connection is {_WANTED}, not {shown(given)}; {instead}")
