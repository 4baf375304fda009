"""Which kinds of connections there are, what is taken of each, and what is said of the others."""

from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from openworkflow.backend.callers import of_sqlalchemy
from openworkflow.backend.callers.foreign import Foreign, check_open, no_transaction
from openworkflow.backend.callers.threads import Perform
from openworkflow.backend.connection import Connection
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

_WANTED = (
    "a connection of yours in a transaction, of asyncpg, psycopg, SQLAlchemy over them or Django"
)
_BY_SQL = "a run can also be started by SQL of your own, see docs/schema.md"
_INSTEAD = {
    "Pool": "take one of the pool: async with pool.acquire() as connection",
    "ConnectionPool": "take one of the pool: with pool.connection() as connection",
    "AsyncConnectionPool": "take one of the pool: async with pool.connection() as connection",
    "Engine": "give a session or connection of it: with engine.begin() as connection",
    "AsyncEngine": "give a session or connection of it: async with engine.begin() as connection",
    "sessionmaker": "give a session that it makes",
    "async_sessionmaker": "give a session that it makes",
}
"""What to write instead, by the name of the class that was given."""
_OF_A_LOOP = (
    "this one belongs to an event loop, and OpenWorkflow.sync blocks: use the client of that loop, "
    "`await OpenWorkflow(backend).run_workflow(...)`"
)


def is_async(given: Any) -> bool:
    """Whether it is used in an event loop."""
    if _is_of(given, "psycopg"):
        from openworkflow.backend.callers import of_psycopg

        return of_psycopg.is_async(given)
    if _is_of(given, "sqlalchemy"):
        return of_sqlalchemy.is_async(given)
    return _is_of(given, "asyncpg")


async def async_driver_of(given: Any) -> Any:
    """The driver's connection, in a transaction. Raises ConfigurationError."""
    driver = await of_sqlalchemy.async_driver_of(given) if _is_of(given, "sqlalchemy") else given
    driver = getattr(driver, "connection", driver)  # of a cursor
    if isinstance(driver, (asyncpg.Connection, PoolConnectionProxy)):
        if not driver.is_in_transaction():
            raise no_transaction("open one: async with connection.transaction()")
        return getattr(driver, "_con", driver)  # the proxy may be detached before the commit
    if not _is_of(driver, "psycopg") or not is_async(driver):
        raise _refusal(given)
    check_open(driver)
    return driver


def as_async(driver: Any) -> Connection:
    """What has asyncpg's methods: an asyncpg connection is that itself."""
    if isinstance(driver, asyncpg.Connection):
        return driver
    from openworkflow.backend.callers import of_psycopg

    return of_psycopg.InLoop(driver)


def meant(given: Any) -> Any:
    """What stands behind a proxy that is another connection in each thread or context."""
    if type(given).__module__ == "django.utils.connection":
        return given._connections[given._alias]
    return given() if type(given).__name__ == "scoped_session" else given


def blocking_driver_of(given: Any) -> Any:
    """The driver's connection, in a transaction or about to begin one.

    To be called where blocking is allowed. Raises ConfigurationError.
    """
    if is_async(given):
        raise _refusal(given, _OF_A_LOOP)
    driver = given = meant(given)
    if _is_of(given, "sqlalchemy"):
        driver = of_sqlalchemy.driver_of(given)
    elif _is_of(given, "django") and getattr(given, "vendor", "") == "postgresql":
        given.ensure_connection()
        driver = given.connection
    driver = getattr(driver, "connection", driver)  # of a cursor
    if not (_is_of(driver, "psycopg") or _is_of(driver, "psycopg2")) or not _connects(driver):
        raise _refusal(given)
    check_open(driver)
    return driver


def as_blocking(driver: Any, perform: Perform) -> Foreign:
    """What has asyncpg's methods, and blocks the thread that it is performed in."""
    if _is_of(driver, "psycopg"):
        from openworkflow.backend.callers import of_psycopg

        return of_psycopg.Blocking(driver, perform)
    from openworkflow.backend.callers import of_psycopg2

    return of_psycopg2.Blocking(driver, perform)


def _connects(driver: Any) -> bool:
    return hasattr(driver, "autocommit") and hasattr(driver, "info")


def _is_of(given: Any, library: str) -> bool:
    return any(kind.__module__.partition(".")[0] == library for kind in type(given).__mro__)


def _refusal(given: object, instead: str | None = None) -> ConfigurationError:
    instead = instead or _INSTEAD.get(type(given).__name__, _BY_SQL)
    return ConfigurationError(f"connection is {_WANTED}, not {shown(given)}; {instead}")
